"""Sends outbox rows to JetStream, in order, from the one active relay of each service."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats.errors
from nats.aio.client import Client
from prometheus_client import Counter

from penstock_common.contracts.topology import EVENTS, FACTS
from penstock_common.delivery.outbox import NEW
from penstock_common.delivery.publish import Pipeline
from penstock_common.ids import EVENT, new_id

log = logging.getLogger(__name__)

PAGE = 1000
BATCH = 250
"""Rows in one atomic publish; the server allows 1,000."""
BATCH_MIN = 16
"""Fewer go one by one. The server (2.15, one replica) makes a store on disk for each atomic batch: 2 to
5 ms of its processor and 0.03 ms for each message, where a message alone costs it 0.15 ms, most of it for
writing it to disk (measured on two cores with `sync_interval: always`)."""
PACE_S = 0.01
"""Time between two looks at the outbox: what is committed meanwhile shares one look, one sending and one
note. The first message after a silence does not wait."""
ACK_TIMEOUT_S = 10.0
STANDBY_WAIT_S = 3600.0
STOP_WAIT_S = 1.0
"""Longest wait, when stopping, for the page that is being sent."""
IDLE_CHECK_S = 10.0
"""A lost notification delays a message by no more than this."""
FLOOR_EVERY_S = 10.0
"""How often the relay finds out below which row there is nothing left."""

_UNSENT = """
select id, subject, headers, payload from outbox where sent_at is null and id > $1 order by id limit $2
"""
_SNAPSHOT = """
select pg_snapshot_xmin(s)::text::bigint as oldest, pg_snapshot_xmax(s)::text::bigint as following
from pg_current_snapshot() s
"""

_sent = Counter("penstock_outbox_sent", "Outbox rows acknowledged by JetStream", ["lane"])


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    subject: str
    headers: dict[str, str]
    payload: bytes


class Floor:
    """Up to which row of the outbox nothing waits, so that a look need not begin at the first.

    The index of what is unsent keeps an entry for each row sent since PostgreSQL last vacuumed it, and a
    look from the first row passes them all: 5 ms for a million. A row may be committed after later ones
    were sent, so a row counts as passed only when every transaction begun until then has ended.
    """

    def __init__(self) -> None:
        self.id = 0
        self._sent = 0
        self._marked = 0
        self._marked_following = 0

    def sent(self, row_id: int) -> None:
        """Every committed row up to this one was sent."""
        self._sent = max(self._sent, row_id)

    def rise(self, oldest: int, following: int) -> None:
        """Take what was sent at the last call as passed, if the transactions of that time are over.

        `oldest` is the first transaction still open, `following` the first that has not begun.
        """
        if oldest >= self._marked_following:
            self.id = self._marked
            self._marked, self._marked_following = self._sent, following


class Relay:
    """Run `run()` for ever; it recovers from the loss of PostgreSQL and NATS by itself."""

    def __init__(self, database_url: str, schema: str, client: Callable[[], Client]) -> None:
        self._database_url = database_url
        self._schema = schema
        self._client = client
        self._events = Pipeline(client)
        self._others = Pipeline(client)
        self._wake = asyncio.Event()
        self._active = False
        self._floor = Floor()
        self._from_start = True
        """Whether the next look begins at the first row: rows sent before may have to be sent again."""

    @property
    def active(self) -> bool:
        """Whether it is this process that relays."""
        return self._active

    def wake(self) -> None:
        """There is something new in the outbox, committed."""
        self._wake.set()

    def _notified(self, *arguments: object) -> None:
        self._from_start = self._from_start or arguments[-1] != NEW
        self._wake.set()

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
            await connection.add_listener(f"outbox_{self._schema}", self._notified)
            # Waits here while another process of this service is the active relay.
            await connection.execute(
                "select pg_advisory_lock(hashtext($1))", f"relay:{self._schema}", timeout=STANDBY_WAIT_S
            )
            self._active = True
            self._from_start = True
            await self._send(connection)
        finally:
            self._active = False
            # A graceful close would wait on a server that may be gone.
            connection.terminate()

    async def _send(self, connection: "asyncpg.Connection[Any]") -> None:
        loop = asyncio.get_running_loop()
        raised = loop.time()
        while True:
            self._wake.clear()
            looked = loop.time()
            if self._from_start:
                self._from_start = False
                self._floor = Floor()
            while await _finishing(self._send_page(connection)):
                pass
            if looked - raised >= FLOOR_EVERY_S:
                raised = looked
                [(oldest, following)] = await connection.fetch(_SNAPSHOT)
                self._floor.rise(oldest, following)
            # Not wait_for, which in Python 3.11 can lose a cancellation that comes with the wake-up.
            try:
                async with asyncio.timeout(IDLE_CHECK_S):
                    await self._wake.wait()
            except TimeoutError:
                self._from_start = True
            await asyncio.sleep(looked + PACE_S - loop.time())

    async def _send_page(self, connection: "asyncpg.Connection[Any]") -> bool:
        """Send one page of rows; whether it was full, so that there may be more."""
        rows = [
            _Row(row["id"], row["subject"], json.loads(row["headers"]), row["payload"])
            for row in await connection.fetch(_UNSENT, self._floor.id, PAGE)
        ]
        if not rows:
            return False
        events = [row for row in rows if row.subject.startswith(FACTS)]
        others = [row for row in rows if not row.subject.startswith(FACTS)]
        # Facts and bucket writes are two lanes: each keeps its order, neither waits for the other.
        failure = None
        sent: list[int] = []
        for outcome in await asyncio.gather(self._send_events(events), _send_each(self._others, others)):
            sent += outcome[0]
            failure = failure or outcome[1]
        if sent:
            await connection.execute("update outbox set sent_at = clock_timestamp() where id = any($1)", sent)
        if failure is not None:
            raise failure
        self._floor.sent(rows[-1].id)
        return len(rows) == PAGE

    async def _send_events(self, rows: list[_Row]) -> tuple[list[int], Exception | None]:
        sent: list[int] = []
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            if len(chunk) < BATCH_MIN or not await self._send_atomically(chunk):
                done, failure = await _send_each(self._events, chunk)
                sent += done
                if failure is not None:
                    return sent, failure
            else:
                _sent.labels("batch").inc(len(chunk))
                sent += [row.id for row in chunk]
        return sent, None

    async def _send_atomically(self, rows: list[_Row]) -> bool:
        """One atomic batch; False when the server refuses it, for instance for one duplicate in it."""
        client = self._client()
        batch_id = new_id(EVENT)
        for position, row in enumerate(rows[:-1], start=1):
            headers = {**row.headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(position)}
            await client.publish(row.subject, row.payload, headers=headers)
        last = rows[-1]
        headers = {
            **last.headers,
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(len(rows)),
            "Nats-Batch-Commit": "1",
        }
        try:
            reply = await client.request(last.subject, last.payload, ACK_TIMEOUT_S, headers=headers)
        except nats.errors.Error as error:
            log.warning("atomic publish got no answer; sending one by one", extra={"error": repr(error)})
            return False
        answer = json.loads(reply.data)
        if "error" in answer:
            log.info("atomic publish refused; sending one by one", extra={"error": answer["error"]})
            return False
        return bool(answer.get("stream") == EVENTS.name)


async def _finishing(page: Coroutine[Any, Any, bool]) -> bool:
    """A stop waits until what was published is noted as sent: otherwise it would be sent again later."""
    task = asyncio.ensure_future(page)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=STOP_WAIT_S)
        raise
    finally:
        task.cancel()


async def _send_each(pipeline: Pipeline, rows: list[_Row]) -> tuple[list[int], Exception | None]:
    """All in flight at once; what is acknowledged before the first failure counts as sent."""
    if not rows:
        return [], None
    try:
        answers = await pipeline.send(rows, timeout_s=ACK_TIMEOUT_S)
    except nats.errors.Error as error:
        return [], error
    failed = next((position for position, answer in enumerate(answers) if answer is not None), None)
    sent = [row.id for row in rows[:failed]]
    _sent.labels("single").inc(len(sent))
    return sent, None if failed is None else answers[failed]
