"""Creating things at most once for each Idempotency-Key."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock_api.domain.access import Caller
from penstock_api.domain.idempotency import Attempt, KeptAnswer, check_same
from penstock_api.domain.keys import RANDOM_VALUES, derived_value, key_text, sha256_of
from penstock_api.domain.problems import Problem
from penstock_api.handlers.platform import Platform
from penstock_api.store import Store
from penstock_api.views.base import View

CREATED = 201


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered: an HTTP status and a JSON text."""

    status: int
    body: str


@dataclass(frozen=True, slots=True)
class NewKeyText:
    """The text of a key that is being made, and from what the same request can make it again."""

    text: str
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """What was created; `key` is the secret that the view holds, if any."""

    view: View
    key: NewKeyText | None = None


Save = Callable[[Store], Awaitable[Created]]
Prepare = Callable[[], Awaitable[Save]]


def new_key_text(caller: Caller, attempt: Attempt | None) -> NewKeyText:
    """A fresh key. If the request may come again, the caller's own key can derive the same one again."""
    if attempt is None:
        return NewKeyText(key_text(secrets.randbelow(RANDOM_VALUES)))
    nonce = secrets.token_bytes(32)
    return NewKeyText(key_text(derived_value(caller.key_text, nonce)), nonce)


async def once(platform: Platform, caller: Caller, attempt: Attempt | None, save: Save) -> Answer:
    """Create by `save`, in one transaction; a request that was granted before gets the same answer again."""

    async def prepare() -> Save:
        return save

    return await once_prepared(platform, caller, attempt, prepare)


async def once_prepared(platform: Platform, caller: Caller, attempt: Attempt | None, prepare: Prepare) -> Answer:
    """The same, when there is much to check before the transaction begins."""
    if attempt is None:
        save = await prepare()
        async with platform.transaction() as store:
            return Answer(CREATED, (await save(store)).view.model_dump_json())
    before = await _kept(platform, caller, attempt)
    if before is not None:
        return before
    try:
        save = await prepare()
        async with platform.transaction() as store:
            created = await save(store)
            if not await store.idempotency.keep(attempt, _to_keep(attempt, created)):
                raise _Overtaken
            return Answer(CREATED, created.view.model_dump_json())
    except (_Overtaken, Problem):
        # The same request may have been granted meanwhile; then "the name is taken" means by itself.
        meanwhile = await _kept(platform, caller, attempt)
        if meanwhile is None:
            raise
        return meanwhile


class _Overtaken(Exception):
    """The same request, sent twice at once, was granted in another transaction: undo this one."""


def _to_keep(attempt: Attempt, created: Created) -> KeptAnswer:
    """The answer without the secret: the digest stands in its place."""
    body = created.view.model_dump_json()
    if created.key is None:
        return KeptAnswer(attempt.request_sha256, CREATED, body)
    body = body.replace(created.key.text, sha256_of(created.key.text))
    return KeptAnswer(attempt.request_sha256, CREATED, body, created.key.nonce)


async def _kept(platform: Platform, caller: Caller, attempt: Attempt) -> Answer | None:
    async with platform.transaction() as store:
        kept = await store.idempotency.find(attempt)
    if kept is None:
        return None
    check_same(attempt, kept)
    if kept.nonce is None:
        return Answer(kept.status, kept.answer)
    text = key_text(derived_value(caller.key_text, kept.nonce))
    return Answer(kept.status, kept.answer.replace(sha256_of(text), text))
