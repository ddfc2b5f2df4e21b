"""A ledger in memory, which behaves as the one in PostgreSQL does: one suite runs against both."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock_billing.app import build
from penstock_billing.domain import PricedTypes, PriceLine, Segment, Window
from penstock_billing.settings import BillingSettings
from tests_support import running

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class FakeStore:
    """The tables as dictionaries, and a clock that stands still."""

    clock: datetime = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
    rows: dict[str, Segment] = field(default_factory=dict)
    prices: dict[tuple[str, datetime], PriceLine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for gpu_type, micros in (("CPU", 50_000), ("*", 2_000_000), ("RTX 4090", 600_000)):
            self.prices[gpu_type, EPOCH] = PriceLine(gpu_type, EPOCH, micros, "USD")

    async def now(self) -> datetime:
        return self.clock

    async def segment_for_update(self, unknown: Segment) -> Segment:
        return self.rows.setdefault(unknown.replica_id, unknown)

    async def save_segment(self, segment: Segment) -> None:
        self.rows[segment.replica_id] = segment

    async def segments(
        self, organization_id: str, endpoint_id: str | None, window: Window
    ) -> AsyncIterator[list[Segment]]:
        for row in self._started():
            if row.organization_id == organization_id and endpoint_id in (None, row.endpoint_id):
                yield [row]

    async def running_replicas(self, organization_id: str, endpoint_id: str | None) -> int:
        return sum(
            row.ended_at is None and row.organization_id == organization_id and endpoint_id in (None, row.endpoint_id)
            for row in self._started()
        )

    async def lock_prices(self) -> None: ...

    async def price_lines(self) -> list[PriceLine]:
        return list(self.prices.values())

    async def save_price(self, line: PriceLine) -> None:
        self.prices[line.gpu_type, line.valid_from] = line

    async def set_currency(self, currency: str) -> None:
        self.prices = {key: replace(line, currency=currency) for key, line in self.prices.items()}

    async def metered_since(self, since: datetime, types: PricedTypes) -> bool:
        return any(
            (row.ended_at is None or row.ended_at > since) and (row.gpu_type in types.named) != types.all_but_named
            for row in self._metered()
        )

    async def metered_ever(self) -> bool:
        return bool(self._metered())

    def _started(self) -> list[Segment]:
        return [row for row in self.rows.values() if row.started_at is not None]

    def _metered(self) -> list[Segment]:
        return [row for row in self._started() if row.ended_at is None or row.started_at < row.ended_at]


@pytest.fixture(scope="session")
def new_fake_store() -> type[FakeStore]:
    """What makes an empty ledger in memory; one for each example of a property."""
    return FakeStore


Ledger = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a transaction on a store."""


@pytest.fixture
def fake_ledger(new_fake_store: type[FakeStore]) -> Ledger:
    store = new_fake_store()

    @asynccontextmanager
    async def transaction() -> AsyncIterator[FakeStore]:
        yield store

    return transaction


@pytest.fixture
async def postgres_ledger(make_settings: Callable[..., BillingSettings]) -> AsyncIterator[Ledger]:
    async with running(build(make_settings("billing", BillingSettings))) as service:
        yield service.transaction


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.connected)])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """An empty ledger with the seeded prices, in memory or in PostgreSQL."""
    found: Ledger = request.getfixturevalue(f"{request.param}_ledger")
    return found
