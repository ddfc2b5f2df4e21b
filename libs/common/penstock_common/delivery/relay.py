"""Sends outbox rows to JetStream, in order, from the one active relay of each service."""

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError
from prometheus_client import Counter

from penstock_common.contracts.topology import EVENTS, FACTS
from penstock_common.ids import EVENT, new_id

log = logging.getLogger(__name__)

PAGE = 1000
BATCH = 100
"""Rows in one atomic publish; the server allows 1,000."""
ACK_TIMEOUT_S = 10.0
STANDBY_WAIT_S = 3600.0
IDLE_CHECK_S = 10.0
"""A lost notification delays a message by no more than this."""

_sent = Counter("penstock_outbox_sent", "Outbox rows acknowledged by JetStream", ["lane"])


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    subject: str
    headers: dict[str, str]
    payload: bytes


class Relay:
    """Run `run()` for ever; it recovers from the loss of PostgreSQL and NATS by itself."""

    def __init__(self, database_url: str, schema: str, client: Client, js: JetStreamContext) -> None:
        self._database_url = database_url
        self._schema = schema
        self._client = client
        self._js = js
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Hold the relay lock and send. Raises the error that ended the session; run it again."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self._database_url,
            timeout=10,
            command_timeout=30,
            server_settings={
                "search_path": self._schema,
                "application_name": f"penstock-{self._schema}-relay",
                # A note "sent" that is lost in a crash costs one more sending, which is dropped as a
                # duplicate; waiting for the disk here would cost every message a few milliseconds.
                "synchronous_commit": "off",
            },
        )
        try:
            # A lost connection must be noticed now, not at the next check.
            connection.add_termination_listener(lambda _: self._wake.set())
            await connection.add_listener(f"outbox_{self._schema}", lambda *_: self._wake.set())
            # Waits here while another process of this service is the active relay.
            await connection.execute(
                "select pg_advisory_lock(hashtext($1))", f"relay:{self._schema}", timeout=STANDBY_WAIT_S
            )
            while True:
                self._wake.clear()
                while await self._send_page(connection):
                    pass
                # Not wait_for, which in Python 3.11 can lose a cancellation that comes with the wake-up.
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_CHECK_S):
                        await self._wake.wait()
        finally:
            # A graceful close would wait on a server that may be gone.
            connection.terminate()

    async def _send_page(self, connection: "asyncpg.Connection[Any]") -> bool:
        """Send one page of rows; whether it was full, so that there may be more."""
        rows = [
            _Row(row["id"], row["subject"], json.loads(row["headers"]), row["payload"])
            for row in await connection.fetch(
                "select id, subject, headers, payload from outbox where sent_at is null order by id limit $1", PAGE
            )
        ]
        if not rows:
            return False
        events = [row for row in rows if row.subject.startswith(FACTS)]
        others = [row for row in rows if not row.subject.startswith(FACTS)]
        # Facts and bucket writes are two lanes: each keeps its order, neither waits for the other.
        failure = None
        sent: list[int] = []
        for outcome in await asyncio.gather(self._send_events(events), self._send_each(others)):
            sent += outcome[0]
            failure = failure or outcome[1]
        if sent:
            await connection.execute("update outbox set sent_at = clock_timestamp() where id = any($1)", sent)
        if failure is not None:
            raise failure
        return len(rows) == PAGE

    async def _send_events(self, rows: list[_Row]) -> tuple[list[int], Exception | None]:
        sent: list[int] = []
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            if len(chunk) == 1 or not await self._send_atomically(chunk):
                done, failure = await self._send_each(chunk)
                sent += done
                if failure is not None:
                    return sent, failure
            else:
                _sent.labels("batch").inc(len(chunk))
                sent += [row.id for row in chunk]
        return sent, None

    async def _send_atomically(self, rows: list[_Row]) -> bool:
        """One atomic batch; False when the server refuses it, for instance for one duplicate in it."""
        batch_id = new_id(EVENT)
        for position, row in enumerate(rows[:-1], start=1):
            headers = {**row.headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(position)}
            await self._client.publish(row.subject, row.payload, headers=headers)
        last = rows[-1]
        headers = {
            **last.headers,
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(len(rows)),
            "Nats-Batch-Commit": "1",
        }
        try:
            reply = await self._client.request(last.subject, last.payload, ACK_TIMEOUT_S, headers=headers)
        except nats.errors.Error as error:
            log.warning("atomic publish got no answer; sending one by one", extra={"error": repr(error)})
            return False
        answer = json.loads(reply.data)
        if "error" in answer:
            log.info("atomic publish refused; sending one by one", extra={"error": answer["error"]})
            return False
        return bool(answer.get("stream") == EVENTS.name)

    async def _send_each(self, rows: list[_Row]) -> tuple[list[int], Exception | None]:
        """All in flight at once; what is acknowledged before the first failure counts as sent."""
        if not rows:
            return [], None
        try:
            pending = [await self._js.publish_async(row.subject, row.payload, headers=row.headers) for row in rows]
            done = await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), ACK_TIMEOUT_S)
        except (TimeoutError, nats.errors.Error, APIError) as error:
            return [], error
        sent: list[int] = []
        for row, outcome in zip(rows, done, strict=True):
            if isinstance(outcome, Exception):
                _sent.labels("single").inc(len(sent))
                return sent, outcome
            sent.append(row.id)
        _sent.labels("single").inc(len(sent))
        return sent, None
