"""Streams: at once, with backpressure both ways, and cancelled as soon as the client leaves."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from time import monotonic

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from penstock_common.contracts.records import RouteReplica
from tests_support import eventually

from .plane import MakePlane, RunningPlane
from .raw import AUTHORIZATION, HOST, KEY
from .replica import Connection, Gate, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION
MIB = 1024 * 1024
BOUND_BYTES = 24 * MIB
"""What kernels and transports of three hops may hold of a stream that nobody reads, generously."""


async def test_events_arrive_as_they_are_sent(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    more = asyncio.Semaphore(0)

    async def events(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            await more.acquire()
            data = f"data: {number}\n\n".encode()
            await connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        await connection.send(b"0\r\n\r\n")

    replica.handler = events
    plane = await make_plane(replica)
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client,
        client.stream("POST", f"{plane.url}/chat", json={"stream": True}) as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        for number in range(5):
            more.release()
            assert await asyncio.wait_for(anext(lines), 10) == f"data: {number}"
            assert await anext(lines) == ""
    assert plane.endpoint.stats.statuses == {200: 1}


async def test_a_large_upload_and_download_come_through_unchanged(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def echo_body(seen: Seen, connection: Connection) -> None:
        await connection.answer(await connection.body(seen))

    replica.handler = echo_body
    plane = await make_plane(replica)
    body = bytes(range(256)) * (20 * MIB // 256)

    async def in_parts() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100_001):
            yield body[at : at + 100_001]

    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        for content in (body, in_parts()):
            answer = await client.post(f"{plane.url}/x", content=content)
            assert answer.content == body


async def endless(seen: Seen, connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    while True:
        connection.sent = getattr(connection, "sent", 0) + 65536  # type: ignore[attr-defined]
        await connection.send(block)


async def settled(read: Callable[[], int]) -> int:
    """The value of a counter once it stands still."""
    last, since = -1, monotonic()

    def still() -> bool:
        nonlocal last, since
        value = read()
        if value != last:
            last, since = value, monotonic()
        return monotonic() - since > 0.3

    await eventually(still)
    return last


async def test_a_reader_that_stops_reading_stops_the_replica_and_not_our_memory(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = endless
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        assert (await client.head())[0] == 200
        client.stop_reading()
        sent = await settled(lambda: getattr(replica.connections[0], "sent", 0))
        assert sent < BOUND_BYTES
        (connection,) = plane.plane._clients
        assert connection._transport.get_write_buffer_size() < 2 * MIB
        client.go_on_reading()
        await client.reader.readexactly(2 * sent)
        client.leave()
    await eventually(lambda: replica.open_connections == 0)


async def test_a_replica_that_stops_reading_stops_the_client_and_not_our_memory(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    go_on = asyncio.Event()

    async def slow(seen: Seen, connection: Connection) -> None:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()
        connection.reader._transport.resume_reading()  # type: ignore[attr-defined]
        await connection.answer(str(len(await connection.body(seen))).encode())

    replica.handler = slow
    plane = await make_plane(replica)
    sent = 0
    async with plane.client() as client:
        total = 64 * MIB
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: %d\r\n\r\n" % total)

        async def upload() -> None:
            nonlocal sent
            while sent < total:
                await client.send(b"x" * 65536)
                sent += 65536

        uploading = asyncio.create_task(upload())
        assert await settled(lambda: sent) < BOUND_BYTES
        go_on.set()
        assert (await client.answer()).body == str(total).encode()
        await uploading


async def test_a_body_that_comes_while_its_request_waits_is_left_in_the_network(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica)
    async with plane.client() as first, plane.client() as second:
        await first.send(b"GET /1 HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: replica.working == 1)
        total = 32 * MIB
        sent = 0
        await second.send(b"POST /2 HTTP/1.1\r\n" + FIELDS + b"Content-Length: %d\r\n\r\n" % total)

        async def upload() -> None:
            nonlocal sent
            while sent < total:
                await second.send(b"x" * 65536)
                sent += 65536

        uploading = asyncio.create_task(upload())
        assert await settled(lambda: sent) < BOUND_BYTES
        held = max(exchange.held_bytes for exchange in plane.endpoint.queue._waiting)
        assert held < MIB
        gate.open(2)
        assert (await first.answer()).status == 200
        assert (await second.answer()).body == b"/2"
        await uploading
    assert len(replica.seen[1].body) == total


# --- clients that leave -----------------------------------------------------------------------


async def left_within(plane: RunningPlane, connection: Connection, leave: Callable[[], object]) -> float:
    began = monotonic()
    leave()
    await asyncio.wait_for(connection.lost.wait(), 10)
    await eventually(lambda: plane.endpoint.queue.in_flight == 0)
    return monotonic() - began


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
async def test_a_client_that_leaves_cancels_its_request_and_frees_the_slot(
    make_plane: MakePlane, replica: ScriptedReplica, how: str
) -> None:
    async def until_lost(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.reader.read(1)
        connection.writer.close()

    replica.handler = until_lost
    plane = await make_plane(replica)
    async with plane.client() as client, plane.client() as other:
        await client.send(b"POST /1 HTTP/1.1\r\n" + FIELDS + b"Content-Length: 2\r\n\r\n{}")
        await eventually(lambda: len(replica.seen) == 1)
        leave = {"reset": client.leave, "close": client.writer.close, "half-close": client.writer.write_eof}[how]
        assert await left_within(plane, replica.connections[0], leave) < 0.5
        replica.handler = Gate()
        replica.handler.open()
        assert (await other.request()).status == 200
    assert plane.endpoint.stats.statuses == {499: 1, 200: 1}


async def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_it(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = endless
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await client.reader.readexactly(100_000)
        assert await left_within(plane, replica.connections[0], client.leave) < 0.5


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_while_it_is_not_read_is_noticed(
    make_plane: MakePlane, replica: ScriptedReplica, how: str
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, settings={"held_bytes_max": 1000})
    async with plane.client() as first:
        await first.send(b"GET /1 HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: replica.working == 1)
        leaver = socket.create_connection(("127.0.0.1", plane.port))
        leaver.sendall(b"POST /2 HTTP/1.1\r\n" + FIELDS + b"Content-Length: 9000\r\n\r\n" + b"x" * 5000)
        await eventually(lambda: len(plane.endpoint.queue) == 1)
        await eventually(lambda: any(client.reading_paused for client in plane.plane._clients))
        if how == "reset":
            leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        leaver.close()
        await eventually(lambda: len(plane.endpoint.queue) == 0)
        gate.open()
        assert (await first.answer()).status == 200


async def test_a_client_that_leaves_while_its_replica_is_being_connected_frees_the_slot(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET /1 HTTP/1.1\r\n" + FIELDS + b"\r\n")
        client.leave()
    await eventually(lambda: plane.endpoint.queue.in_flight == 0)
    async with plane.client() as client:
        assert (await client.request()).status == 200


async def test_requests_sent_ahead_without_reading_answers_do_not_fill_memory(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def big(seen: Seen, connection: Connection) -> None:
        await connection.answer(b"x" * 100_000)

    replica.handler = big
    plane = await make_plane(replica)
    async with plane.client() as client:
        client.stop_reading()
        client.writer.write(b"".join(b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, FIELDS) for number in range(500)))
        answered = await settled(lambda: len(replica.seen))
        assert answered < 200
        (connection,) = plane.plane._clients
        assert connection._transport.get_write_buffer_size() < MIB
        client.go_on_reading()
        for _ in range(500):
            assert len((await client.answer()).body) == 100_000


# --- real clients -----------------------------------------------------------------------------


async def test_websocket_messages_go_both_ways(make_plane: MakePlane) -> None:
    async def chat(socket_: ServerConnection) -> None:
        assert "psk_" not in str(socket_.request and socket_.request.headers)
        async for message in socket_:
            await socket_.send(message[::-1])

    async with serve(chat, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        plane = await make_plane()
        plane.change_route(replicas=(RouteReplica(replica_id="rep_ws", address=f"127.0.0.1:{port}"),))
        uri = f"ws://127.0.0.1:{plane.port}/e/default/iris/chat"
        async with connect(uri, additional_headers={"Authorization": f"Bearer {KEY}"}, max_size=None) as client:
            for message in ("hello", b"\x00\x01", "x" * 2_000_000):
                await client.send(message)
                assert await client.recv() == message[::-1]
            assert await (await client.ping()) >= 0
            assert plane.endpoint.queue.in_flight == 1
        await eventually(lambda: plane.endpoint.queue.in_flight == 0)
    assert plane.endpoint.stats.statuses == {101: 1}


async def test_httpx_reuses_its_connection_and_understands_refusals(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
        for number in range(5):
            answer = await client.post(f"{plane.url}/predict", json={"number": number})
            assert json.loads(answer.json()["body"]) == {"number": number}
        plane.change_route(state="stopped")
        assert (await client.get(f"{plane.url}/x")).json()["code"] == "not_running"
        assert plane.plane.context.connections == 1
