"""Asynchronous requests end to end: through a running data plane, kept on a real NATS server."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests_support import Servers, eventually

from .deferring import (
    ASYNC,
    MakeGateway,
    make_gateway,
    messages_kept,
    reaches,
    result,
    seen_body,
    start,
    status,
    works_until_cancelled,
)
from .plane import ready
from .raw import KEY
from .replica import Connection, Gate, ScriptedReplica, Seen, echo, says

pytestmark = pytest.mark.connected

__all__ = ["make_gateway"]


async def test_a_request_is_kept_run_and_its_answer_given_as_the_endpoint_gave_it(
    make_gateway: MakeGateway, replica: ScriptedReplica, clean_servers: Servers
) -> None:
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        answer = await client.request("POST", "/run?a=1", ASYNC + b"X-Mine: yes\r\nCookie: a=b\r\n", b'{"x": 1}')
        assert (answer.status, answer.one("Preference-Applied")) == (202, "respond-async")
        path = answer.one("Location")
        assert path.startswith("/.inferences/inf_")
        assert answer.json()["state"] in {"queued", "running", "succeeded"}
        given = await result(client, path)
        assert (given.status, given.one("Content-Type")) == (200, "text/plain")
        said = await status(client, path)
        assert (said["state"], said["result"]["status"]) == ("succeeded", 200)
        assert said["result"]["bytes"] == len(given.body)
        assert said["retention_s"] == 24 * 3600
    (seen,) = replica.seen
    assert (seen.line, seen.body) == ("POST /run?a=1 HTTP/1.1", b'{"x": 1}')
    assert seen.one("X-Mine") == "yes"
    assert seen.one("Host") == "iris.default.localhost"
    for name in ("Prefer", "Authorization", "Cookie"):
        assert seen.all(name) == []
    assert seen.one("X-Request-Id")
    assert seen.one("traceparent")
    # The request is no longer there; the answer is.
    records, data = await messages_kept(clean_servers)
    assert len(data) == 1
    assert [subject.split(".")[1] for subject in records if "finished" in subject] == ["finished"]


async def test_below_a_path_the_location_is_below_it_too(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        answer = await client.request("GET", "/e/default/iris/run", ASYNC, host=b"Host: localhost\r\n")
        path = answer.one("Location")
        assert path.startswith("/e/default/iris/.inferences/inf_")

        async def finished() -> bool:
            said = (await client.request("GET", path, host=b"Host: localhost\r\n")).json()
            assert said["status_url"] == f"http://localhost{path}"
            return bool(said["state"] == "succeeded")

        await eventually(finished)


async def test_bodies_longer_than_a_message_come_back_whole(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    body = bytes(range(256)) * 8192 * 2  # 4 MiB, eight parts

    async def mirror(seen: Seen, connection: Connection) -> None:
        whole = await connection.body(seen)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Length: %d\r\n\r\n" % len(whole)
        await connection.send(head)
        for at in range(0, len(whole), 100_000):
            piece = whole[at : at + 100_000]
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await connection.send(b"0\r\n\r\n")

    replica.handler = mirror
    gateway = await make_gateway(replica)
    chunk = 65_536
    chunked = b"".join(b"%x\r\n%b\r\n" % (chunk, body[at : at + chunk]) for at in range(0, len(body), chunk))
    async with gateway.running.client() as client:
        sized = await start(client, body=body)
        head = b"POST /run HTTP/1.1\r\nHost: iris.default.localhost\r\nAuthorization: Bearer " + KEY.encode()
        await client.send(head + b"\r\nTransfer-Encoding: chunked\r\n" + ASYNC + b"\r\n" + chunked + b"0\r\n\r\n")
        streamed = (await client.answer()).one("Location")
        for path in (sized, streamed):
            given = await result(client, path)
            assert given.body == body
            assert given.one("Content-Length") == given.one("X-Length") == str(len(body))
    assert [seen.one("Content-Length") for seen in replica.seen] == [str(len(body))] * 2
    # All memory is given back.
    assert gateway.deferred._desk.budget._free == gateway.deferred._settings.deferred_held_bytes_max


async def test_a_request_waits_for_an_endpoint_that_sleeps(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    gateway = await make_gateway(state="idle", min_replicas=0, queue_limit=2)
    woken: list[str] = []
    gateway.running.plane.context.pressed = lambda endpoint: woken.append(endpoint.route.endpoint_id)
    async with gateway.running.client() as client:
        paths = [await start(client, body=b"%d" % number) for number in range(5)]
        await eventually(lambda: woken)
        assert [(await status(client, path))["state"] for path in paths] == ["queued"] * 5
        # One could run at most, and one waits behind it: the rest is not in anybody's way.
        assert len(gateway.running.endpoint.queue) == 2
        gateway.running.change_route(state="running", replicas=ready(replica))
        for path in paths:
            said = await reaches(client, path, "succeeded")
            assert said["queue_s"] > 0
    assert [seen.body for seen in replica.seen] == [b"%d" % number for number in range(5)]
    assert replica.working_max == 1


async def test_a_queued_request_that_is_cancelled_never_runs(
    make_gateway: MakeGateway, replica: ScriptedReplica, clean_servers: Servers
) -> None:
    replica.handler = gate = Gate()
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        running = await start(client, "/first")
        queued = await start(client, "/second")
        await eventually(lambda: replica.working == 1)
        answer = await client.request("DELETE", queued)
        assert (answer.status, answer.json()["state"]) == (200, "cancelled")
        assert (await client.request("DELETE", queued)).json()["state"] == "cancelled"
        gate.open(2)
        await reaches(client, running, "succeeded")
        assert (await client.request("DELETE", running)).json()["state"] == "succeeded"
        assert (await client.request("GET", f"{queued}/result")).json()["code"] == "no_result"
    assert [seen.target for seen in replica.seen] == ["/first"]
    assert len((await messages_kept(clean_servers))[1]) == 1
    assert len(gateway.board) == 0


async def test_cancelling_a_running_request_cancels_it_at_the_replica(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    replica.handler = works_until_cancelled
    gateway = await make_gateway(replica)
    # Whichever gateway is asked.
    other = await make_gateway(replica, deferred={"deferred_per_endpoint_max": 9})
    async with gateway.running.client() as client, other.running.client() as elsewhere:
        path = await start(client)
        await eventually(lambda: replica.working == 1)
        await reaches(elsewhere, path, "running")
        assert (await elsewhere.request("DELETE", path)).json()["state"] == "cancelled"
        await eventually(replica.connections[0].lost.is_set)
        replica.handler = echo
        assert (await client.request("GET", "/next")).status == 200
        assert (await status(client, path))["code"] == "cancelled"


async def test_a_caller_may_wait_for_a_while_first(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        answer = await client.request("POST", "/run", b"Prefer: respond-async, wait=20\r\n", b"quick")
        assert (answer.status, answer.one("Preference-Applied")) == (200, "wait=20")
        assert seen_body(answer) == "quick"
        replica.handler = gate = Gate()
        answer = await client.request("POST", "/run", b"Prefer: respond-async\r\nPrefer: wait=1, handling=strict\r\n")
        assert (answer.status, answer.one("Preference-Applied")) == (202, "respond-async, wait=1")
        assert answer.json()["state"] == "running"
        gate.open()
        await reaches(client, answer.one("Location"), "succeeded")
    assert replica.seen[1].all("Prefer") == ["handling=strict"]


async def test_an_answer_that_is_an_error_is_a_failure_with_a_result(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    replica.handler = says(b"HTTP/1.1 422 Unprocessable\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nbad")
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        path = await start(client)
        said = await reaches(client, path, "failed")
        assert (said["code"], said["result"]["status"], said["result"]["content_type"]) == (
            "endpoint_error",
            422,
            "a/b",
        )
        given = await result(client, path)
        assert (given.status, given.body) == (422, b"bad")


async def test_later_requests_wait_behind_those_who_wait_for_an_answer(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    replica.handler = gate = Gate()
    gateway = await make_gateway(replica)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(gateway.running.client())
        paths = [await start(client, f"/later/{number}") for number in range(4)]
        await eventually(lambda: replica.working == 1 and len(gateway.running.endpoint.queue) == 1)
        callers = [await stack.enter_async_context(gateway.running.client()) for _ in range(3)]
        answers = [asyncio.ensure_future(caller.request("GET", "/now")) for caller in callers]
        await eventually(lambda: len(gateway.running.endpoint.queue) == 4)
        gate.open(4)
        assert [(await answer).status for answer in answers] == [200] * 3
        gate.open(9)
        for path in paths:
            await reaches(client, path, "succeeded")
    # One of the later ones had joined the queue first, and gets its small share.
    assert [seen.target for seen in replica.seen[:5]].count("/now") == 3


async def test_a_client_that_expects_to_be_told_to_go_on_is_told(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    gateway = await make_gateway(replica)
    for length in (5, 300_000):
        async with gateway.running.client() as client:
            head = b"POST /run HTTP/1.1\r\nHost: iris.default.localhost\r\nAuthorization: Bearer " + KEY.encode()
            expects = b"\r\nExpect: 100-continue\r\nContent-Length: %d\r\n" % length
            await client.send(head + expects + ASYNC + b"\r\n")
            assert (await client.head())[0] == 100
            await client.send(b"x" * length)
            path = (await client.answer()).one("Location")
            assert len(seen_body(await result(client, path))) == length
