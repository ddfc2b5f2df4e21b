"""PostgreSQL: one schema and one role for each service, and plain SQL migrations."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

# A string, because asyncpg's classes are generic for type checkers only.
Pool: TypeAlias = "asyncpg.Pool[Any]"

_COMMON_MIGRATIONS = Path(__file__).parent / "migrations"


class MigrationError(RuntimeError):
    """The database does not match the migrations of this version."""


async def create_pool(database_url: str, schema: str, *, size: int) -> Pool:
    """A pool whose connections see only `schema`. Raises OSError or asyncpg errors when unreachable."""
    return await asyncpg.create_pool(
        database_url,
        min_size=1,
        max_size=size,
        command_timeout=30,
        timeout=10,
        reset=_leave_as_is,
        server_settings={"search_path": schema, "application_name": f"penstock-{schema}"},
    )


async def _leave_as_is(_: object) -> None:
    """Instead of the library's reset, a round trip of four statements after each use of a connection.

    Nothing is set for longer than its transaction, and an open one is rolled back all the same.
    """


async def answers(pool: Pool) -> bool:
    """Whether PostgreSQL answers within two seconds."""
    try:
        await asyncio.wait_for(pool.fetchval("select 1"), 2)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _files(*folders: Path) -> list[tuple[str, str]]:
    return [
        (f"{position}/{path.name}", path.read_text())
        for position, folder in enumerate(folders)
        for path in sorted(folder.glob("*.sql"))
    ]


async def migrate(pool: Pool, schema: str, folder: Path | None) -> list[str]:
    """Apply what is missing, each file in its own transaction; returns the names applied.

    Raises MigrationError when an applied file has changed since, or is gone: migrations are only
    ever added.
    """
    folders = (_COMMON_MIGRATIONS,) if folder is None else (_COMMON_MIGRATIONS, folder)
    applied: list[str] = []
    async with pool.acquire() as connection:
        await connection.execute("select pg_advisory_lock(hashtext($1))", f"migrate:{schema}")
        try:
            await connection.execute(
                "create table if not exists schema_migrations"
                " (name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
            )
            known = {row["name"]: row["sha256"] for row in await connection.fetch("select * from schema_migrations")}
            files = _files(*folders)
            _refuse_changed(known, files)
            for name, sql in files:
                if name in known:
                    continue
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute(
                        "insert into schema_migrations (name, sha256) values ($1, $2)", name, _digest(sql)
                    )
                applied.append(name)
        finally:
            await connection.execute("select pg_advisory_unlock(hashtext($1))", f"migrate:{schema}")
    return applied


def _refuse_changed(known: dict[str, str], files: list[tuple[str, str]]) -> None:
    present = {name: _digest(sql) for name, sql in files}
    for name, digest in known.items():
        if name not in present:
            raise MigrationError(f"migration {name} was applied but is not in this version: install a newer one")
        if present[name] != digest:
            raise MigrationError(f"migration {name} was changed after it was applied: add a new file instead")


def _digest(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()
