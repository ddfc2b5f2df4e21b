"""The inbox: which messages a consumer has already handled, and the housekeeping of both tables."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from penstock_common.contracts.topology import FACTS
from penstock_common.delivery.outbox import Connection, notify
from penstock_common.postgres import Pool

OUTBOX_KEPT = timedelta(days=7)
"""Sent rows stay this long, so that a replay can restore the EVENTS stream."""
INBOX_KEPT = timedelta(days=30)
"""Longer than any message can come back: the stream and the outbox both keep theirs for 7 days."""


async def claim(connection: Connection, consumer: str, event_ids: Sequence[str]) -> set[str]:
    """Mark these as handled in this transaction; returns those that were not before."""
    rows = await connection.fetch(
        "insert into inbox (consumer, event_id) select $1, unnest($2::text[])"
        " on conflict do nothing returning event_id",
        consumer,
        list(event_ids),
    )
    return {row["event_id"] for row in rows}


async def mark_for_replay(connection: Connection, schema: str, since: datetime) -> int:
    """Have the relay send again every fact committed since `since`; returns how many."""
    status = await connection.execute(
        "update outbox set sent_at = null where created_at >= $1 and starts_with(subject, $2) and sent_at is not null",
        since,
        FACTS,
    )
    await notify(connection, schema)
    return int(status.rpartition(" ")[2])


PRUNED_AT_ONCE = 10_000
"""Rows deleted in one statement, so that none takes long however many there are."""


async def prune(pool: Pool) -> None:
    """Forget sent and handled messages that can no longer matter."""
    for table, time, kept in (("outbox", "sent_at", OUTBOX_KEPT), ("inbox", "handled_at", INBOX_KEPT)):
        deleted = PRUNED_AT_ONCE
        while deleted == PRUNED_AT_ONCE:
            status = await pool.execute(
                f"delete from {table} where ctid in"
                f" (select ctid from {table} where {time} < now() - $1::interval limit {PRUNED_AT_ONCE})",
                kept,
            )
            deleted = int(status.rpartition(" ")[2])
