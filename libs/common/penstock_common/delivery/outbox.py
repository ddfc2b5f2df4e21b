"""The transactional outbox: what a transaction says to others is committed with what it changed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import asyncpg

from penstock_common.contracts.base import Message, Record
from penstock_common.contracts.topology import BUCKETS, COMPLETE, BucketSpec
from penstock_common.delivery.envelope import headers_for
from penstock_common.ids import EVENT, new_id

# A string, because asyncpg's classes are generic for type checkers only.
Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

ACQUIRE_WAIT_S = 10.0
"""Longest wait for a connection of the pool."""

_COLUMNS = "outbox (message_id, subject, headers, payload)"
_INSERT_ONE = f"insert into {_COLUMNS} values ($1, $2, $3, $4)"
_INSERT = f"insert into {_COLUMNS} select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[])"


NEW = "new"
"""Notifies of rows just written. Any other notification has the relay look at every row."""


class Waking(Protocol):
    """The relay of this process."""

    @property
    def active(self) -> bool: ...
    def wake(self) -> None: ...


class Outbox:
    """Bound to one open transaction. Lock the entity's row first, so that its messages keep their order.

    Messages are kept until `flush`, before the transaction commits: one round trip however many there
    are. With `relay`, the relay is not notified by the transaction while it is this process that
    relays: `transaction` below then wakes it after the commit.
    """

    def __init__(self, connection: Connection, source: str, relay: Waking | None = None) -> None:
        self._connection = connection
        self._source = source
        self._relay = relay
        self._rows: list[tuple[str, str, str, bytes]] = []
        self.must_wake = False
        """Whether messages were written of which nobody was notified."""

    async def emit(self, event: Message, *, subject: str | None = None) -> str:
        """Publish `event` once the transaction commits; returns its id."""
        event_id = new_id(EVENT)
        headers = headers_for(event, message_id=event_id, source=self._source, time=datetime.now(UTC))
        self._add(event_id, subject or event.message_type, headers, event.model_dump_json().encode())
        return event_id

    async def put(self, record: Record) -> None:
        """Write a bucket record once the transaction commits."""
        self._write(BUCKETS[record.bucket].subject(record.key()), {}, record.model_dump_json().encode())

    async def complete(self, bucket: BucketSpec) -> None:
        """Say that every record that should be in the bucket is there; after writing them."""
        self._write(bucket.subject(COMPLETE), {}, datetime.now(UTC).isoformat().encode())

    async def delete(self, record_type: type[Record], key: str) -> None:
        """Delete a bucket record once the transaction commits."""
        self._write(BUCKETS[record_type.bucket].subject(key), {"KV-Operation": "DEL"}, b"")

    async def flush(self) -> None:
        """Write what was said into the transaction."""
        if not self._rows:
            return
        if len(self._rows) == 1:
            await self._connection.execute(_INSERT_ONE, *self._rows[0])
        else:
            await self._connection.execute(_INSERT, *map(list, zip(*self._rows, strict=True)))
        self._rows.clear()
        if self._relay is not None and self._relay.active:
            self.must_wake = True
        else:
            await notify(self._connection, self._source, NEW)

    def _write(self, subject: str, headers: dict[str, str], payload: bytes) -> None:
        # Without Nats-Msg-Id: after a failure the writes to one key are sent again in order, and the
        # server must not drop the later of them as ones it has seen.
        self._add(new_id(EVENT), subject, headers, payload)

    def _add(self, message_id: str, subject: str, headers: dict[str, str], payload: bytes) -> None:
        self._rows.append((message_id, subject, json.dumps(headers), payload))


async def notify(connection: Connection, source: str, what: str = "") -> None:
    """Wake the active relay of a service, whichever process it is in, once the transaction commits."""
    await connection.execute("select pg_notify($1, $2)", f"outbox_{source}", what)


@asynccontextmanager
async def transaction(
    pool: "asyncpg.Pool[Any]", source: str, relay: Waking
) -> AsyncIterator[tuple[Connection, Outbox]]:
    """One transaction and its outbox: committed at the end of the block, rolled back on an error."""
    async with pool.acquire(timeout=ACQUIRE_WAIT_S) as connection:
        outbox = Outbox(connection, source, relay)
        try:
            async with connection.transaction():
                yield connection, outbox
                await outbox.flush()
        finally:
            # After an error too: a commit that was interrupted may have come through.
            if outbox.must_wake and relay.active:
                relay.wake()
        if outbox.must_wake and not relay.active:
            # Another process may have become the relay, and looked, just before the commit. What is not
            # said here it finds at its next look.
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await notify(connection, source, NEW)
