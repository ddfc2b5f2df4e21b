"""Waiting, before a stop, until every message was handled and every outbox sent."""

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
from nats.js import JetStreamContext

from penstock_common.contracts.topology import CONSUMERS, EVENTS

_LOOK_EVERY_S = 0.05


async def drain(js: JetStreamContext, connection: "asyncpg.Connection[Any]", schemas: Iterable[str]) -> None:
    """Returns once nothing is in hand anywhere; with administrator credentials. Bound it with a timeout.

    What is left when the wait is given up is not lost: it is handled at the next start.
    """
    schemas = tuple(schemas)
    before = None
    while True:
        # Twice, with nothing published between: places are looked at one after the other, and a
        # message may have moved on behind the look.
        after = await _quiet_at(js, connection, schemas)
        if after is not None and after == before:
            return
        before = after
        await asyncio.sleep(_LOOK_EVERY_S)


async def _quiet_at(
    js: JetStreamContext, connection: "asyncpg.Connection[Any]", schemas: tuple[str, ...]
) -> int | None:
    """The last sequence of EVENTS if nothing waits anywhere, else None."""
    for consumer in CONSUMERS:
        info = await js.consumer_info(consumer.stream, consumer.durable)
        if info.num_pending or info.num_ack_pending:
            return None
    for schema in schemas:
        if await connection.fetchval(f"select exists (select from {schema}.outbox where sent_at is null)"):
            return None
    return (await js.stream_info(EVENTS.name)).state.last_seq
