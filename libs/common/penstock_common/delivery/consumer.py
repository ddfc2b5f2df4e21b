"""Consuming: exactly-once effect on PostgreSQL from JetStream's at-least-once delivery.

Messages in hand are handled together, in stream order, in one transaction with their inbox rows.
When that transaction fails they are handled one by one, so one bad message costs the others nothing.
A message that fails is delivered again after a growing wait; one that can never be handled, or has
used up its deliveries, goes to the stream DEAD. While PostgreSQL is away nothing is given back:
messages wait in hand, so an outage uses up no deliveries.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import asyncpg
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError
from opentelemetry import propagate
from prometheus_client import Counter, Histogram

from penstock_common.contracts.base import Message
from penstock_common.contracts.topology import ConsumerSpec
from penstock_common.delivery.envelope import MESSAGE_ID, Received, decode
from penstock_common.delivery.errors import Permanent
from penstock_common.delivery.pull import Pull
from penstock_common.telemetry import tracer

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

S = TypeVar("S")
Handler = Callable[[Received[Any], S], Awaitable[None]]
BatchTransaction = Callable[[ConsumerSpec, list[str]], AbstractAsyncContextManager[tuple[S, set[str]]]]
"""Opens a transaction, claims these event ids in the inbox, and yields the store and the new ids."""

_OUTCOMES = ("handled", "ignored", "retried", "dead")
_handled = Counter("penstock_messages_handled", "Messages settled, by outcome", ["consumer", "outcome"])
_seconds = Histogram("penstock_message_batch_seconds", "Time to handle one batch", ["consumer"])

_OUTAGE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
)
_OUTAGE_SHUTDOWN = (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.TooManyConnectionsError)
_OUTAGE_WAIT_S_MAX = 5.0
_WAITED_S_MIN = 1.0
"""Less may be nothing but two machines whose clocks differ."""
PACE_S = 0.01
"""Time from the start of one transaction to that of the next, unless a whole batch is in hand: what
arrives meanwhile shares it. The first message after a silence does not wait."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A message in hand that could be read."""

    raw: Msg
    received: Received[Message]


