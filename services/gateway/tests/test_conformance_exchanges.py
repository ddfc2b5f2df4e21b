"""Requests and answers over raw sockets: framing, order, interim answers, connections kept and closed."""

import asyncio

import pytest

from tests_support import eventually

from .plane import MakePlane
from .raw import AUTHORIZATION, HOST
from .replica import Connection, Gate, ScriptedReplica, Seen, says

FIELDS = HOST + AUTHORIZATION
CHUNKED = b"Transfer-Encoding: chunked\r\n"


# --- order and connections --------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, FIELDS) for number in range(50)))
        lines = [(await client.answer()).json()["line"] for _ in range(50)]
    assert lines == [f"GET /{number} HTTP/1.1" for number in range(50)]
    assert replica.working_max == 1
    assert len(replica.connections) == 1


async def test_pipelined_requests_of_every_kind_keep_their_order(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(
            b"POST /1 HTTP/1.1\r\n" + FIELDS + b"Content-Length: 3\r\n\r\none"
            b"GET /nowhere HTTP/1.1\r\nHost: unknown.default.localhost\r\n\r\n"
            b"POST /3 HTTP/1.1\r\n" + FIELDS + CHUNKED + b"\r\n5\r\nthree\r\n0\r\n\r\n"
            b"GET /ping HTTP/1.1\r\n" + FIELDS + b"\r\n"
            b"HEAD /5 HTTP/1.1\r\n" + FIELDS + b"\r\n"
            b"\r\nGET /6 HTTP/1.1\r\n" + FIELDS + b"Connection: close\r\n\r\n"
            b"GET /7 HTTP/1.1\r\n" + FIELDS + b"\r\n"
        )
        assert (await client.answer()).json()["body"] == "one"
        assert (await client.answer()).status == 404
        assert (await client.answer()).json()["body"] == "three"
        assert (await client.answer()).json() == {"status": "ok"}
        assert (await client.answer(head_only=True)).status == 200
        last = await client.answer()
        assert last.json()["line"] == "GET /6 HTTP/1.1"
        assert last.closes
        assert await client.closed()
    assert [seen.target for seen in replica.seen] == ["/1", "/3", "/5", "/6"]


async def test_thousands_of_refusals_in_one_packet_are_written_one_after_another(make_plane: MakePlane) -> None:
    plane = await make_plane()
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3000)
        for _ in range(3000):
            assert (await client.answer()).status == 404
        assert (await client.request("GET", "/ping")).json() == {"status": "ok"}


async def test_refusals_in_one_packet_are_each_answered_once(make_plane: MakePlane) -> None:
    plane = await make_plane()
    async with plane.client() as client:
        for count in (1, 2, 3):
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
            for _ in range(count):
                assert (await client.answer()).status == 404
            assert (await client.request("GET", "/ping")).json() == {"status": "ok"}


