"""A store in memory and the one on PostgreSQL behind the same fixture: one suite runs on both."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from penstock_common.service import Service
from penstock_scheduler.app import MIGRATIONS
from penstock_scheduler.settings import SchedulerSettings
from penstock_scheduler.store import Store
from tests_support import running

from .fake_store import FakeStore


@dataclass(frozen=True)
class Tables:
    """Opens transactions, and tells what left through the outbox: (name or key, body) in order."""

    transaction: Callable[[], AbstractAsyncContextManager[Any]]
    told: Callable[[], Any]
    """Awaitable: the names of the facts, in order."""
    bucket: Callable[[str], Any]
    """Awaitable: key → record, as readers of this bucket see it."""


@pytest.fixture
def fake_tables() -> Tables:
    return _in_memory(FakeStore())


@pytest.fixture
async def postgres_tables(make_settings: Callable[..., SchedulerSettings]) -> AsyncIterator[Tables]:
    settings = make_settings("scheduler", SchedulerSettings)
    service: Service[Store] = Service("scheduler", settings, make_store=Store, migrations=MIGRATIONS)
    async with running(service):
        yield _in_postgres(service)


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.connected)])
def tables(request: pytest.FixtureRequest) -> Tables:
    """Empty tables, in memory or in PostgreSQL."""
    found: Tables = request.getfixturevalue(f"{request.param}_tables")
    return found


def _in_memory(store: FakeStore) -> Tables:
    @asynccontextmanager
    async def transaction() -> AsyncIterator[FakeStore]:
        yield store

    async def told() -> list[str]:
        return [type(fact).__name__ for fact in store.facts]

    async def bucket(name: str) -> dict[str, Any]:
        records = store.routes if name == "routes" else store.assignments
        return {key: json.loads(record.model_dump_json()) for key, record in records.items()}

    return Tables(transaction, told, bucket)


def _in_postgres(service: Service[Store]) -> Tables:
    async def told() -> list[str]:
        rows = await service.pool.fetch("select subject from outbox where subject like 'events.%' order by id")
        words = [row["subject"].split(".")[2:4] for row in rows]
        return [f"{entity.capitalize()}{fact.capitalize()}" for entity, fact in words]

    async def bucket(name: str) -> dict[str, Any]:
        prefix = f"$KV.{name}."
        found: dict[str, Any] = {}
        for row in await service.pool.fetch("select subject, payload from outbox order by id"):
            if row["subject"].startswith(prefix):
                key = row["subject"].removeprefix(prefix)
                found.pop(key, None)
                if row["payload"]:
                    found[key] = json.loads(row["payload"])
        return found

    return Tables(service.transaction, told, bucket)
