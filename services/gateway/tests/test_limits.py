"""Limits and times: slow, silent, greedy and too many clients, and silent replicas."""

import asyncio
from contextlib import AsyncExitStack
from time import monotonic

import pytest

from penstock_gateway.proxy.intake import Pace
from penstock_gateway.settings import GatewaySettings
from tests_support import eventually

from .plane import MakePlane
from .raw import AUTHORIZATION, HOST
from .replica import Connection, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION
SOON = {
    "head_timeout_s": 0.15,
    "idle_timeout_s": 0.3,
    "body_timeout_s": 0.15,
    "linger_s": 0.1,
    "stall_timeout_s": 0.2,
}


async def test_a_head_that_does_not_end_is_cut_off_however_it_dribbles(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings=SOON)
    async with plane.client() as client:
        began = monotonic()
        dribbling = asyncio.create_task(dribble(client.writer, b"GET / HTTP/1.1\r\n" + FIELDS + b"X: y\r\n" * 1000))
        answer = await client.answer()
        assert (answer.status, answer.json()["code"], answer.closes) == (408, "request_timeout", True)
        assert monotonic() - began < 5
        dribbling.cancel()
    assert replica.seen == []


BETWEEN_BYTES_S = 0.01
"""The pace of a client that means harm."""


async def dribble(writer: asyncio.StreamWriter, data: bytes) -> None:
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await asyncio.sleep(BETWEEN_BYTES_S)


async def test_a_second_head_that_does_not_end_is_cut_off_too(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica, settings={**SOON, "idle_timeout_s": 60})
    async with plane.client() as client:
        assert (await client.request()).status == 200
        await client.send(b"GET / HT")
        assert (await client.answer()).status == 408


async def test_a_connection_that_says_nothing_is_closed_without_a_word(make_plane: MakePlane) -> None:
    plane = await make_plane(settings=SOON)
    async with plane.client() as client:
        assert await client.closed()


async def test_a_kept_connection_without_a_request_is_closed_without_a_word(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings=SOON)
    async with plane.client() as client:
        assert (await client.request()).status == 200
        assert await client.closed()


LONG_CHUNK = b"11170\r\n" + b"x" * 70_000 + b"\r\n"


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 100000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n" + LONG_CHUNK],
)
async def test_a_long_body_that_stops_arriving_frees_the_replica(
    make_plane: MakePlane, replica: ScriptedReplica, framing: bytes
) -> None:
    plane = await make_plane(replica, settings=SOON)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + framing)
        answer = await client.answer()
        assert (answer.status, answer.closes) == (408, True)
    await eventually(lambda: replica.open_connections == 0)
    assert plane.endpoint.queue.in_flight == 0
    assert len(replica.seen) == 1


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
)
async def test_a_short_body_that_stops_arriving_never_reaches_a_replica(
    make_plane: MakePlane, replica: ScriptedReplica, framing: bytes
) -> None:
    plane = await make_plane(replica, settings=SOON)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + framing)
        assert (await client.answer()).status == 408
    assert replica.seen == []


async def test_a_body_that_keeps_arriving_may_take_longer_than_the_limit_on_silence(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings={**SOON, "body_bytes_per_s_min": 1})
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 40\r\n\r\n")
        await dribble(client.writer, b"x" * 40)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("length", [60_000, 100_000])
async def test_a_body_that_dribbles_is_cut_off_although_it_is_never_silent(
    make_plane: MakePlane, replica: ScriptedReplica, length: int
) -> None:
    plane = await make_plane(replica, settings=SOON)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: %d\r\n\r\n" % length)
        dribbling = asyncio.create_task(dribble(client.writer, b"x" * length))
        answer = await client.answer()
        assert (answer.status, answer.json()["code"], answer.closes) == (408, "request_timeout", True)
        dribbling.cancel()
    await eventually(lambda: plane.endpoint.in_flight == 0)


def test_a_body_has_as_long_as_its_bytes_allow_at_the_slowest_pace() -> None:
    pace = Pace(GatewaySettings(body_timeout_s=30, body_bytes_per_s_min=100))
    assert pace.begin(1000) == 1030
    assert pace.arrived(1000, 1001) == 1031
    assert pace.arrived(1, 1020) == 1040.01
    assert pace.arrived(1, 1040) == 1040.02


