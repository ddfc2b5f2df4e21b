"""A connection to a replica: carries one request at a time and is kept for the next.

What happens when it closes before any byte of an answer: the request may have run, so it is not sent
again. The one exception is a safe method without a body (GET, HEAD, OPTIONS) on a connection that had
been kept: there the replica most likely closed an idle connection just as we used it, and RFC 9110,
section 9.2.2, allows the repetition. It is sent once more, on a fresh connection. To keep other
requests out of that gap, connections are kept for less time than replicas keep theirs, and the kernel
is asked whether the other end has closed before one is used again.
"""

import asyncio
import logging
import select
from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING, cast

from penstock_gateway.domain import REPLICA_LOST, REPLICA_MALFORMED, REPLICA_TIMEOUT, BadResponse
from penstock_gateway.proxy.bodies import BadChunk, ChunkedDecoder, encode_chunks, last_chunk
from penstock_gateway.proxy.deadlines import NEVER_S
from penstock_gateway.proxy.fields import passing_trailers
from penstock_gateway.proxy.measuring import JSON, TAIL_BYTES, USAGE_KEY, Meter, Usage, measured_media, usage_in
from penstock_gateway.proxy.response_head import (
    BODILESS,
    ResponseHead,
    parse_response_head,
    prepare_answer,
    status_line,
    write_response_head,
)
from penstock_gateway.proxy.templates import worth_making

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context
    from penstock_gateway.proxy.exchange import Exchange
    from penstock_gateway.proxy.replica import Replica

log = logging.getLogger(__name__)

_OK = 200
JOINED_BYTES_MAX = 16 * 1024
"""A body up to this long is copied behind its head: cheaper than a gathering write."""


class Phase(IntEnum):
    """What the next bytes of a replica are."""

    IDLE = 0
    HEAD = 1
    SIZED = 2
    CHUNKED = 3
    UNTIL_CLOSE = 4
    TUNNEL = 5
    CLOSED = 6


_IDLE, _HEAD, _SIZED, _CHUNKED, _UNTIL_CLOSE, _TUNNEL, _CLOSED = Phase


