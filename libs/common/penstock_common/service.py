"""What every service process is made of, wired once: PostgreSQL, NATS, delivery, health, stop."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import asyncpg
import nats.errors
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext
from nats.aio.client import Client
from nats.js import JetStreamContext

from penstock_common import telemetry
from penstock_common.contracts.base import Contract, Message, Question
from penstock_common.contracts.permissions import inbox_prefix
from penstock_common.contracts.questions import Replay, ReplayReply
from penstock_common.contracts.topology import OWNED_BUCKETS, ConsumerSpec, replay_subject
from penstock_common.delivery import inbox
from penstock_common.delivery.consumer import Delivery, Handler
from penstock_common.delivery.outbox import Connection, Outbox, transaction
from penstock_common.delivery.relay import Relay
from penstock_common.delivery.topology import make_missing
from penstock_common.delivery.watch import BucketWatch, R, is_complete
from penstock_common.ops import OpsServer
from penstock_common.postgres import Pool, answers, create_pool, migrate
from penstock_common.rpc import Answer, Answering, ask
from penstock_common.settings import ServiceSettings

log = logging.getLogger(__name__)

S = TypeVar("S")
MakeStore = Callable[[Connection, Outbox], S]

CONNECT_RETRY_S = 0.2
RESTART_WAIT_S_MAX = 10.0
PRUNE_EVERY_S = 3600.0
COMPLETE_CHECK_S = 5.0


class Service(Generic[S]):
    """One process of one service. Declare what it does, then `run()` it.

    `S` is the service's store: its SQL, bound to one transaction and that transaction's outbox. A
    service without `make_store` has no database.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        *,
        make_store: MakeStore[S] | None = None,
        migrations: Path | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self._make_store = make_store
        self._migrations = migrations
        self._subscriptions: list[tuple[ConsumerSpec, Mapping[type[Message], Handler[S]], Callable[[], None] | None]]
        self._subscriptions = []
        self._questions: list[tuple[type[Question], Answer, str]] = []
        self._background: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._on_start: list[Callable[[], Awaitable[None]]] = []
        self._on_stop: list[Callable[[], Awaitable[None]]] = []
        self._resync: Callable[[S], Awaitable[int]] | None = None
        self._watches: list[BucketWatch[Any]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._deliveries: list[Delivery[S]] = []
        self._settling: list[asyncio.Task[None]] = []
        self._pulling: list[asyncio.Task[None]] = []
        self._answering: list[Answering] = []
        self._pool: Pool | None = None
        self._js: JetStreamContext | None = None
        self._relay: Relay | None = None
        self._ops: OpsServer | None = None
        self._stopping = asyncio.Event()
        self.broker = self._make_broker()

    # --- declaring ------------------------------------------------------------------------

    def subscribe(
        self,
        consumer: ConsumerSpec,
        handlers: Mapping[type[Message], Handler[S]],
        *,
        after_commit: Callable[[], None] | None = None,
    ) -> None:
        """Handle the messages of a durable consumer, each in one transaction with its inbox row."""
        self._subscriptions.append((consumer, handlers, after_commit))

    def answer(self, question: type[Question], handler: Answer) -> None:
        """Answer a kind of question, together with the other processes of this service."""
        self._questions.append((question, handler, question.rpc))

    def background(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep `run` running: again after an error, with growing waits; cancelled at the stop."""
        self._background.append((name, run))

    def on_start(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this first, before any server is reached."""
        self._on_start.append(callback)

    def on_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this when asked to stop, while every connection is still open."""
        self._on_stop.append(callback)

    def on_replay(self, resync: Callable[[S], Awaitable[int]]) -> None:
        """Rewrite, through the outbox, every bucket record this service owns; returns how many."""
        self._resync = resync

    def watch(
        self, record_type: type[R], on_change: Callable[[str, R | None], None], *, keys: str = ">"
    ) -> BucketWatch[R]:
        """Watch a bucket from the start of the service on."""
        bucket_watch = BucketWatch(lambda: self.js, record_type, on_change, keys=keys)
        self._watches.append(bucket_watch)
        self.background(f"watch {record_type.bucket}", bucket_watch.run)
        return bucket_watch

    # --- using ----------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        if self._pool is None:
            raise RuntimeError(f"{self.name} is not connected to PostgreSQL")
        return self._pool

    @property
    def relay(self) -> Relay:
        """The sender of this process's outbox."""
        if self._relay is None:
            raise RuntimeError(f"{self.name} is not connected to PostgreSQL")
        return self._relay

    @property
    def nats(self) -> Client:
        return self.broker.connection

    @property
    def js(self) -> JetStreamContext:
        """JetStream, once NATS was reached for the first time. Raises RuntimeError before."""
        if self._js is None:
            raise RuntimeError(f"{self.name} has not reached NATS yet")
        return self._js

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[S]:
        """One PostgreSQL transaction: committed at the end of the block, rolled back on an error."""
        if self._make_store is None:
            raise RuntimeError(f"{self.name} has no database")
        async with transaction(self.pool, self.name, self.relay) as (connection, outbox):
            yield self._make_store(connection, outbox)

    async def ask(
        self, question: Question, *, deadline_s: float | None = None, subject: str | None = None
    ) -> Any:  # the type is question.reply, which Python cannot express for a class attribute
        """Ask another service. Raises Unavailable or DomainError, as penstock_common.rpc says."""
        return await ask(
            self.nats, question, subject=subject or question.rpc, deadline_s=deadline_s or question.deadline_s
        )

    async def restore_topology(self) -> list[str]:
        """Make the streams, buckets and consumers that NATS lost; returns their names.

        Raises nats.errors.Error when this service may not, which is all but the api.
        """
        return await make_missing(self.js)

    # --- running --------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, then stop in order."""
        telemetry.configure(self.name, log_level=self.settings.log_level, otlp_endpoint=self.settings.otlp_endpoint)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            starting = asyncio.create_task(self.start())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                log.info("ready", extra={"ops_port": self.ops_port})
                await stopping
            else:
                starting.cancel()
            log.info("stopping")
        finally:
            await self.stop()
            telemetry.shut_down()

    async def start(self) -> None:
        """Connect and begin; returns when the service is ready. Waits for servers that are starting."""
        self._ops = OpsServer(self.settings.ops_host, self.settings.ops_port, self._checks)
        self.ops_port = self._ops.port
        await self._ops.start()
        for callback in self._on_start:
            await callback()
        if self._make_store is not None:
            await self._connect_postgres()
        await self._connect_nats()
        if self._make_store is not None:
            if self.name in OWNED_BUCKETS:
                self._spawn("complete buckets", self._keep_complete)
            self._spawn("relay", self.relay.run)
            self._spawn("prune", self._prune)
            self._questions.append((Replay, self._replay, replay_subject(self.name)))
        for question, handler, subject in self._questions:
            answering = Answering(self.nats, question, handler, subject=subject)
            await answering.start()
            self._answering.append(answering)
        for name, run in self._background:
            self._spawn(name, run)
        for consumer, handlers, after_commit in self._subscriptions:
            self._start_consumer(consumer, handlers, after_commit)

    async def stop(self) -> None:
        """Stop taking work, finish what is in hand, then leave."""
        for callback in self._on_stop:
            try:
                await asyncio.wait_for(callback(), self.settings.shutdown_grace_s)
            except Exception:
                log.exception("stopping did not go as planned; going on")
        for answering in self._answering:
            with suppress(nats.errors.Error, TimeoutError):
                await asyncio.wait_for(answering.stop(), self.settings.shutdown_grace_s)
        await _cancel(self._tasks)
        # What is in hand is finished, and only then the connection closes.
        await _cancel(self._pulling)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.shutdown_grace_s):
                await asyncio.gather(*(delivery.empty() for delivery in self._deliveries))
        await _cancel(self._settling)
        with suppress(nats.errors.Error, TimeoutError):
            await asyncio.wait_for(self.broker.stop(), self.settings.shutdown_grace_s)
        if self._pool is not None:
            self._pool.terminate()
        if self._ops is not None:
            await self._ops.stop()

    def request_stop(self) -> None:
        """End `run()`, as SIGTERM would."""
        self._stopping.set()

    # --- parts ----------------------------------------------------------------------------

    def _make_broker(self) -> NatsBroker:
        password = self.settings.nats_password
        return NatsBroker(
            self.settings.nats_url.split(","),
            security=SASLPlaintext(self.settings.nats_user or "", password.get_secret_value()) if password else None,
            name=f"penstock-{self.name}",
            inbox_prefix=inbox_prefix(self.name),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            error_cb=_log_nats_error,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            apply_types=False,
            graceful_timeout=self.settings.shutdown_grace_s,
            logger=None,
        )

    async def _disconnected(self) -> None:
        for bucket_watch in self._watches:
            bucket_watch.lost()

    async def _reconnected(self) -> None:
        log.info("NATS is back")
        for bucket_watch in self._watches:
            bucket_watch.restart()

    async def _connect_nats(self) -> None:
        async def connect() -> None:
            await self.broker.connect()

        await _patiently("NATS", connect, (nats.errors.Error, OSError, TimeoutError))
        self._js = self.nats.jetstream(timeout=5)

    def _database_url(self) -> str:
        if self.settings.database_url is None:
            raise RuntimeError("PENSTOCK_DATABASE_URL is not set: give the address of PostgreSQL")
        return self.settings.database_url.get_secret_value()

    async def _connect_postgres(self) -> None:
        async def connect() -> None:
            self._pool = await create_pool(self._database_url(), self.name, size=self.settings.pool_size)
            self._relay = Relay(self._database_url(), self.name, lambda: self.nats)

        await _patiently("PostgreSQL", connect, (OSError, asyncpg.PostgresError, TimeoutError))
        applied = await migrate(self.pool, self.name, self._migrations)
        if applied:
            log.info("migrated", extra={"applied": applied})

    def _start_consumer(
        self,
        consumer: ConsumerSpec,
        handlers: Mapping[type[Message], Handler[S]],
        after_commit: Callable[[], None] | None,
    ) -> None:
        delivery = Delivery(
            consumer, handlers, self._claiming_transaction, lambda: self.nats, lambda: self.js, after_commit
        )
        self._deliveries.append(delivery)
        self._settling.append(asyncio.create_task(_again_and_again(consumer.durable, delivery.run)))
        self._pulling.append(asyncio.create_task(_again_and_again(f"{consumer.durable} pull", delivery.pull.run)))

    @asynccontextmanager
    async def _claiming_transaction(
        self, consumer: ConsumerSpec, event_ids: list[str]
    ) -> AsyncIterator[tuple[S, set[str]]]:
        make_store = cast("MakeStore[S]", self._make_store)
        async with transaction(self.pool, self.name, self.relay) as (connection, outbox):
            fresh = await inbox.claim(connection, consumer.durable, event_ids)
            yield make_store(connection, outbox), fresh

    async def _replay(self, question: Replay) -> Contract:
        async with transaction(self.pool, self.name, self.relay) as (connection, outbox):
            events = await inbox.mark_for_replay(connection, self.name, question.since)
            records = await self._rewrite_records(connection, outbox)
        return ReplayReply(events=events, records=records)

    async def _rewrite_records(self, connection: Connection, outbox: Outbox) -> int:
        """Write every record this service owns, then the marks that its buckets are complete."""
        records = 0
        if self._resync is not None and self._make_store is not None:
            records = await self._resync(self._make_store(connection, outbox))
        for bucket in OWNED_BUCKETS.get(self.name, ()):
            await outbox.complete(bucket)
        return records

    async def _keep_complete(self) -> None:
        """Fill the buckets this service owns whenever NATS made them anew."""
        while True:
            missing = [bucket.name for bucket in OWNED_BUCKETS[self.name] if not await is_complete(self.js, bucket)]
            if missing:
                log.warning("buckets are new; writing every record", extra={"buckets": missing})
                async with transaction(self.pool, self.name, self.relay) as (connection, outbox):
                    await self._rewrite_records(connection, outbox)
            await asyncio.sleep(COMPLETE_CHECK_S)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            await inbox.prune(self.pool)

    async def _checks(self) -> dict[str, bool]:
        connection = self.broker._connection
        checks = {"nats": connection is not None and connection.is_connected}
        if self._make_store is not None:
            checks["postgres"] = self._pool is not None and await answers(self._pool)
        return checks

    def _spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(_again_and_again(name, run), name=name))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    while pending:
        # Again, because a library may swallow one cancellation.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def _again_and_again(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run for ever; a failure is logged and followed by a new start after a growing wait."""
    loop = asyncio.get_running_loop()
    wait_s = 0.1
    while True:
        started = loop.time()
        try:
            await run()
            return
        except Exception as error:
            log.warning("interrupted; starting again", extra={"task": name, "error": repr(error)}, exc_info=error)
        wait_s = 0.1 if loop.time() - started > RESTART_WAIT_S_MAX else min(wait_s * 2, RESTART_WAIT_S_MAX)
        await asyncio.sleep(wait_s)


async def _patiently(what: str, connect: Callable[[], Awaitable[None]], failures: tuple[type[Exception], ...]) -> None:
    """Connect to a server that may still be starting, or be away for long: /readyz says so meanwhile."""
    while True:
        try:
            return await connect()
        except failures as error:
            log.info("waiting for a server", extra={"server": what, "error": repr(error)})
        await asyncio.sleep(CONNECT_RETRY_S)


async def _log_nats_error(error: Exception) -> None:
    log.warning("NATS", extra={"error": repr(error)})
