"""A connection of a client: reads requests one at a time, in order, and has them answered.

Requests sent ahead (pipelining) stay unparsed until their turn, and beyond `held_bytes_max` unread.
A body of up to that length arrives whole before its request asks for a replica, so that a slow client holds
none; a longer one goes on as it comes.
A client that closes its side is taken to have left, whether or not it could still read.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from penstock_gateway.domain import (
    BODY_TIMEOUT,
    BODY_TOO_LARGE,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    TOO_MANY_CONNECTIONS,
    BadRequest,
    Refusal,
)
from penstock_gateway.proxy.admission import Address
from penstock_gateway.proxy.deadlines import NEVER_S
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.intake import ChunkedBody, Pace, SizedBody
from penstock_gateway.proxy.prepared import PreparedRequest
from penstock_gateway.proxy.problems import ping_response, problem_response
from penstock_gateway.proxy.request_head import RequestHead, begins_no_head, parse_request_head
from penstock_gateway.proxy.templates import HeadTemplate, worth_making
from penstock_gateway.proxy.tracing import new_request_id
from penstock_gateway.proxy.wire import ClientWire, Reading

if TYPE_CHECKING:
    from penstock_gateway.proxy.plane import DataPlane

EMPTY_LINES_MAX = 4
_CLOSE = b"Connection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_HEAD, _BODY, _NOTHING, _TUNNEL, _DISCARD, _CLOSING = Reading


class ClientConnection(ClientWire):
    """One client connection and, if there is one, the exchange under way on it."""

    __slots__ = (
        "_address",
        "_awaiting_body",
        "_body",
        "_directory",
        "_empty_lines",
        "_exchange",
        "_held",
        "_missed",
        "_pace",
        "_peer",
        "_plane",
        "_prepared",
        "_pumping",
        "_template",
        "_waits_to_write",
    )

    exchange_type: ClassVar[type[Exchange]] = Exchange

    def __init__(self, plane: "DataPlane") -> None:
        super().__init__(plane.context)
        self._plane = plane
        self._directory = plane.directory
        self._held = b""
        self._body: SizedBody | ChunkedBody | None = None
        self._pace = Pace(self._limits)
        self._awaiting_body: tuple[PreparedRequest | Refusal, bytes, bytes] | None = None
        self._exchange: Exchange | None = None
        self._prepared: PreparedRequest | None = None
        self._template: HeadTemplate | None = None
        self._address: Address | None = None
        self._empty_lines = 0
        self._missed = 0
        self._pumping = False
        self._waits_to_write = False

    # --- called by the event loop ---------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer: bytes = peer[0].removeprefix("::ffff:").encode() if peer else b"unknown"
        if self._plane.opened(self):
            self._watch(monotonic() + self._limits.head_timeout_s)
        else:
            self._refuse_connection(TOO_MANY_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is _HEAD:
            self._pump(self._held + data if self._held else data)
        elif reading is _BODY:
            self._take_body(data)
        elif reading is _NOTHING:
            self._held += data
            self.update_reading()
        elif reading is _TUNNEL and self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.tunnel(data)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._held = b""
        self._plane.closed(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._waits_to_write:
            self._waits_to_write = False
            self._next(monotonic())
        elif self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.resume()

    def on_deadline(self, now_s: float) -> float:
        if now_s < self.deadline_s:
            return self.deadline_s
        reading = self._reading
        if self._write_paused or reading is _CLOSING or reading is _DISCARD:
            return super().on_deadline(now_s)
        if reading is _NOTHING or reading is _TUNNEL:
            return now_s + self._limits.idle_timeout_s
        if reading is _BODY:
            if self.reading_paused:
                return now_s + self._limits.body_timeout_s
            self._fail(BODY_TIMEOUT)
        elif self._transport.get_write_buffer_size():
            self.cut()
        elif self._held:
            self._refuse_connection(HEAD_TIMEOUT)
        else:
            self.close()
        return self.deadline_s if self.deadline_s > now_s else NEVER_S

    # --- reading requests -----------------------------------------------------------------

    def _pump(self, data: bytes) -> None:
        """Begin the request in `data`, and those after it for as long as answers come at once."""
        self._pumping = True
        while data and self._reading is _HEAD:
            self._held = b""
            now_s = monotonic()
            template, prepared = self._template, self._prepared
            if template is not None and prepared is not None:
                found = template.match(data)
                if found is not None and prepared.generation == self._directory.generation and now_s < prepared.until_s:
                    self._missed = 0
                    end, digits, trace = found
                    self._begin(prepared.head, prepared, digits, trace, data[end:], now_s)
                    data = self._held
                    continue
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > self._limits.head_bytes_max or data[0] == 13:
                data = self._no_whole_head(data, end)
            else:
                self._take_head(data[:end], data[end:], now_s)
                data = self._held
        self._pumping = False

    def _no_whole_head(self, data: bytes, end: int) -> bytes:
        """Hold the beginning of a head, or refuse what cannot be one; returns what to look at again."""
        if data.startswith(b"\r\n"):
            # Old clients send an empty line after a body (RFC 9112, section 2.2).
            self._empty_lines += 1
            if self._empty_lines <= EMPTY_LINES_MAX:
                return data[2:]
            self._refuse_connection(BadRequest("there are empty lines where a request should begin").refusal)
        elif len(data) > self._limits.head_bytes_max or end > self._limits.head_bytes_max:
            self._refuse_connection(HEAD_TOO_LARGE)
        elif begins_no_head(data):
            self._refuse_connection(BadRequest("the request is not valid HTTP").refusal)
        else:
            self._bring_forward(monotonic() + self._limits.head_timeout_s)
            self._held = data
        return b""

    def _take_head(self, raw: bytes, rest: bytes, now_s: float) -> None:
        """Parse a head that differs from the one before, and begin its request."""
        self._empty_lines = 0
        self._template = None
        try:
            head = parse_request_head(raw, self._limits)
            if self._address is None or head.host != self._address.host:
                self._address = self._plane.admission.address(head.host, self._peer)
            prepared = self._plane.admission.prepare(head, self._address, now_s)
        except BadRequest as bad:
            self._refuse_connection(bad.refusal)
            return
        if isinstance(prepared, PreparedRequest):
            # From the second request on it may pay to recognise the next.
            if self._missed and head.recognisable and worth_making(self._missed):
                self._template = HeadTemplate.of(raw, sized=head.length >= 0, traced=bool(prepared.trace))
                self._prepared = prepared
            self._missed += 1
        digits = b"%d" % head.length if head.length >= 0 else b""
        trace = prepared.trace if isinstance(prepared, PreparedRequest) else b""
        self._begin(head, prepared, digits, trace, rest, now_s)

    def _begin(
        self,
        head: RequestHead,
        prepared: PreparedRequest | Refusal,
        digits: bytes,
        trace: bytes,
        rest: bytes,
        now_s: float,
    ) -> None:
        """Begin a request. `digits` is its Content-Length and `trace` its trace, each empty without one;
        `rest` follows its head."""
        exchange = self._exchange = self.exchange_type(self, head, new_request_id(), now_s)
        length = int(digits) if digits else 0
        if length > self._limits.body_bytes_max:
            exchange.refuse(BODY_TOO_LARGE)
            return
        if length == len(rest) and not head.chunked:
            self._reading = _NOTHING
            exchange.request_done = True
            if length:
                exchange.pending.append(rest)
                exchange.held_bytes = length
        elif head.chunked or length > len(rest):
            self._reading = _BODY
            self._body = ChunkedBody(self._limits.body_bytes_max) if head.chunked else SizedBody(length)
            self._watch(self._pace.begin(now_s))
            if length <= self._limits.held_bytes_max and not (head.expects_continue and _refused(prepared)):
                # Short, or perhaps so: a slow client must not hold a replica while it sends.
                self._awaiting_body = (prepared, digits, trace)
                if head.expects_continue:
                    self.send(_CONTINUE)
                self._take_body(rest)
                return
            self._take_body(rest)
        else:
            self._reading = _NOTHING
            exchange.body(rest[:length], done=True)
            self._held = rest[length:]
        if self._exchange is exchange:
            self._submit(exchange, prepared, digits, trace)

    def _submit(self, exchange: Exchange, prepared: PreparedRequest | Refusal, digits: bytes, trace: bytes) -> None:
        if not isinstance(prepared, PreparedRequest):
            exchange.refuse(prepared)
        elif prepared.ping:
            self._ping(exchange)
        elif prepared.deferred and self._plane.door is not None and not exchange.forwarded:
            request = prepared.write(digits, trace, exchange.request_id)
            self._plane.door.take(exchange, prepared.endpoint, request, prepared.place.key_id)
        else:
            exchange.plain = prepared.plain
            request = prepared.write(digits, trace, exchange.request_id)
            prepared.endpoint.admit(exchange, request, prepared.place)

    def _submit_awaited(self, exchange: Exchange) -> None:
        """A short body is complete, or has proved long: its request begins now, under the routes and keys of now."""
        if self._awaiting_body is None:
            return
        (prepared, digits, trace), self._awaiting_body = self._awaiting_body, None
        exchange.arrived_s = now_s = monotonic()
        if (
            self._address is not None
            and isinstance(prepared, PreparedRequest)
            and not (prepared.generation == self._directory.generation and now_s < prepared.until_s)
        ):
            prepared = self._plane.admission.prepare(exchange.head, self._address, now_s)
        if exchange.head.expects_continue and isinstance(prepared, PreparedRequest):
            prepared = prepared.with_expectation_met()
        self._submit(exchange, prepared, digits, trace)

    def _take_body(self, data: bytes) -> None:
        exchange, body = self._exchange, self._body
        if exchange is None or body is None:
            return
        self.deadline_s = self._pace.arrived(len(data), monotonic())
        try:
            data, done, rest = body.feed(data)
        except BadRequest as bad:
            self._fail(bad.refusal)
            return
        if done:
            self._reading = _NOTHING
            self._body = None
            self._held = rest
        exchange.body(data, done=done)
        self.update_reading()
        if done or exchange.held_bytes > self._limits.held_bytes_max:
            self._submit_awaited(exchange)

    def update_reading(self) -> None:
        """Read the client only while there is somewhere to put what it sends."""
        if self._reading is _CLOSING or self._reading is _DISCARD:
            return
        exchange = self._exchange
        held = len(self._held)
        blocked = False
        if exchange is not None:
            held += exchange.held_bytes
            blocked = exchange.upstream is not None and exchange.upstream.write_paused
        blocked = blocked or held > self._limits.held_bytes_max
        if blocked is not self.reading_paused:
            self._set_reading(paused=blocked)
            if self._reading is _BODY and blocked:
                self._pace.pause(monotonic())
            elif self._reading is _BODY:
                self._watch(self._pace.resume(monotonic()))

    # --- answering ------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether the gateway is stopping: answers then say that the connection closes."""
        return self._context.draining

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer without a replica."""
        self._context.count_refusal(refusal.code)
        ending = self._ending(exchange)
        self._answer(exchange, problem_response(refusal, ending=ending, with_body=_with_body(exchange)))

    def finished(self, exchange: Exchange, now_s: float) -> None:
        """The answer is written: go on with the next request, or close."""
        self._exchange = None
        if not exchange.request_done:
            self._end_input()
        elif not exchange.keep_alive:
            self.close()
        elif self._write_paused:
            # A client that sends requests and reads no answers must not fill our memory with them.
            self._waits_to_write = True
        else:
            self._next(now_s)

    def begin_tunnel(self, exchange: Exchange, data: bytes) -> None:
        """Both sides speak another protocol from here on."""
        self._reading = _TUNNEL
        self.send(data)
        held, self._held = self._held, b""
        if held and exchange.upstream is not None:
            exchange.upstream.tunnel(held)
        self.update_reading()

    def break_off(self, exchange: Exchange) -> None:
        """The answer cannot be completed: close so that the client sees it is cut short."""
        self._exchange = None
        if exchange.head.http10:
            # Here the end of the connection is the end of the answer: only a reset looks different.
            self.cut()
        else:
            self.close()

    def close_if_idle(self) -> None:
        """Close a connection on which no request is under way."""
        if self._reading is _HEAD and not self._held:
            self.close()

    # --- parts ----------------------------------------------------------------------------

    def _next(self, now_s: float) -> None:
        self._reading = _HEAD
        self.deadline_s = at_s = now_s + self._limits.idle_timeout_s
        if at_s < self.looked_at_s:
            self._context.deadlines.watch(self, at_s)
        if self._held and not self._pumping:
            self._pump(self._held)
        if self.reading_paused:
            self.update_reading()

    def _ping(self, exchange: Exchange) -> None:
        ending = self._ending(exchange)
        self._answer(exchange, ping_response(ending=ending, with_body=_with_body(exchange)))

    def _ending(self, exchange: Exchange) -> bytes:
        if self.draining or not exchange.request_done:
            exchange.keep_alive = False
        return exchange.ending()

    def _answer(self, exchange: Exchange, data: bytes) -> None:
        exchange.stage = Stage.DONE
        self.send(data)
        self.finished(exchange, monotonic())

    def _fail(self, refusal: Refusal) -> None:
        """The request is broken off; nothing more can be read from this client."""
        if self._exchange is not None:
            self._exchange.keep_alive = False
            self._exchange.fail(refusal)

    def _refuse_connection(self, refusal: Refusal) -> None:
        """Answer what is no request, and close."""
        self._context.count_refusal(refusal.code)
        self.send(problem_response(refusal, ending=_CLOSE, with_body=True))
        self._end_input()

    def _end_input(self) -> None:
        self._held = b""
        self._body = None
        self._awaiting_body = None
        self.linger()


def _with_body(exchange: Exchange) -> bool:
    return exchange.head.method != b"HEAD"


def _refused(prepared: PreparedRequest | Refusal) -> bool:
    """Whether it is clear without the body that no replica gets the request."""
    return isinstance(prepared, Refusal) or prepared.endpoint.closed is not None
