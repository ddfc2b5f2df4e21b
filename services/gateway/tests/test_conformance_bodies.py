"""Request bodies on their way: which of them take a replica at once, and who asks for them."""

import asyncio

import pytest

from tests_support import eventually

from .plane import MakePlane, key_record
from .raw import AUTHORIZATION, HOST
from .replica import Connection, Gate, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LONG = 200_000


async def test_a_long_body_waits_for_100_continue_from_the_replica(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def handler(seen: Seen, connection: Connection) -> None:
        assert seen.one("Expect") == "100-continue"
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.answer(str(len(await connection.body(seen))).encode())

    replica.handler = handler
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(2):
            length = b"Content-Length: %d\r\n" % LONG
            await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Expect: 100-continue\r\n" + length + b"\r\n")
            assert (await client.answer()).status == 100
            await client.send(b"x" * LONG)
            assert (await client.answer()).body == b"%d" % LONG


@pytest.mark.parametrize(
    ("framing", "body"), [(b"Content-Length: 4\r\n", b"body"), (CHUNKED, b"4\r\nbody\r\n0\r\n\r\n")]
)
async def test_a_short_body_is_asked_for_by_the_gateway_and_takes_no_replica_meanwhile(
    make_plane: MakePlane, replica: ScriptedReplica, framing: bytes, body: bytes
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Expect: 100-continue\r\n" + framing + b"\r\n")
            assert (await client.answer()).status == 100
            assert plane.endpoint.in_flight == 0
            await client.send(body)
            assert (await client.answer()).json()["body"] == "body"
    assert [seen.all("Expect") for seen in replica.seen] == [[], [], []]


async def test_a_refusal_instead_of_100_continue_saves_sending_the_body(make_plane: MakePlane) -> None:
    plane = await make_plane(state="stopped")
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.closes) == (503, True)


async def test_a_body_sent_without_waiting_for_100_is_fine_too(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
        assert (await client.answer()).json()["body"] == "body"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_long_body_reaches_the_replica_while_it_is_still_being_sent(
    make_plane: MakePlane, replica: ScriptedReplica, chunked: bool
) -> None:
    arrived = asyncio.Event()
    first, second = b"x" * 2000, b"y" * 100
    frame = chunk if chunked else bytes

    async def handler(seen: Seen, connection: Connection) -> None:
        assert await connection.reader.readexactly(len(frame(first))) == frame(first)
        arrived.set()
        assert await connection.reader.readexactly(len(frame(second))) == frame(second)
        await connection.answer()

    replica.handler = handler
    plane = await make_plane(replica, settings={"held_bytes_max": 1000})
    framing = CHUNKED if chunked else b"Content-Length: %d\r\n" % (len(first) + len(second))
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + framing + b"\r\n" + frame(first))
        await asyncio.wait_for(arrived.wait(), 10)
        await client.send(frame(second) + (b"0\r\n\r\n" if chunked else b""))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_short_body_takes_no_replica_before_it_is_complete(
    make_plane: MakePlane, replica: ScriptedReplica, chunked: bool
) -> None:
    plane = await make_plane(replica)
    framing = CHUNKED if chunked else b"Content-Length: 6\r\n"
    parts = (chunk(b"abc"), chunk(b"def") + b"0\r\n\r\n") if chunked else (b"abc", b"def")
    async with plane.client() as slow, plane.client() as fast:
        for _ in range(3):
            await slow.send(b"POST /slow HTTP/1.1\r\n" + FIELDS + framing + b"\r\n" + parts[0])
            assert (await fast.request("POST", "/fast", body=b"x")).status == 200
            assert plane.endpoint.in_flight == 0
            await slow.send(parts[1] + b"GET /next HTTP/1.1\r\n" + FIELDS + b"\r\n")
            assert (await slow.answer()).json()["body"] == "abcdef"
            assert (await slow.answer()).json()["line"] == "GET /next HTTP/1.1"


async def test_a_short_body_in_many_pieces_costs_little_more_memory_than_it_is_long(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 1000\r\n\r\n")
        await eventually(lambda: any(client._exchange for client in plane.plane._clients))
        (connection,) = plane.plane._clients
        for _ in range(999):
            connection.data_received(b"x")
        assert connection._exchange is not None
        assert connection._exchange.held_bytes == 999
        assert len(connection._exchange.pending) <= 65
        await client.send(b"x")
        gate.open()
        assert (await client.answer()).status == 200
    assert replica.seen[0].body == b"x" * 1000


async def test_a_refusal_of_a_short_body_keeps_the_connection(make_plane: MakePlane) -> None:
    plane = await make_plane(state="stopped")
    async with plane.client() as client:
        for _ in range(2):
            await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 6\r\n\r\nabc")
            await client.send(b"def")
            answer = await client.answer()
            assert (answer.status, answer.closes) == (503, False)


async def test_a_key_revoked_while_a_short_body_arrives_is_refused(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 6\r\n\r\nabc")
        await eventually(lambda: any(client._exchange for client in plane.plane._clients))
        plane.plane.directory.remove_key(key_record().sha256)
        await client.send(b"def")
        assert (await client.answer()).status == 401
    assert replica.seen == []
