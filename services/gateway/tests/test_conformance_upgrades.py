"""Upgrades over raw sockets: a tunnel both ways once the replica agrees."""

from tests_support import eventually

from .plane import MakePlane
from .raw import AUTHORIZATION, HOST
from .replica import Connection, ScriptedReplica, Seen, says

FIELDS = HOST + AUTHORIZATION

UPGRADE = b"GET /socket HTTP/1.1\r\n" + FIELDS + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX: y\r\n\r\n"


async def tunnel(seen: Seen, connection: Connection) -> None:
    await connection.send(SWITCHED + b"hello")
    while data := await connection.reader.read(1000):
        await connection.send(data.upper())
    connection.writer.close()


async def test_an_upgraded_connection_is_a_tunnel_both_ways(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    replica.handler = tunnel
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(UPGRADE + b"early")
        status, headers = await client.head()
        assert status == 101
        assert {("Connection", "Upgrade"), ("Upgrade", "echo"), ("X", "y")} <= set(headers)
        assert await client.reader.readexactly(10) == b"helloEARLY"
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await client.reader.readexactly(18) == b"GET / HTTP/1.1\r\n\r\n"
        assert plane.endpoint.queue.in_flight == 1
        client.leave()
        await eventually(lambda: replica.open_connections == 0)
    assert plane.endpoint.queue.in_flight == 0
    assert plane.endpoint.stats.statuses == {101: 1}


async def test_a_tunnel_that_the_replica_closes_is_closed(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    replica.handler = says(SWITCHED + b"bye", close=True)
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(UPGRADE)
        assert (await client.head())[0] == 101
        assert await client.rest() == b"bye"


async def test_an_upgrade_that_the_replica_declines_is_an_ordinary_answer(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(2):
            await client.send(UPGRADE)
            assert (await client.answer()).status == 200
    assert replica.seen[0].one("Upgrade") == "echo"


async def test_a_silent_tunnel_is_closed_in_time(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    replica.handler = tunnel
    plane = await make_plane(replica, settings={"tunnel_idle_timeout_s": 0.1})
    async with plane.client() as client:
        await client.send(UPGRADE)
        assert (await client.head())[0] == 101
        assert await client.rest() == b"hello"
    await eventually(lambda: plane.endpoint.queue.in_flight == 0)