async def test_connections_to_a_replica_are_kept_and_used_again(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    for _ in range(3):
        async with plane.client() as client:
            for _ in range(3):
                assert (await client.request()).status == 200
    assert len(replica.connections) == 1


async def test_a_replica_that_closes_after_each_answer_gets_a_new_connection_each_time(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = says(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", close=True)
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            answer = await client.request("POST", body=b"x")
            assert (answer.status, answer.body, answer.closes) == (200, b"ok", False)
    assert len(replica.connections) == 3


async def test_an_unused_connection_to_a_replica_is_closed_in_time(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings={"replica_idle_s": 0.1})
    async with plane.client() as client:
        assert (await client.request()).status == 200
        await eventually(lambda: replica.open_connections == 0)
        assert (await client.request()).status == 200


async def test_http_1_0_is_closed_after_its_answer_unless_asked_otherwise(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\n" + FIELDS + b"Connection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.one("Connection")) == (200, "keep-alive")
        await client.send(b"GET / HTTP/1.0\r\n" + FIELDS + b"\r\n")
        assert (await client.answer()).closes
        assert await client.closed()
    assert all(seen.line.endswith("HTTP/1.1") for seen in replica.seen)


# --- answers ----------------------------------------------------------------------------------


async def test_every_answer_carries_the_request_id_that_the_replica_saw(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        ids = [(await client.request("POST", body=b"x" * size)).one("X-Request-Id") for size in (1, 1, 22, 333)]
    assert ids == [seen.one("X-Request-Id") for seen in replica.seen]
    assert len(set(ids)) == 4


async def test_chunked_answers_are_passed_on_with_their_trailers(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n"
    )
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(2):
            answer = await client.request()
            assert answer.body == b"abcde"
            assert answer.trailers == ["X-Sum: 5"]
            assert answer.one("Trailer") == "X-Sum"
    assert len(replica.connections) == 1


async def test_a_chunked_answer_is_put_together_for_http_1_0(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    replica.handler = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n" + FIELDS + b"Connection: keep-alive\r\n\r\n")
        answer = await client.answer()
        assert (answer.body, answer.closes, answer.all("Transfer-Encoding")) == (b"abc", True, [])


async def test_an_answer_without_a_length_becomes_chunks(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    replica.handler = says(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(2):
            answer = await client.request()
            assert (answer.one("Transfer-Encoding"), answer.body) == ("chunked", b"until the end")


async def test_an_answer_without_a_length_ends_with_the_connection_for_http_1_0(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = says(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", close=True)
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n" + FIELDS + b"\r\n")
        answer = await client.answer()
        assert (answer.body, answer.closes) == (b"until the end", True)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_statuses_without_a_body_have_none(make_plane: MakePlane, replica: ScriptedReplica, status: str) -> None:
    replica.handler = says(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            assert (await client.request()).status == int(status[:3])
    assert len(replica.connections) == 1


async def test_head_has_the_length_of_the_body_it_does_not_have(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            assert (await client.request("HEAD")).one("Content-Length") == "1000"
    assert len(replica.connections) == 1


async def test_an_answer_to_head_is_never_taken_for_one_to_get(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + b"abc" * (seen.method == "GET"))

    replica.handler = handler
    plane = await make_plane(replica)
    async with plane.client() as client:
        for method in ("GET", "GET", "HEAD", "HEAD", "GET", "HEAD", "GET"):
            assert (await client.request(method)).body == (b"abc" if method == "GET" else b"")


async def test_answers_of_growing_length_with_equal_heads_are_told_apart(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.answer(await connection.body(seen))

    replica.handler = handler
    plane = await make_plane(replica)
    async with plane.client() as client:
        for size in (0, 1, 9, 10, 99, 100, 5000, 100_000, 3):
            body = bytes(range(256)) * (size // 256 + 1)
            assert (await client.request("POST", body=body[:size])).body == body[:size]


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0" + b"0" * 30 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_502_and_its_connection_is_given_up(
    make_plane: MakePlane, replica: ScriptedReplica, raw: bytes
) -> None:
    replica.handler = says(raw)
    plane = await make_plane(replica)
    async with plane.client() as client:
        answer = await client.request("POST", body=b"x")
        assert (answer.status, answer.json()["code"]) == (502, "replica_malformed")
        await eventually(lambda: replica.open_connections == 0)
        replica.handler = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert (await client.request()).status == 200


async def test_what_a_replica_says_beyond_its_answer_never_reaches_anybody(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    replica.handler = says(ok + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            assert (await client.request()).body == b"ok"
    await eventually(lambda: replica.open_connections == 0)


async def test_a_kept_connection_on_which_a_replica_speaks_unasked_is_given_up(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        assert (await client.request()).status == 200
        await replica.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await eventually(lambda: replica.open_connections == 0)
        assert (await client.request()).json()["line"] == "GET / HTTP/1.1"


async def test_an_answer_cut_short_is_cut_short_for_the_client_too(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    for head in (b"Content-Length: 10\r\n\r\nabc", CHUNKED + b"\r\n3\r\nabc\r\n"):
        replica.handler = says(b"HTTP/1.1 200 OK\r\n" + head, close=True)
        async with plane.client() as client:
            with pytest.raises(asyncio.IncompleteReadError):
                await client.request("POST", body=b"x")


# --- what comes before the answer -------------------------------------------------------------


async def test_100_is_not_sent_to_who_did_not_ask_nor_to_http_1_0(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    replica.handler = says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok)
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n" + FIELDS + b"Expect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 200
    assert replica.seen[-1].all("Expect") == []
    async with plane.client() as client:
        early = await client.request()
        assert (early.status, early.one("Link")) == (103, "x")
        assert (await client.answer()).status == 200


async def test_request_trailers_reach_the_replica_but_for_dangerous_ones(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(
            b"POST / HTTP/1.1\r\n" + FIELDS + CHUNKED + b"\r\n3\r\nabc\r\n"
            b"0\r\nX-Sum: 6\r\nAuthorization: x\r\nTransfer-Encoding: y\r\n\r\n"
        )
        assert (await client.answer()).json()["body"] == "abc"
    assert replica.seen[0].trailers == ["X-Sum: 6"]


async def test_an_answer_before_the_end_of_the_request_is_passed_on_and_both_sides_closed(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.answer(b"too much", status="413 Content Too Large")

    replica.handler = handler
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"too much")
        assert await client.closed()
    await eventually(lambda: replica.open_connections == 0)


async def test_a_second_request_is_not_sent_before_the_first_is_answered(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, target_concurrency=5)
    async with plane.client() as client:
        await client.send((b"GET /1 HTTP/1.1\r\n%b\r\n" + b"GET /2 HTTP/1.1\r\n%b\r\n") % (FIELDS, FIELDS))
        await eventually(lambda: len(replica.seen) == 1)
        gate.open()
        assert (await client.answer()).body == b"/1"
        await eventually(lambda: len(replica.seen) == 2)
        gate.open()
        assert (await client.answer()).body == b"/2"
