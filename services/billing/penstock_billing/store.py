"""All of billing's SQL, on one open transaction."""

from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg

from penstock_billing.domain import PricedTypes, PriceLine, Segment, Window
from penstock_common.delivery.outbox import Connection

_BATCH = 500


class Store:
    """The ledger, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def now(self) -> datetime:
        """The one clock that bills go by."""
        moment: datetime = await self._connection.fetchval("select clock_timestamp()")
        return moment

    async def segment_for_update(self, unknown: Segment) -> Segment:
        """The segment of the replica that `unknown` names, as it was last saved, and locked.

        A replica heard of for the first time gets the row that `unknown` describes.
        """
        [row] = await self._connection.fetch(
            "insert into segments (replica_id, organization_id, endpoint_id, gpu_type, gpu_count, cpu_cores)"
            " values ($1, $2, $3, $4, $5, $6)"
            # Writing the row, if only with its own value, is what locks it and returns it.
            " on conflict (replica_id) do update set replica_id = excluded.replica_id returning *",
            unknown.replica_id,
            unknown.organization_id,
            unknown.endpoint_id,
            unknown.gpu_type,
            unknown.gpu_count,
            unknown.cpu_cores,
        )
        return _segment(row)

    async def save_segment(self, segment: Segment) -> None:
        await self._connection.execute(
            "update segments set started_at = $2, ended_at = $3, gpu_type = $4, gpu_count = $5, cpu_cores = $6"
            " where replica_id = $1",
            segment.replica_id,
            segment.started_at,
            segment.ended_at,
            segment.gpu_type,
            segment.gpu_count,
            segment.cpu_cores,
        )

    async def segments(
        self, organization_id: str, endpoint_id: str | None, window: Window
    ) -> AsyncIterator[list[Segment]]:
        """An organization's segments that may reach into the window, some hundred at a time."""
        cursor = await self._connection.cursor(
            "select * from segments where organization_id = $1 and started_at < $2"
            " and coalesce(ended_at, 'infinity') > $3 and ($4::text is null or endpoint_id = $4)",
            organization_id,
            window.end,
            window.start,
            endpoint_id,
        )
        while rows := await cursor.fetch(_BATCH):
            yield [_segment(row) for row in rows]

    async def running_replicas(self, organization_id: str, endpoint_id: str | None) -> int:
        """How many segments are open."""
        count: int = await self._connection.fetchval(
            "select count(*) from segments where organization_id = $1 and started_at is not null"
            " and coalesce(ended_at, 'infinity') = 'infinity' and ($2::text is null or endpoint_id = $2)",
            organization_id,
            endpoint_id,
        )
        return count

    async def lock_prices(self) -> None:
        """Let one transaction at a time change prices; others may go on reading them."""
        await self._connection.execute("lock table prices in share row exclusive mode")

    async def price_lines(self) -> list[PriceLine]:
        """Every price there ever was or will be."""
        rows = await self._connection.fetch("select gpu_type, valid_from, micros_per_hour, currency from prices")
        return [PriceLine(**row) for row in rows]

    async def save_price(self, line: PriceLine) -> None:
        await self._connection.execute(
            "insert into prices (gpu_type, valid_from, micros_per_hour, currency) values ($1, $2, $3, $4)"
            " on conflict (gpu_type, valid_from) do update"
            " set micros_per_hour = excluded.micros_per_hour, currency = excluded.currency",
            line.gpu_type,
            line.valid_from,
            line.micros_per_hour,
            line.currency,
        )

    async def set_currency(self, currency: str) -> None:
        """Every price is in this currency."""
        await self._connection.execute("update prices set currency = $1", currency)

    async def metered_since(self, since: datetime, types: PricedTypes) -> bool:
        """Whether a replica of one of these types was metered after `since`."""
        found: bool = await self._connection.fetchval(
            "select exists (select from segments where coalesce(ended_at, 'infinity') > $1 and started_at is not null"
            " and started_at < coalesce(ended_at, 'infinity') and (gpu_type = any($2)) <> $3)",
            since,
            list(types.named),
            types.all_but_named,
        )
        return found

    async def metered_ever(self) -> bool:
        """Whether any replica was ever metered."""
        found: bool = await self._connection.fetchval(
            "select exists (select from segments where started_at < coalesce(ended_at, 'infinity'))"
        )
        return found


def _segment(row: "asyncpg.Record") -> Segment:
    return Segment(
        replica_id=row["replica_id"],
        organization_id=row["organization_id"],
        endpoint_id=row["endpoint_id"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        gpu_type=row["gpu_type"],
        gpu_count=row["gpu_count"],
        cpu_cores=row["cpu_cores"],
    )
