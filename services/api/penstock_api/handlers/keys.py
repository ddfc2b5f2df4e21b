"""Requests about API keys, and what keeps the bucket `api_keys` equal to the table."""

from collections.abc import Mapping

from penstock_api.domain import cursors
from penstock_api.domain.access import Caller, scopes_for_new_key
from penstock_api.domain.accounts import NewKey
from penstock_api.domain.idempotency import Attempt
from penstock_api.domain.problems import in_utc, invalid_field, not_found
from penstock_api.handlers.once import Answer, Created, new_key_text, once
from penstock_api.handlers.platform import Page, Platform
from penstock_api.store import Store
from penstock_api.views import accounts as views
from penstock_common.contracts.records import ApiKeyRecord
from penstock_common.ids import API_KEY, MEMBER, is_id, new_id


async def list_keys(store: Store, caller: Caller, page: Page) -> views.ApiKeyPage:
    after = None if page.cursor is None else cursors.read_id(API_KEY, page.cursor)
    found = await store.keys.keys(caller.organization_id, after, page.limit + 1)
    shown = found[: page.limit]
    return views.ApiKeyPage(
        items=[views.ApiKey.model_validate(key) for key in shown],
        next_cursor=cursors.after_id(API_KEY, shown[-1].id) if len(found) > page.limit else None,
    )


async def create_key(platform: Platform, caller: Caller, body: views.NewApiKey, attempt: Attempt | None) -> Answer:
    member_id = body.member_id or caller.member_id

    async def save(store: Store) -> Created:
        await store.keys.lock()
        member = await store.accounts.member(caller.organization_id, member_id) if is_id(MEMBER, member_id) else None
        if member is None:
            raise invalid_field("member_id", "there is no such member in your organization")
        if body.expires_at is not None and body.expires_at <= await store.now():
            raise invalid_field("expires_at", "is in the past: give a later time, or none for a key that stays")
        text = new_key_text(caller, attempt)
        key = await store.keys.add(
            NewKey(
                id=new_id(API_KEY),
                organization_id=caller.organization_id,
                member_id=member.id,
                name=body.name,
                text=text.text,
                scopes=scopes_for_new_key(caller, member.role, None if body.scopes is None else tuple(body.scopes)),
                expires_at=None if body.expires_at is None else in_utc("expires_at", body.expires_at),
            )
        )
        return Created(views.ApiKeyCreated(**views.ApiKey.model_validate(key).model_dump(), key=text.text), text)

    return await once(platform, caller, attempt, save)


async def revoke_key(store: Store, caller: Caller, identifier: str) -> None:
    await store.keys.lock()
    if not is_id(API_KEY, identifier) or not await store.keys.revoke(caller.organization_id, identifier):
        raise not_found("API key", identifier)


async def rewrite_records(store: Store) -> int:
    """Every bucket record that should exist, for a replay; returns how many."""
    await store.keys.lock()
    return await store.keys.write_all_records()


async def repair_records(platform: Platform, found: Mapping[str, ApiKeyRecord]) -> tuple[int, int]:
    """Make the bucket equal to the table, given what it held a moment ago: (written, deleted).

    Removes expired keys, and mends whatever was lost.
    """
    before = dict(found)
    async with platform.transaction() as store:
        await store.keys.lock()
        return await store.keys.repair_records(before)