def test_time_in_which_a_client_was_not_read_is_not_held_against_it() -> None:
    pace = Pace(GatewaySettings(body_timeout_s=30, body_bytes_per_s_min=100))
    pace.begin(1000)
    pace.pause(1010)
    assert pace.resume(1500) == 1520
    assert pace.arrived(100, 1519) == 1521


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_long_is_413(make_plane: MakePlane, replica: ScriptedReplica, chunked: bool) -> None:
    plane = await make_plane(replica, settings={"body_bytes_max": 1000})
    framed = (
        b"Transfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n" + (b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        if chunked
        else b"Content-Length: 1001\r\n\r\n" + b"x" * 1001
    )
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + framed)
        answer = await client.answer()
        assert (answer.status, answer.json()["code"], answer.closes) == (413, "body_too_large", True)
    async with plane.client() as client:
        assert (await client.request("POST", body=b"x" * 1000)).status == 200


async def test_a_chunked_body_that_grows_too_long_on_its_way_frees_the_replica(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings={"body_bytes_max": 1000, "held_bytes_max": 100})
    async with plane.client() as client:
        await client.send(
            b"POST / HTTP/1.1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\nc8\r\n" + b"x" * 200 + b"\r\n"
        )
        await eventually(lambda: replica.working == 1)
        await client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert (await client.answer()).status == 413
    await eventually(lambda: replica.open_connections == 0)


async def test_a_refused_upload_can_read_why_although_it_goes_on_sending(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings={"body_bytes_max": 1000})
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 5000000\r\n\r\n")
        for _ in range(50):
            await client.send(b"x" * 100_000)
        assert (await client.answer()).status == 413


async def test_a_client_that_sends_on_after_a_refusal_is_cut_off(make_plane: MakePlane) -> None:
    plane = await make_plane(settings=SOON)
    async with plane.client() as client:
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400

        async def cut_off() -> bool:
            try:
                await client.send(b"x" * 1000)
            except ConnectionError:
                return True
            return not plane.plane._clients

        await eventually(cut_off)


async def test_connections_beyond_the_limit_are_told_so_and_closed(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings={"connections_max": 3, "linger_s": 0.1})
    async with AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(plane.client())
            assert (await client.request()).status == 200
        extra = await stack.enter_async_context(plane.client())
        answer = await extra.answer()
        assert (answer.status, answer.json()["code"], answer.one("Retry-After")) == (503, "too_many_connections", "1")
        assert await extra.closed()
    await eventually(lambda: plane.plane.context.connections == 0)
    async with plane.client() as client:
        assert (await client.request()).status == 200


async def test_a_replica_that_never_answers_is_504_and_gives_its_slot_back(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def silent(seen: Seen, connection: Connection) -> None:
        await connection.reader.read(1)

    replica.handler = silent
    plane = await make_plane(replica, settings={"replica_timeout_s": 0.1})
    async with plane.client() as client:
        answer = await client.request()
        assert (answer.status, answer.json()["code"]) == (504, "replica_timeout")
    await eventually(lambda: replica.open_connections == 0)
    assert plane.endpoint.queue.in_flight == 0


async def test_a_replica_that_falls_silent_in_its_answer_cuts_the_answer_short(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await connection.reader.read(1)

    replica.handler = handler
    plane = await make_plane(replica, settings={"replica_timeout_s": 0.1})
    async with plane.client() as client:
        with pytest.raises(asyncio.IncompleteReadError):
            await client.request()


async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.answer(b"x" * 50_000_000)

    replica.handler = handler
    plane = await make_plane(replica, settings=SOON)
    async with plane.client() as client:
        client.stop_reading()
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: plane.endpoint.queue.in_flight == 1)
        await eventually(lambda: plane.endpoint.queue.in_flight == 0)
        await eventually(lambda: replica.open_connections == 0)
        assert plane.plane.context.connections == 0


async def test_idle_connections_cost_no_timers_of_their_own(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with AsyncExitStack() as stack:
        for _ in range(50):
            client = await stack.enter_async_context(plane.client())
            assert (await client.request()).status == 200
        deadlines = plane.plane.context.deadlines
        assert sum(len(members) for members in deadlines._slots.values()) <= 51
        assert deadlines._timer is not None