class UpstreamConnection(asyncio.Protocol):
    """One connection. `exchange` is the request it works on, if any; `write` sends bytes."""

    __slots__ = (
        "_buffer",
        "_context",
        "_decoder",
        "_heard",
        "_keep",
        "_left",
        "_limits",
        "_meter",
        "_paused",
        "_phase",
        "_poll",
        "_rechunk",
        "_transport",
        "_uses",
        "deadline_s",
        "exchange",
        "idle_since_s",
        "looked_at_s",
        "replica",
        "write",
        "write_paused",
    )

    write: Callable[[bytes], None]

    def __init__(self, context: "Context", replica: "Replica") -> None:
        self.replica = replica
        self.exchange: Exchange | None = None
        self.looked_at_s = NEVER_S
        self.deadline_s = NEVER_S
        self.idle_since_s = 0.0
        self.write_paused = False
        self._context = context
        self._limits = context.limits
        self._phase: Phase = _IDLE
        self._buffer = b""
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._meter: Meter | None = None
        self._rechunk = False
        self._keep = True
        self._heard = False
        self._paused = False
        self._uses = 0

    # --- used by the pool and the exchange ------------------------------------------------

    def begin(self, exchange: "Exchange") -> None:
        """Send the request, or as much of it as has arrived."""
        exchange.upstream = self
        self.exchange = exchange
        self._phase = _HEAD
        self._heard = False
        self._uses += 1
        self.deadline_s = at_s = exchange.bound_s + self._limits.replica_timeout_s
        if at_s < self.looked_at_s:
            self._context.deadlines.watch(self, at_s)
        pending = exchange.pending
        if not pending:
            self.write(exchange.request)
        else:
            if exchange.held_bytes <= JOINED_BYTES_MAX:
                self.write(exchange.request + (pending[0] if len(pending) == 1 else b"".join(pending)))
            else:
                self._transport.writelines([exchange.request, *pending])
            exchange.pending = []
            exchange.held_bytes = 0
        if exchange.client.reading_paused:
            exchange.client.update_reading()

    def tunnel(self, data: bytes) -> None:
        """Pass on bytes of an upgraded connection."""
        self._watch(monotonic() + self._limits.tunnel_idle_timeout_s)
        self.write(data)

    def park(self, now_s: float) -> None:
        """Nothing is under way: keep the connection for the next request."""
        self._phase = _IDLE
        self._decoder = None
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self.idle_since_s = now_s
        at_s = now_s + self._limits.replica_idle_s
        if at_s < self.looked_at_s:
            self._context.deadlines.watch(self, at_s)
        self.replica.keep(self)

    @property
    def closed(self) -> bool:
        return self._phase is _CLOSED

    def is_stale(self, now_s: float) -> bool:
        """Whether a kept connection was closed by the other end, or has been kept too long."""
        return now_s - self.idle_since_s >= self._limits.replica_idle_s or bool(self._poll.poll(0))

    def pause(self) -> None:
        """The client takes no more for now."""
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            limits = self._limits
            silence_s = limits.tunnel_idle_timeout_s if self._phase is _TUNNEL else limits.replica_timeout_s
            self.deadline_s = monotonic() + silence_s
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once: the request on it is given up."""
        self.exchange = None
        self._phase = _CLOSED
        self._transport.abort()

    def close(self) -> None:
        """Close once everything is sent."""
        self.exchange = None
        self._phase = _CLOSED
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._watch(monotonic() + self._limits.stall_timeout_s)

    # --- called by the event loop ---------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Nobody asked for this; whatever it is, it must not become an answer.
            self.replica.lost(self)
            self.drop()
            return
        try:
            if self._phase is _HEAD:
                if not self._buffer and exchange.plain and self._answer_as_before(exchange, data):
                    return
                self._read_head(exchange, data)
            elif self._phase is _TUNNEL:
                self._watch(monotonic() + self._limits.tunnel_idle_timeout_s)
                exchange.client.send(data)
            else:
                self.deadline_s = monotonic() + self._limits.replica_timeout_s
                payload, done, rest = self._read_body(data)
                self._relay(exchange, payload, done, rest)
        except (BadResponse, BadChunk) as error:
            log.warning(
                "a replica's answer is not valid HTTP",
                extra={"replica_id": self.replica.replica_id, "error": str(error)},
            )
            self.drop()
            exchange.fail_upstream(REPLICA_MALFORMED)

    def connection_lost(self, error: Exception | None) -> None:
        self._context.deadlines.forget(self)
        exchange, phase = self.exchange, self._phase
        self.exchange = None
        self._phase = _CLOSED
        if exchange is None:
            self.replica.lost(self)
        elif phase is _UNTIL_CLOSE and error is None:
            if self._rechunk:
                exchange.client.send(last_chunk([]))
            if self._meter is not None:
                _count(exchange, self._meter.usage())
            exchange.complete(monotonic())
        elif phase is _TUNNEL:
            exchange.complete(monotonic())
        elif phase is not _HEAD or self._heard:
            exchange.fail_upstream(REPLICA_LOST)
        elif self._uses > 1 and exchange.head.repeatable:
            exchange.repeat()
        else:
            exchange.fail_upstream(REPLICA_LOST, eject=self._uses == 1)

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.client.update_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.client.update_reading()

    def on_deadline(self, now_s: float) -> float:
        exchange = self.exchange
        if exchange is None and self._phase is _IDLE:
            limit_s = self.idle_since_s + self._limits.replica_idle_s
            if now_s >= limit_s:
                self.replica.lost(self)
                self.drop()
                return NEVER_S
            return limit_s
        if now_s < self.deadline_s:
            return self.deadline_s
        if exchange is None or self._phase is _TUNNEL:
            self._transport.abort()
            return NEVER_S
        if self._paused or not exchange.request_done:
            # The silence is the client's: its own deadlines deal with it.
            return now_s + self._limits.replica_timeout_s
        log.warning("a replica is silent for too long", extra={"replica_id": self.replica.replica_id})
        self.drop()
        exchange.fail_upstream(REPLICA_TIMEOUT)
        return NEVER_S

    # --- reading an answer ----------------------------------------------------------------

    def _answer_as_before(self, exchange: "Exchange", data: bytes) -> bool:
        """Pass on a whole answer whose head equals the one before; False when it is another."""
        prepared = self.replica.answer
        found = prepared.template.match(data) if prepared is not None else None
        if prepared is None or found is None or self._context.draining:
            return False
        digits = found.digits
        body = data[found.end :]
        if len(body) != int(digits) or not exchange.request_done:
            return False
        self.replica.missed = 1
        exchange.status = prepared.status
        exchange.first_byte_s = now_s = monotonic()
        exchange.client.send(prepared.write(digits, exchange.request_id, body))
        if prepared.is_json and body.find(USAGE_KEY, -TAIL_BYTES) >= 0:
            _count(exchange, usage_in(body))
        self.exchange = None
        self.park(now_s)
        exchange.complete(now_s)
        return True

    def _read_head(self, exchange: "Exchange", data: bytes) -> None:
        self._heard = True
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > self._limits.response_head_bytes_max:
                if len(data) > self._limits.response_head_bytes_max:
                    raise BadResponse("the head is too long")
                self._buffer = data
                return
            raw = data if end == len(data) else data[:end]
            head = parse_response_head(raw)
            rest = data[end:]
            if head.status >= 200:
                self._answer(exchange, raw, head, rest)
                return
            if head.status == 101:
                self._switch(exchange, head, rest)
                return
            self._pass_interim(exchange, head)
            if not rest:
                return
            data = rest

    def _pass_interim(self, exchange: "Exchange", head: ResponseHead) -> None:
        exchange.interim(head.status, _interim(head))

    def _answer(self, exchange: "Exchange", raw: bytes, head: ResponseHead, rest: bytes) -> None:
        request = exchange.head
        self._keep = head.keep_alive
        self._rechunk = False
        sized = True
        if request.method == b"HEAD" or head.status in BODILESS:
            self._phase = _SIZED
            self._left = 0
        elif head.chunked:
            self._phase = _CHUNKED
            self._decoder = ChunkedDecoder()
            sized = False
        elif head.length >= 0:
            self._phase = _SIZED
            self._left = head.length
        else:
            self._phase = _UNTIL_CLOSE
            self._keep = False
            sized = False
        if not sized and not request.http10:
            self._rechunk = True
        media = measured_media(raw) if head.status == _OK and request.method != b"HEAD" else b""
        self._meter = Meter(media) if media else None
        payload, done, rest = self._read_body(rest)
        ending = exchange.begin_answer(head.status, sized=sized)
        if exchange.plain:
            replica = self.replica
            replica.answer = prepare_answer(raw, head, is_json=media == JSON) if worth_making(replica.missed) else None
            replica.missed += 1
        self._relay(exchange, write_response_head(head, ending) + payload, done, rest)

    def _read_body(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """What to pass on of `data`, whether the body is complete, and what follows it."""
        if self._phase is _CHUNKED:
            return self._read_chunks(data)
        done, rest = False, b""
        if self._phase is _SIZED:
            left = self._left
            if len(data) > left:
                data, rest = data[:left], data[left:]
            self._left = left = left - len(data)
            done = left == 0
        meter = self._meter
        if meter is not None:
            meter.take((data,))
            if meter.waits:
                self._await_event(meter)
        if self._rechunk:
            data = encode_chunks([data])
        return data, done, rest

    def _read_chunks(self, data: bytes) -> tuple[bytes, bool, bytes]:
        decoder = cast("ChunkedDecoder", self._decoder)
        pieces, rest = decoder.feed(data)
        meter = self._meter
        if meter is not None:
            meter.take(pieces)
            if meter.waits:
                self._await_event(meter)
        if not self._rechunk:
            return b"".join(pieces), decoder.done, rest
        payload = encode_chunks(pieces)
        if decoder.done:
            payload += last_chunk(passing_trailers(decoder.trailers))
        return payload, decoder.done, rest

    def _await_event(self, meter: Meter) -> None:
        exchange = self.exchange
        if meter.begun() and exchange is not None and exchange.endpoint is not None:
            exchange.endpoint.stats.first_token.record(int((monotonic() - exchange.arrived_s) * 1e6))

    def _relay(self, exchange: "Exchange", payload: bytes, done: bool, rest: bytes) -> None:
        if payload:
            exchange.client.send(payload)
        if not done:
            return
        if self._meter is not None:
            _count(exchange, self._meter.usage())
        self.exchange = None
        now_s = monotonic()
        if self._keep and exchange.request_done and not rest:
            self.park(now_s)
        else:
            self.drop()
        exchange.complete(now_s)

    def _switch(self, exchange: "Exchange", head: ResponseHead, rest: bytes) -> None:
        """101: from here on the bytes are not HTTP."""
        if exchange.head.upgrade is None or head.upgrade is None:
            raise BadResponse("101 without a request to upgrade")
        self._phase = _TUNNEL
        self._keep = False
        self._watch(monotonic() + self._limits.tunnel_idle_timeout_s)
        ending = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % head.upgrade
        exchange.begin_tunnel(_interim(head, ending) + rest)

    def _watch(self, at_s: float) -> None:
        self.deadline_s = at_s
        self._context.deadlines.watch(self, at_s)


def _count(exchange: "Exchange", usage: Usage | None) -> None:
    """Add what an answer said of its tokens."""
    if usage is not None and exchange.endpoint is not None:
        exchange.endpoint.stats.prompt_tokens += usage.prompt_tokens
        exchange.endpoint.stats.completion_tokens += usage.completion_tokens


def _interim(head: ResponseHead, ending: bytes = b"\r\n") -> bytes:
    return status_line(head.status, head.reason) + b"".join([line + b"\r\n" for line in head.lines]) + ending
