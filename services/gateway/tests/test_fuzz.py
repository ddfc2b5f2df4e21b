"""Whatever bytes a client sends, in whatever pieces: the gateway neither fails nor lets through anything
but whole, well-formed requests, as an independent parser (h11) reads them."""

import asyncio
import itertools
from typing import Any, cast

import h11
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock_gateway.proxy.client import ClientConnection
from penstock_gateway.proxy.plane import DataPlane
from penstock_gateway.proxy.upstream import UpstreamConnection
from penstock_gateway.settings import GatewaySettings

from .plane import key_record, route
from .raw import AUTHORIZATION, HOST

FIELDS = HOST + AUTHORIZATION
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

VALID = [
    b"GET /a HTTP/1.1\r\n" + FIELDS + b"\r\n",
    b"POST /b HTTP/1.1\r\n" + FIELDS + b"Content-Length: 3\r\n\r\nabc",
    b"POST /c HTTP/1.1\r\n" + FIELDS + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"HEAD /d HTTP/1.1\r\n" + FIELDS + b"Connection: close\r\n\r\n",
    b"GET /e HTTP/1.0\r\n" + FIELDS + b"Connection: keep-alive\r\n\r\n",
    b"GET /f HTTP/1.1\r\n" + FIELDS + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
]
NOISE = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\xff",
    b"0",
    b"3\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    CHUNKED,
    b"Host: b\r\n",
    b"Connection: x, close\r\n",
    b"Expect: 100-continue\r\n",
    b" HTTP/1.1",
    b"GET ",
    b"http://iris.default.localhost/",
    b";x=y",
]


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else self

    def fileno(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.written += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    def close(self) -> None:
        self.closed = True

    abort = close


class Stage:
    """A client and a replica without a network between."""

    def __init__(self) -> None:
        self.plane = DataPlane(GatewaySettings())
        self.plane.directory.put_key(key_record())
        ready = [{"replica_id": "rep_1", "address": "127.0.0.1:1"}]
        self.plane.directory.put_route(route(replicas=ready, target_concurrency=8))
        self.endpoint = self.plane.directory.endpoints["ep_1"]
        self.replica = self.endpoint.queue.replicas["rep_1"]
        self.upstreams: list[tuple[UpstreamConnection, Wire, int]] = []
        self.wire = Wire()
        self.client = ClientConnection(self.plane)
        self.client.connection_made(cast("Any", self.wire))

    def offer(self) -> None:
        """Keep a connection ready, so that no request has to open one."""
        if not self.replica._idle:
            upstream, wire = UpstreamConnection(self.plane.context, self.replica), Wire()
            upstream.connection_made(cast("Any", wire))
            upstream.park(self.plane.context.loop.time())
            self.upstreams.append((upstream, wire, 0))

    def receive(self, data: bytes) -> None:
        self.offer()
        self.client.data_received(data)
        for _ in range(50):
            exchange = self.client._exchange
            if exchange is None or not exchange.request_done or exchange.upstream is None:
                return
            self.offer()
            exchange.upstream.data_received(OK if exchange.head.method != b"HEAD" else OK[:-2])


def requests_in(data: bytes) -> int:
    """How many whole requests h11 reads; raises when it reads anything else."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    count = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA or (event is h11.PAUSED and not connection.trailing_data[0]):
            return count
        if isinstance(event, h11.Request):
            assert b"psk_" not in b"".join(value for _, value in event.headers)
        if isinstance(event, h11.EndOfMessage):
            count += 1
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.DONE:
                connection.start_next_cycle()
        if isinstance(event, h11.ConnectionClosed):
            return count


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Valid requests, some of them damaged, in arbitrary pieces."""
    data = b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from([*NOISE, b""]) | st.binary(max_size=3)) + data[at + cut :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    bounds = [0, *cuts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds) if end > start]


@given(pieces=streams())
@hypothesis_settings(max_examples=500, deadline=None)
def test_only_whole_requests_reach_a_replica(pieces: list[bytes]) -> None:
    async def play() -> None:
        stage = Stage()
        for piece in pieces:
            if stage.wire.closed:
                break
            stage.receive(piece)
        stage.client.connection_lost(None)
        assert stage.endpoint.queue.in_flight == 0
        for _, wire, _ in stage.upstreams:
            requests_in(wire.written)
        await stage.plane.context.stop()

    asyncio.run(play())


@given(pieces=streams())
@hypothesis_settings(max_examples=200, deadline=None)
def test_how_a_stream_is_cut_changes_no_answer(pieces: list[bytes]) -> None:
    """Up to the first refusal: what it says, and whether it closes, may depend on what had arrived."""

    async def play(parts: list[bytes]) -> list[bytes]:
        stage = Stage()
        for part in parts:
            if stage.wire.closed:
                break
            stage.receive(part)
        stage.client.connection_lost(None)
        await stage.plane.context.stop()
        lines = stage.wire.written.split(b"\r\n")
        return [line for line in lines if line.startswith(b"HTTP/1.") and line != b"HTTP/1.1 100 Continue"]

    whole = b"".join(pieces)
    at_once = asyncio.run(play([whole]))
    bytewise = asyncio.run(play([whole[at : at + 1] for at in range(len(whole))]))
    assert until_refused(at_once) == until_refused(bytewise)


def until_refused(lines: list[bytes]) -> list[bytes]:
    served = list(itertools.takewhile(lambda line: line == b"HTTP/1.1 200 OK", lines))
    return served if len(served) == len(lines) else [*served, b"refused"]
