"""The first organization of a platform, and the key with which everything else is made."""

import os
import secrets
import tempfile
from pathlib import Path

from penstock_api.domain.access import PLATFORM_ADMIN, SCOPES, effective_scopes
from penstock_api.domain.accounts import Member, NewKey, Organization
from penstock_api.domain.keys import RANDOM_VALUES, is_key, key_text, sha256_of
from penstock_api.store import Store
from penstock_common.delivery.outbox import Outbox
from penstock_common.errors import DomainError
from penstock_common.ids import API_KEY, MEMBER, ORGANIZATION, WORKSPACE, new_id
from penstock_common.postgres import create_pool, migrate

WORKSPACE_SLUG = "default"
_KEY_NAME = "bootstrap"


async def bootstrap(database_url: str, migrations: Path, organization: str, key_file: Path) -> bool:
    """Make the organization that runs the platform, its workspace and owner, and a key in `key_file`.

    Does what is missing and nothing else; returns whether it wrote a new key. Raises OSError or
    asyncpg errors when the database or the file cannot be reached, DomainError when a name is taken.
    """
    pool = await create_pool(database_url, "api", size=2)
    try:
        await migrate(pool, "api", migrations)
        async with pool.acquire() as connection, connection.transaction():
            outbox = Outbox(connection, "api")
            store = Store(connection, outbox)
            # Two at once must not make two keys; the lock on keys does for this too.
            await store.keys.lock()
            owner = await _owner(store, await _organization(store, organization))
            if await _is_usable(store, _content(key_file)):
                return False
            await _write_key(store, owner, key_file)
            await outbox.flush()
            return True
    finally:
        await pool.close()


async def _organization(store: Store, name: str) -> Organization:
    found = await store.accounts.operator()
    if found is None:
        found = await store.accounts.add_organization(new_id(ORGANIZATION), name, operator=True)
    if found is None:
        raise DomainError("name_taken", f"there is an organization named {name!r} already: give another name")
    if await store.accounts.workspace(found.id, WORKSPACE_SLUG) is None:
        # Taken by others only if the operator deleted its own; then it has no need for it.
        await store.accounts.add_workspace(new_id(WORKSPACE), found.id, WORKSPACE_SLUG)
    return found


async def _owner(store: Store, organization: Organization) -> Member:
    owner = await store.accounts.first_owner(organization.id)
    if owner is None:
        owner = await store.accounts.add_member(
            new_id(MEMBER), organization.id, email="owner@localhost", name="Owner", role="owner"
        )
    if owner is None:
        raise DomainError("name_taken", "owner@localhost is a member but not an owner: make a member owner")
    return owner


async def _is_usable(store: Store, text: str) -> bool:
    if not is_key(text):
        return False
    caller = await store.keys.caller(sha256_of(text))
    return caller is not None and PLATFORM_ADMIN in caller.scopes


async def _write_key(store: Store, owner: Member, key_file: Path) -> None:
    """The file first: should the transaction fail, the file holds a key that the next run replaces.

    The other way round a valid key could exist that nobody has.
    """
    text = key_text(secrets.randbelow(RANDOM_VALUES))
    await store.keys.add(
        NewKey(
            id=new_id(API_KEY),
            organization_id=owner.organization_id,
            member_id=owner.id,
            name=_KEY_NAME,
            text=text,
            scopes=effective_scopes(SCOPES, "owner", operator=True),
            expires_at=None,
        )
    )
    _replace(key_file, f"{text}\n")


def _content(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _replace(path: Path, content: str) -> None:
    """Whole or not at all, and for its owner's eyes only (mkstemp makes files with mode 0600)."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