class Delivery(Generic[S]):
    """Handles the messages of one durable consumer."""

    def __init__(
        self,
        spec: ConsumerSpec,
        handlers: Mapping[type[Message], Handler[S]],
        transaction: BatchTransaction[S],
        client: Callable[[], Client],
        js: Callable[[], JetStreamContext],
        after_commit: Callable[[], None] | None = None,
    ) -> None:
        self.spec = spec
        self._handlers = {kind.message_type: handler for kind, handler in handlers.items()}
        self._types: dict[str, type[Message]] = {kind.message_type: kind for kind in handlers}
        self._transaction = transaction
        self._js = js
        self._after_commit = after_commit
        self._waiting: list[Msg] = []
        self._taken: list[Msg] = []
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._seconds = _seconds.labels(spec.durable)
        self._count = {outcome: _handled.labels(spec.durable, outcome) for outcome in _OUTCOMES}
        self.pull = Pull(spec, client, self._take)

    def _take(self, raw: Msg) -> None:
        self._waiting.append(raw)
        self._empty.clear()
        self._arrived.set()

    async def empty(self) -> None:
        """Wait until every message that was taken is settled."""
        await self._empty.wait()

    async def run(self) -> None:
        """Settle what is pulled, for ever."""
        loop = asyncio.get_running_loop()
        began = -PACE_S
        keep_alive = asyncio.create_task(self._keep_alive())
        try:
            while True:
                await self._arrived.wait()
                if len(self._waiting) < self.spec.batch:
                    await asyncio.sleep(began + PACE_S - loop.time())
                began = loop.time()
                await self._settle_waiting()
        finally:
            keep_alive.cancel()

    async def _settle_waiting(self) -> None:
        self._arrived.clear()
        self._taken, self._waiting = self._waiting, []
        self._taken.sort(key=_position)
        try:
            with self._seconds.time():
                await self._settle(self._taken)
        finally:
            self.pull.settled(len(self._taken))
            self._taken = []
            if not self._waiting:
                self._empty.set()

    async def _settle(self, taken: list[Msg]) -> None:
        held: list[_Held] = []
        for raw in taken:
            try:
                received = decode(self._types, raw.headers or {}, raw.data, raw.metadata.num_delivered)
            except Permanent as error:
                await self._give_up(raw, error)
                continue
            if received is None:
                await self._acknowledge(raw, "ignored")
            else:
                held.append(_Held(raw, received))
        if held:
            await self._handle_all(held)

    async def _handle_all(self, held: list[_Held]) -> None:
        if len(held) > 1 and await self._attempt(held) is None:
            return
        for item in held:
            error = await self._attempt([item])
            if error is not None:
                await self._failed(item.raw, error)

    async def _attempt(self, held: list[_Held]) -> Exception | None:
        """Handle these in one transaction and acknowledge them; the error when it was rolled back."""
        wait_s = 0.1
        while True:
            try:
                await self._handle(held)
                break
            except (*_OUTAGE, *_OUTAGE_SHUTDOWN) as error:
                log.warning("PostgreSQL is away; holding messages", extra={"error": repr(error), "held": len(held)})
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _OUTAGE_WAIT_S_MAX)
            except Exception as error:
                return error
        if self._after_commit is not None:
            self._after_commit()
        for item in held:
            await self._acknowledge(item.raw, "handled")
        return None

    async def _handle(self, held: list[_Held]) -> None:
        async with self._transaction(self.spec, [item.received.id for item in held]) as (store, fresh):
            for item in held:
                if item.received.id in fresh:
                    fresh.discard(item.received.id)
                    await self._handle_one(item, store)

    async def _handle_one(self, item: _Held, store: S) -> None:
        received = item.received
        kind = received.message.message_type
        context = propagate.extract({"traceparent": received.traceparent}) if received.traceparent else None
        with _tracer.start_as_current_span(f"{self.spec.durable} {kind}", context=context, record_exception=False):
            waited_s = _waited_s(item.raw)
            await self._handlers[kind](replace(received, waited_s=waited_s) if waited_s else received, store)

    async def _failed(self, raw: Msg, error: Exception) -> None:
        deliveries = raw.metadata.num_delivered
        if isinstance(error, Permanent) or deliveries >= self.spec.max_deliver:
            await self._give_up(raw, error)
            return
        delay_s = self.spec.backoff_s[min(deliveries, len(self.spec.backoff_s)) - 1]
        log.warning(
            "message failed; it comes again",
            extra={"consumer": self.spec.durable, "delivery": deliveries, "delay_s": delay_s, "error": repr(error)},
            exc_info=error,
        )
        self._count["retried"].inc()
        with suppress(nats.errors.Error):
            await raw.nak(delay=delay_s)

    async def _give_up(self, raw: Msg, error: Exception) -> None:
        """Keep the message in DEAD, then take it off the consumer; never the other way round."""
        # The server's own headers, such as those of an atomic batch, belong to the first publish.
        headers = {
            **{name: value for name, value in (raw.headers or {}).items() if not name.startswith("Nats-")},
            MESSAGE_ID: f"{self.spec.durable}:{(raw.headers or {}).get('ce-id')}:{raw.metadata.sequence.stream}",
            "Penstock-Dead-Subject": raw.subject,
            "Penstock-Dead-Consumer": self.spec.durable,
            "Penstock-Dead-Error": " ".join(f"{type(error).__name__}: {error}".split())[:1000],
            "Penstock-Dead-Deliveries": str(raw.metadata.num_delivered),
        }
        log.error(
            "message given up", extra={"consumer": self.spec.durable, "subject": raw.subject, "error": str(error)}
        )
        try:
            await self._js().publish(self.spec.dead_subject, raw.data, timeout=5, headers=headers)
            await raw.term()
            self._count["dead"].inc()
        except (nats.errors.Error, APIError) as unreachable:
            log.error("could not keep a dead letter; it comes again", extra={"error": repr(unreachable)})
            with suppress(nats.errors.Error):
                await raw.nak(delay=self.spec.backoff_s[-1])

    async def _acknowledge(self, raw: Msg, outcome: str) -> None:
        # An acknowledgement that is lost costs one more delivery, which the inbox skips.
        with suppress(nats.errors.Error):
            await raw.ack()
        self._count[outcome].inc()

    async def _keep_alive(self) -> None:
        """What is in hand beyond the acknowledgement deadline must not be delivered a second time."""
        while True:
            await asyncio.sleep(self.spec.ack_wait_s / 3)
            for raw in (*self._taken, *self._waiting):
                with suppress(nats.errors.Error):
                    await raw.in_progress()


def _position(raw: Msg) -> int:
    return raw.metadata.sequence.stream


def _waited_s(raw: Msg) -> float:
    """How long the stream has had it, in seconds. Asked as late as can be: PostgreSQL may have been away."""
    waited_s = (datetime.now(UTC) - raw.metadata.timestamp).total_seconds()
    return waited_s if waited_s >= _WAITED_S_MIN else 0.0
