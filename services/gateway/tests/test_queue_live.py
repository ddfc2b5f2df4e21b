"""The queue with real requests: exact concurrency, overload, states, failing and leaving replicas."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.proxy.replica import parse_address
from tests_support import eventually

from .plane import MakePlane, RunningPlane, ready
from .raw import AUTHORIZATION, HOST, RawClient
from .replica import Connection, Gate, MakeReplica, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION


async def send(stack: AsyncExitStack, plane: RunningPlane, target: str) -> RawClient:
    client = await stack.enter_async_context(plane.client())
    before = plane.endpoint.queue.in_flight + len(plane.endpoint.queue)
    await client.send(f"POST {target} HTTP/1.1\r\n".encode() + FIELDS + b"Content-Length: 2\r\n\r\n{}")
    await eventually(lambda: plane.endpoint.queue.in_flight + len(plane.endpoint.queue) > before)
    return client


async def test_a_replica_works_on_no_more_than_its_concurrency_and_in_order_of_arrival(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, target_concurrency=2)
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(8)]
        await eventually(lambda: replica.working == 2)
        assert len(plane.endpoint.queue) == 6
        gate.open(8)
        assert [(await client.answer()).body for client in clients] == [f"/{number}".encode() for number in range(8)]
    assert [seen.target for seen in replica.seen] == [f"/{number}" for number in range(8)]
    assert replica.working_max == 2


async def test_a_request_goes_to_the_replica_that_is_free_first(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    one, other = await make_replica(), await make_replica()
    one_gate, other_gate = Gate(), Gate()
    one.handler, other.handler = one_gate, other_gate
    plane = await make_plane(one, other)
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(4)]
        other_gate.open(3)
        await eventually(lambda: len(other.seen) == 3)
        assert len(one.seen) == 1
        one_gate.open()
        for client in clients:
            assert (await client.answer()).status == 200
    assert (one.working_max, other.working_max) == (1, 1)


async def test_a_full_queue_is_503_with_the_time_until_it_is_worked_off(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, queue_limit=2)
    plane.endpoint.queue.service_s = 3.0
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(3)]
        async with plane.client() as extra:
            answer = await extra.request("POST", body=b"{}")
            assert (answer.status, answer.one("Retry-After"), answer.closes) == (503, "9", False)
            problem = answer.json()
            assert (problem["code"], problem["reason"]) == ("overloaded", "queue_full")
            assert (problem["queue_length"], problem["queue_limit"], problem["replicas"]) == (2, 2, 1)
        gate.open(3)
        for client in clients:
            assert (await client.answer()).status == 200
    assert plane.plane.context.refused == {"overloaded": 1}


async def test_a_queue_of_no_length_refuses_what_cannot_start(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, queue_limit=0)
    async with AsyncExitStack() as stack:
        client = await send(stack, plane, "/1")
        async with plane.client() as extra:
            assert (await extra.request()).status == 503
        gate.open()
        assert (await client.answer()).status == 200


async def test_waiting_too_long_is_503_and_the_connection_stays_usable(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, queue_timeout_s=1)
    async with AsyncExitStack() as stack:
        first = await send(stack, plane, "/1")
        second = await send(stack, plane, "/2")
        answer = await second.answer()
        assert (answer.status, answer.json()["reason"]) == (503, "queue_timeout")
        assert int(answer.one("Retry-After")) >= 1
        gate.open(2)
        assert (await first.answer()).status == 200
        assert (await second.request()).status == 200
    assert [seen.target for seen in replica.seen] == ["/1", "/"]


async def test_a_client_that_leaves_the_queue_is_forgotten(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica)
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(3)]
        clients[1].leave()
        await eventually(lambda: len(plane.endpoint.queue) == 1)
        gate.open(2)
        assert (await clients[0].answer()).body == b"/0"
        assert (await clients[2].answer()).body == b"/2"
    assert plane.endpoint.stats.statuses == {200: 2, 499: 1}


@pytest.mark.parametrize("state", ["queued", "starting", "idle", "running"])
async def test_requests_wait_for_an_endpoint_that_is_on_its_way_and_start_once_a_replica_is_ready(
    make_plane: MakePlane, replica: ScriptedReplica, state: str
) -> None:
    plane = await make_plane(state=state)
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(5)]
        plane.change_route(state="running", replicas=ready(replica))
        for client in clients:
            assert (await client.answer()).status == 200
    assert [seen.target for seen in replica.seen] == [f"/{number}" for number in range(5)]


@pytest.mark.parametrize("state", ["stopping", "stopped", "failed", "terminating", "terminated"])
async def test_who_waits_when_an_endpoint_ends_is_told_at_once(make_plane: MakePlane, state: str) -> None:
    plane = await make_plane(state="starting")
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(3)]
        plane.change_route(state=state, reason="because")
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.json()["state"]) == (503, state)
            assert (await client.request()).status == 503


async def test_who_waits_when_a_route_is_removed_is_told_and_what_runs_may_finish(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica)
    async with AsyncExitStack() as stack:
        running, waiting = await send(stack, plane, "/1"), await send(stack, plane, "/2")
        plane.plane.directory.remove_route("ep_1")
        assert (await waiting.answer()).json()["state"] == "terminated"
        gate.open()
        assert (await running.answer()).status == 200
    await eventually(lambda: replica.open_connections == 0)


async def test_a_replica_that_leaves_finishes_what_it_has_and_gets_nothing_new(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    leaving, staying = await make_replica(), await make_replica()
    gate = leaving.handler = Gate()
    plane = await make_plane(leaving)
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(3)]
        plane.change_route(replicas=ready(staying))
        assert (await clients[1].answer()).status == 200
        assert (await clients[2].answer()).status == 200
        gate.open()
        assert (await clients[0].answer()).body == b"/0"
    assert [seen.target for seen in staying.seen] == ["/1", "/2"]
    await eventually(lambda: leaving.open_connections == 0)


async def test_an_endpoint_that_is_stopped_and_started_again_serves(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        assert (await client.request()).status == 200
        plane.change_route(state="stopped", replicas=())
        assert (await client.request()).status == 503
        plane.change_route(state="running", replicas=ready(replica))
        assert (await client.request()).status == 200


# --- replicas that fail -----------------------------------------------------------------------


async def refusing(make_replica: MakeReplica) -> ScriptedReplica:
    """A replica whose port nobody listens on."""
    gone: ScriptedReplica = await make_replica()
    await gone.stop()
    return gone


async def test_a_connection_that_never_opened_is_tried_on_another_replica(
    make_plane: MakePlane, make_replica: MakeReplica, replica: ScriptedReplica
) -> None:
    plane = await make_plane(await refusing(make_replica), replica, settings={"eject_s_min": 60, "eject_s_max": 60})
    async with plane.client() as client:
        for number in range(6):
            answer = await client.request("POST", f"/{number}", body=b"{}")
            assert answer.json()["line"] == f"POST /{number} HTTP/1.1"
    assert len(replica.seen) == 6
    assert plane.endpoint.queue.view().ejected == 1


async def test_requests_wait_for_a_replica_that_refuses_until_it_is_back_in_their_order(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    gone = await refusing(make_replica)
    plane = await make_plane(gone, settings={"eject_s_min": 0.02, "eject_s_max": 0.05})
    async with AsyncExitStack() as stack:
        clients = [await send(stack, plane, f"/{number}") for number in range(3)]
        await eventually(lambda: plane.endpoint.queue.replicas[f"rep_{gone.port}"].failures >= 3)
        await gone.start(gone.port)
        for client in clients:
            assert (await client.answer()).status == 200
        assert [seen.target for seen in gone.seen] == ["/0", "/1", "/2"]
    assert plane.endpoint.queue.view().ejected == 0


async def test_waiting_for_replicas_that_refuse_ends_with_the_reason(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    plane = await make_plane(await refusing(make_replica), queue_timeout_s=1)
    async with plane.client() as client:
        answer = await client.request("POST", body=b"{}")
        assert answer.status == 503
        assert "no replica accepts connections" in answer.json()["detail"]


async def test_a_request_that_a_replica_dropped_is_not_repeated(
    make_plane: MakePlane, make_replica: MakeReplica, replica: ScriptedReplica
) -> None:
    async def drop(seen: Seen, connection: Connection) -> None:
        connection.abort()

    replica.handler = drop
    other = await make_replica()
    plane = await make_plane(replica, other, settings={"eject_s_min": 60, "eject_s_max": 60})
    async with plane.client() as client:
        answers = [await client.request("POST", f"/{number}", body=b"{}") for number in range(4)]
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 502]
    lost = next(answer for answer in answers if answer.status == 502)
    assert lost.json()["code"] == "replica_lost"
    assert len(replica.seen) == 1
    assert len(other.seen) == 3


async def close_after_first(seen: Seen, connection: Connection) -> None:
    """Answers once, then waits for the next request and closes without a word: a stale connection."""
    await connection.body(seen)
    await connection.answer()
    await connection.reader.read(1)
    connection.abort()


async def test_a_get_on_a_kept_connection_that_was_just_closed_is_sent_once_more(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = close_after_first
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            assert (await client.request("GET")).status == 200
    assert plane.endpoint.stats.statuses == {200: 3}


async def test_a_post_on_a_kept_connection_that_was_just_closed_is_502(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = close_after_first
    plane = await make_plane(replica)
    async with plane.client() as client:
        assert (await client.request("POST", body=b"{}")).status == 200
        assert (await client.request("POST", body=b"{}")).status == 502
        assert (await client.request("GET", body=b"{}")).status == 200
        assert (await client.request("GET", body=b"{}")).status == 502


async def test_a_kept_connection_that_was_closed_long_ago_is_not_used(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def once(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.answer()
        connection.writer.close()

    replica.handler = once
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(5):
            assert (await client.request("POST", body=b"{}")).status == 200
            await eventually(lambda: replica.open_connections == 0)


async def test_a_replica_that_accepts_no_connection_in_time_is_left_alone(make_plane: MakePlane) -> None:
    class Unreachable(ScriptedReplica):
        """Documentation address: nothing answers, and no error comes back either."""

        @property
        def address(self) -> str:
            return "192.0.2.1:9"

    plane = await make_plane(Unreachable(), settings={"connect_timeout_s": 0.05}, queue_timeout_s=1)
    async with plane.client() as client:
        assert (await client.request()).status == 503
        assert plane.endpoint.queue.view().ejected == 1


async def test_a_replica_whose_host_name_is_none_is_left_alone(make_plane: MakePlane) -> None:
    plane = await make_plane(queue_timeout_s=1)
    plane.change_route(replicas=(RouteReplica(replica_id="rep_1", address="a..b:80"),))
    async with plane.client() as client:
        assert (await client.request()).status == 503
    assert plane.endpoint.queue.in_flight == 0


@pytest.mark.parametrize(
    ("address", "parsed"),
    [("10.0.0.1:80", ("10.0.0.1", 80)), ("node-1.lan:8000", ("node-1.lan", 8000)), ("[::1]:80", ("::1", 80))],
)
def test_a_replicas_address_is_a_host_and_a_port(address: str, parsed: tuple[str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["", "nowhere", ":80", "a:", "a:b", "a:70000", "a b:80", "::1:80", "http://a:80"])
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        parse_address(address)


# --- numbers ----------------------------------------------------------------------------------


async def test_every_request_is_counted_once(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(5):
            await client.request("POST", body=b"{}")
        plane.change_route(state="stopped")
        await client.request()
    stats = plane.endpoint.stats
    assert stats.statuses == {200: 5, 503: 1}
    assert stats.latency.count == stats.queue_wait.count == stats.first_byte.count == 5
    assert stats.queue_wait.total_us <= stats.first_byte.total_us <= stats.latency.total_us


async def test_a_thousand_requests_from_many_clients_are_each_answered_with_their_own(
    make_plane: MakePlane, make_replica: MakeReplica
) -> None:
    replicas = [await make_replica() for _ in range(3)]
    plane = await make_plane(*replicas, target_concurrency=2)

    async def work(worker: int) -> None:
        async with plane.client() as client:
            for number in range(50):
                body = f"{worker}-{number}".encode() * (number + 1)
                answer = await client.request("POST", f"/{worker}", body=body)
                assert answer.json()["body"].encode() == body

    await asyncio.gather(*(work(worker) for worker in range(20)))
    assert sum(len(replica.seen) for replica in replicas) == 1000
    assert all(replica.working_max <= 2 for replica in replicas)
    assert plane.endpoint.queue.in_flight == 0
