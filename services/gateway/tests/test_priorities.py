"""X-Penstock-Priority and turns between API keys, with real requests."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from tests_support import eventually

from .plane import MakePlane, RunningPlane, key_record
from .raw import HOST, KEY, RawClient
from .replica import Gate, ScriptedReplica

OTHER = "psk_another"


@pytest.fixture
def gate(replica: ScriptedReplica) -> Gate:
    replica.handler = gate = Gate()
    return gate


async def waiting(
    stack: AsyncExitStack, plane: RunningPlane, requests: Sequence[tuple[str, str, str | None]]
) -> list[RawClient]:
    """Sends each (target, priority, key) and has it start or wait before the next is sent."""
    clients: list[RawClient] = []
    before = plane.endpoint.in_flight + len(plane.endpoint.queue)
    for target, priority, key in requests:
        client = await stack.enter_async_context(plane.client())
        said = f"X-Penstock-Priority: {priority}\r\n" if priority else ""
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        await client.send(f"GET {target} HTTP/1.1\r\n{said}{authorization}".encode() + HOST + b"\r\n")
        clients.append(client)
        await eventually(lambda: plane.endpoint.in_flight + len(plane.endpoint.queue) == before + len(clients))
    return clients


async def order_of(
    plane: RunningPlane, replica: ScriptedReplica, gate: Gate, requests: Sequence[tuple[str, str, str | None]]
) -> list[str]:
    """The order in which the replica got them, after the first that held its slot."""
    async with AsyncExitStack() as stack:
        clients = await waiting(stack, plane, [("/first", "", requests[0][2]), *requests])
        gate.open(len(clients))
        for client in clients:
            assert (await client.answer()).status == 200
    return [seen.target for seen in replica.seen[1:]]


async def test_urgent_requests_overtake_others_that_wait(
    make_plane: MakePlane, replica: ScriptedReplica, gate: Gate
) -> None:
    plane = await make_plane(replica)
    sent = [("/low", "low", KEY), ("/plain", "", KEY), ("/normal", "Normal", KEY), ("/high", "HIGH", KEY)]
    assert await order_of(plane, replica, gate, sent) == ["/high", "/plain", "/normal", "/low"]


async def test_keys_take_turns(make_plane: MakePlane, replica: ScriptedReplica, gate: Gate) -> None:
    plane = await make_plane(replica)
    plane.plane.directory.put_key(key_record(OTHER).model_copy(update={"key_id": "key_2"}))
    sent = [*((f"/many/{number}", "", KEY) for number in range(4)), ("/few/0", "", OTHER), ("/few/1", "", OTHER)]
    expected = ["/many/0", "/few/0", "/many/1", "/few/1", "/many/2", "/many/3"]
    assert await order_of(plane, replica, gate, sent) == expected


async def test_strangers_at_a_public_endpoint_have_no_say_and_its_own_callers_do(
    make_plane: MakePlane, replica: ScriptedReplica, gate: Gate
) -> None:
    plane = await make_plane(replica, public=True)
    plane.plane.directory.put_key(key_record(OTHER, organization_id="org_2"))
    sent = [
        ("/stranger/0", "low", None),
        ("/stranger/1", "high", None),
        ("/stranger/2", "high", OTHER),
        ("/own/high", "high", KEY),
        ("/own", "", KEY),
    ]
    expected = ["/own/high", "/stranger/0", "/own", "/stranger/1", "/stranger/2"]
    assert await order_of(plane, replica, gate, sent) == expected


async def test_a_request_pushed_out_by_others_is_503_and_its_connection_stays_usable(
    make_plane: MakePlane, replica: ScriptedReplica, gate: Gate
) -> None:
    plane = await make_plane(replica, queue_limit=3)
    plane.plane.directory.put_key(key_record(OTHER).model_copy(update={"key_id": "key_2"}))
    async with AsyncExitStack() as stack:
        clients = await waiting(stack, plane, [(f"/many/{number}", "", KEY) for number in range(4)])
        other = await stack.enter_async_context(plane.client())
        await other.send(b"GET /few HTTP/1.1\r\n" + HOST + f"Authorization: Bearer {OTHER}\r\n\r\n".encode())
        answer = await clients[3].answer()
        assert (answer.status, answer.json()["reason"], answer.closes) == (503, "queue_full", False)
        gate.open(5)
        for client in (*clients[:3], other):
            assert (await client.answer()).status == 200
        assert (await clients[3].request()).status == 200
    assert [seen.target for seen in replica.seen[:4]] == ["/many/0", "/many/1", "/few", "/many/2"]


async def test_a_place_is_handed_on_also_when_the_limit_was_lowered_below_what_waits(
    make_plane: MakePlane, replica: ScriptedReplica, gate: Gate
) -> None:
    plane = await make_plane(replica, queue_limit=3)
    plane.plane.directory.put_key(key_record(OTHER).model_copy(update={"key_id": "key_2"}))
    async with AsyncExitStack() as stack:
        clients = await waiting(stack, plane, [(f"/many/{number}", "", KEY) for number in range(4)])
        plane.change_route(queue_limit=1)
        other = await stack.enter_async_context(plane.client())
        await other.send(b"GET /few HTTP/1.1\r\n" + HOST + f"Authorization: Bearer {OTHER}\r\n\r\n".encode())
        assert (await clients[3].answer()).status == 503
        assert len(plane.endpoint.queue) == 3
        gate.open(4)
        for client in (*clients[:3], other):
            assert (await client.answer()).status == 200


async def test_who_is_pushed_out_with_a_request_behind_it_does_not_take_the_place_again(
    make_plane: MakePlane, replica: ScriptedReplica, gate: Gate
) -> None:
    plane = await make_plane(replica, queue_limit=2)
    plane.plane.directory.put_key(key_record(OTHER).model_copy(update={"key_id": "key_2"}))
    async with AsyncExitStack() as stack:
        clients = await waiting(stack, plane, [(f"/many/{number}", "", KEY) for number in range(2)])
        pipelining, other = [await stack.enter_async_context(plane.client()) for _ in range(2)]
        one = b"GET /ahead HTTP/1.1\r\n" + HOST + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
        await pipelining.send(one + one)
        await eventually(lambda: len(plane.endpoint.queue) == 2)
        await other.send(b"GET /few HTTP/1.1\r\n" + HOST + f"Authorization: Bearer {OTHER}\r\n\r\n".encode())
        assert [(await pipelining.answer()).status for _ in range(2)] == [503, 503]
        gate.open(3)
        for client in (*clients, other):
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("lines", [b"urgent", b"", b"high, low", b"high\r\nX-Penstock-Priority: high", b"hi\xffgh"])
async def test_another_priority_is_400_names_the_header_and_leaves_the_connection_usable(
    make_plane: MakePlane, replica: ScriptedReplica, lines: bytes
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        answer = await client.request("POST", headers=b"X-Penstock-Priority: " + lines + b"\r\n", body=b"{}")
        problem = answer.json()
        assert (answer.status, problem["code"], answer.closes) == (400, "invalid_priority", False)
        assert problem["errors"][0]["field"] == "X-Penstock-Priority"
        assert "high, normal or low" in problem["detail"]
        assert (await client.request()).status == 200


async def test_who_may_not_call_learns_nothing_from_a_bad_priority(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"X-Penstock-Priority: urgent\r\n\r\n")
        assert (await client.answer()).status == 401


async def test_the_priority_does_not_reach_the_replica(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(4):
            assert (await client.request("POST", headers=b"x-penstock-priority: low\r\n", body=b"{}")).status == 200
    assert not any("priority" in name.lower() for seen in replica.seen for name, _ in seen.headers)


async def test_low_priority_comes_to_its_turn_while_urgent_requests_keep_coming(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    done = asyncio.Event()
    served = 0

    async def urgent() -> None:
        nonlocal served
        async with plane.client() as client:
            while not done.is_set():
                assert (
                    await client.request("POST", headers=b"X-Penstock-Priority: high\r\n", body=b"{}")
                ).status == 200
                served += 1

    floods = [asyncio.create_task(urgent()) for _ in range(4)]
    await eventually(lambda: served > 4)
    async with plane.client() as client:
        before = served
        assert (await client.request("POST", headers=b"X-Penstock-Priority: low\r\n", body=b"{}")).status == 200
        assert served - before < 40
    done.set()
    await asyncio.gather(*floods)
