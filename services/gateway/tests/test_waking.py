"""Endpoints without a ready replica: requests wait for a start, and what the autoscaler is told meanwhile."""

import asyncio
from contextlib import AsyncExitStack
from time import monotonic

import pytest

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.proxy.endpoint import Endpoint
from tests_support import eventually

from .plane import ENDPOINT_ID, MakePlane, RunningPlane, ready, route
from .raw import AUTHORIZATION, HOST, RawClient
from .replica import Connection, Gate, MakeReplica, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION


async def send(stack: AsyncExitStack, plane: RunningPlane, target: str) -> RawClient:
    client = await stack.enter_async_context(plane.client())
    before = plane.endpoint.in_flight + len(plane.endpoint.queue)
    await client.send(f"POST {target} HTTP/1.1\r\n".encode() + FIELDS + b"Content-Length: 2\r\n\r\n{}")
    await eventually(lambda: plane.endpoint.in_flight + len(plane.endpoint.queue) > before)
    return client


def watched(plane: RunningPlane) -> list[int]:
    """The length of the queue at each wake-up."""
    pressed: list[int] = []
    plane.plane.context.pressed = lambda endpoint: pressed.append(len(endpoint.queue))
    return pressed


async def test_however_many_wait_there_is_one_wake_up_and_each_is_answered(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(state="idle", queue_limit=1000, target_concurrency=16)
    pressed = watched(plane)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(plane.client()) for _ in range(200)]
        for number, client in enumerate(clients):
            await client.send(b"POST /%d HTTP/1.1\r\n" % number + FIELDS + b"Content-Length: 2\r\n\r\n{}")
        await eventually(lambda: len(plane.endpoint.queue) == 200)
        assert pressed == [1]
        plane.change_route(state="starting")
        plane.change_route(state="running", replicas=ready(replica))
        for number, client in enumerate(clients):
            assert (await client.answer()).json()["line"] == f"POST /{number} HTTP/1.1"
    assert pressed == [1]
    assert len(replica.seen) == 200
    assert replica.working_max <= 16


async def test_each_time_a_queue_forms_is_told_once_and_a_request_that_starts_at_once_is_not(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica)
    pressed = watched(plane)
    async with AsyncExitStack() as stack:
        for expected in ([1], [1, 1]):
            clients = [await send(stack, plane, f"/{number}") for number in range(3)]
            assert pressed == expected
            gate.open(3)
            for client in clients:
                assert (await client.answer()).status == 200


async def test_a_request_that_comes_back_to_an_empty_queue_is_told_too(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    gone = await make_replica()
    await gone.stop()
    plane = await make_plane(gone, settings={"eject_s_min": 60, "eject_s_max": 60})
    pressed = watched(plane)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: pressed)
        assert len(plane.endpoint.queue) == 1


async def test_the_time_in_the_queue_counts_from_the_first_ready_replica(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = Gate()
    plane = await make_plane(state="idle", queue_timeout_s=1, settings={"start_timeout_s": 60})
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(2)]
        due_s = plane.endpoint.queue.next_event_s()
        assert due_s is not None
        assert due_s > monotonic() + 50
        plane.change_route(state="running", replicas=ready(replica))
        answer = await clients[1].answer()
        assert (answer.status, answer.json()["reason"]) == (503, "queue_timeout")
        assert plane.endpoint.in_flight == 1


