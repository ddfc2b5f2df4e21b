"""The transactional outbox: what a transaction says to others is committed with what it changed."""

import json
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg

from penstock_common.contracts.base import Message, Record
from penstock_common.contracts.topology import BUCKETS, COMPLETE, BucketSpec
from penstock_common.delivery.envelope import headers_for
from penstock_common.ids import EVENT, new_id

# A string, because asyncpg's classes are generic for type checkers only.
Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

_INSERT = """
insert into outbox (message_id, subject, headers, payload)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
"""


class Outbox:
    """Bound to one open transaction. Lock the entity's row first, so that its messages keep their order.

    Messages are kept until `flush`, which `Service.transaction` calls before it commits: one round
    trip however many there are.
    """

    def __init__(self, connection: Connection, source: str) -> None:
        self._connection = connection
        self._source = source
        self._rows: list[tuple[str, str, str, bytes]] = []

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
        if self._rows:
            await self._connection.execute(_INSERT, *map(list, zip(*self._rows, strict=True)))
            self._rows.clear()

    def _write(self, subject: str, headers: dict[str, str], payload: bytes) -> None:
        # Without Nats-Msg-Id: after a failure the writes to one key are sent again in order, and the
        # server must not drop the later of them as ones it has seen.
        self._add(new_id(EVENT), subject, headers, payload)

    def _add(self, message_id: str, subject: str, headers: dict[str, str], payload: bytes) -> None:
        self._rows.append((message_id, subject, json.dumps(headers), payload))