async def test_a_start_that_takes_too_long_is_503_says_why_and_the_connection_stays_usable(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(
        state="queued", reason="waits for 1 GPU", shortage="no host has room", settings={"start_timeout_s": 0.2}
    )
    async with AsyncExitStack() as stack:
        client = await send(stack, plane, "/1")
        answer = await client.answer()
        problem = answer.json()
        assert (answer.status, problem["code"], problem["reason"]) == (503, "not_started", "start_timeout")
        assert (problem["state"], problem["replicas"]) == ("queued", 0)
        assert "within 0.2 s" in problem["detail"]
        assert "queued (waits for 1 GPU): no host has room" in problem["detail"]
        assert int(answer.one("Retry-After")) >= 1
        plane.change_route(state="running", replicas=ready(replica))
        assert (await client.request()).status == 200


async def test_the_last_request_is_known_and_ping_is_none(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    made_s = monotonic()
    plane = await make_plane(replica)
    first_s = plane.endpoint.last_request_s
    assert made_s <= first_s <= monotonic()
    async with plane.client() as client:
        assert (await client.request("GET", "/ping")).status == 200
        assert plane.endpoint.last_request_s == first_s
        assert (await client.request("POST", body=b"{}")).status == 200
        second_s = plane.endpoint.last_request_s
        assert second_s > first_s
        plane.change_route(state="idle", replicas=())
        await client.send(b"GET /x HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: plane.endpoint.last_request_s > second_s)
        waited_s = plane.endpoint.last_request_s
        plane.change_route(state="stopped")
        assert (await client.answer()).status == 503
        assert (await client.request()).status == 503
        assert plane.endpoint.last_request_s == waited_s


async def test_changes_of_routes_are_told_once_they_hold(make_plane: MakePlane) -> None:
    plane = await make_plane()
    directory, context = plane.plane.directory, plane.plane.context
    told: list[tuple[str, str, int]] = []

    def note(what: str, endpoint: Endpoint) -> None:
        known = endpoint.route.endpoint_id in directory.endpoints
        told.append((what if known else f"{what}, gone", endpoint.route.endpoint_id, endpoint.route.version))

    context.on_route = lambda endpoint: note("route", endpoint)
    context.on_removed = lambda endpoint: note("removed", endpoint)
    plane.change_route(state="idle")
    directory.put_route(route(version=1))
    directory.put_route(route(endpoint_id="ep_2", endpoint="second"))
    with pytest.raises(ValueError, match="not an address"):
        plane.change_route(replicas=(RouteReplica(replica_id="rep_1", address="nowhere"),))
    directory.remove_route(ENDPOINT_ID)
    directory.remove_route(ENDPOINT_ID)
    assert told == [("route", ENDPOINT_ID, 3), ("route", "ep_2", 1), ("removed, gone", ENDPOINT_ID, 3)]


# --- draining ---------------------------------------------------------------------------------


async def endless(seen: Seen, connection: Connection) -> None:
    """A stream that ends when the other side closes it."""
    await connection.body(seen)
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await connection.reader.read(1)
    connection.writer.close()


async def test_a_draining_replica_finishes_its_stream_gets_nothing_new_and_is_seen_to_be_busy(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    leaving, staying = await make_replica(), await make_replica()
    leaving.handler = endless
    plane = await make_plane(leaving)
    (drained,) = (one.model_copy(update={"draining": True}) for one in ready(leaving))
    async with AsyncExitStack() as stack:
        streaming = await send(stack, plane, "/stream")
        assert await streaming.head()
        plane.change_route(replicas=(drained, *ready(staying)))
        for _ in range(3):
            client = await stack.enter_async_context(plane.client())
            assert (await client.request("POST", body=b"{}")).status == 200
        assert (plane.endpoint.in_flight, plane.endpoint.busy_replicas) == (1, (drained.replica_id,))
        assert len(leaving.seen) == 1
        streaming.leave()
        await eventually(lambda: plane.endpoint.busy_replicas == ())
        assert plane.endpoint.in_flight == 0
        plane.change_route(replicas=ready(staying))
        assert plane.endpoint.busy_replicas == ()


async def test_with_nothing_but_draining_replicas_requests_wait_for_a_start(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    leaving, fresh = await make_replica(), await make_replica()
    plane = await make_plane(leaving)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(plane.client())
        assert (await client.request()).status == 200
        (drained,) = (one.model_copy(update={"draining": True}) for one in ready(leaving))
        plane.change_route(replicas=(drained,))
        await eventually(lambda: leaving.open_connections == 0)
        pressed = watched(plane)
        waiting = asyncio.create_task(client.request("POST", "/late", body=b"{}"))
        await eventually(lambda: pressed == [1])
        plane.change_route(replicas=(drained, *ready(fresh)))
        assert (await waiting).status == 200
    assert [seen.target for seen in fresh.seen] == ["/late"]
    assert len(leaving.seen) == 1
