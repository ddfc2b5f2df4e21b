"""The owner of an endpoint changes: gateways come, leave, die and lose NATS, with requests under way."""

import asyncio
from contextlib import AsyncExitStack
from time import monotonic

import pytest

from tests_support import eventually

from .replica import Gate, MakeReplica, ScriptedReplica
from .sharing import FIELDS, TAKEOVER_S, Load, MakeSharing, briefly, exact, make_sharing, send

__all__ = ["make_sharing"]


async def test_gateways_come_and_leave_under_load_without_a_lost_request(
    make_sharing: MakeSharing, make_replica: MakeReplica
) -> None:
    replicas = [await make_replica() for _ in range(3)]
    for replica in replicas:
        replica.handler = briefly
    sharing = await make_sharing(1, *replicas)
    load = Load()
    load.start([sharing.planes[0].port])
    load.start([(await sharing.add(owner=True)).port])
    await sharing.settled()
    assert sharing.planes[1].owns
    await load.goes_on()
    for leaving in (sharing.planes[1], sharing.planes[0]):
        if leaving is sharing.planes[0]:
            load.start([(await sharing.add()).port])
            await sharing.settled()
        # Its clients go elsewhere when it tells them to close, and finds nothing lost.
        load.left.add(leaving.port)
        draining = asyncio.create_task(leaving.plane.drain(5))
        await load.goes_on()
        await draining
        await eventually(lambda: len({running for running in sharing.alive if running.owns}) == 1)
        await load.goes_on()
    await load.stop()
    exact(load, *replicas)
    assert load.failed == []


@pytest.mark.parametrize("count", [2, 3])
async def test_an_owner_that_dies_is_replaced_within_3_s_and_only_what_it_had_begun_is_lost(
    make_sharing: MakeSharing, make_replica: MakeReplica, count: int
) -> None:
    replicas = [await make_replica() for _ in range(2)]
    for replica in replicas:
        replica.handler = briefly
    sharing = await make_sharing(count, *replicas)
    load = Load()
    survivors = sharing.others
    load.start([running.port for running in survivors], 6)
    await load.goes_on()
    died_s = monotonic()
    await sharing.owner.die()
    before = len(load.answered)
    await load.goes_on(20)
    assert load.answered[before][0] - died_s < TAKEOVER_S
    await load.stop()
    exact(load, *replicas)
    # At most one on each replica was under way.
    assert len(load.failed) <= len(replicas)
    assert all("replica_lost" in text for text in load.failed)


async def test_requests_that_wait_at_an_owner_that_dies_are_served_by_the_next(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    sharing = await make_sharing(2, replica)
    async with AsyncExitStack() as stack:
        first = await send(stack, sharing.others[0], "/0")
        await eventually(lambda: replica.working == 1)
        waiting = [await send(stack, sharing.others[0], f"/{number}") for number in range(1, 6)]
        await eventually(lambda: len(sharing.owner.endpoint.queue) == 5)
        await sharing.owner.die()
        assert (await first.answer()).status == 502
        gate.open(6)
        for number, client in enumerate(waiting, start=1):
            assert (await client.answer()).body == f"/{number}".encode()
    assert sorted(seen.target for seen in replica.seen) == [f"/{number}" for number in range(6)]


async def test_a_new_owner_takes_the_slots_of_the_old_one_for_used_until_they_are_free(
    make_sharing: MakeSharing, make_replica: MakeReplica
) -> None:
    replicas = [await make_replica() for _ in range(2)]
    gates = [Gate(), Gate()]
    for replica, gate in zip(replicas, gates, strict=True):
        replica.handler = gate
    sharing = await make_sharing(1, *replicas)
    old = sharing.planes[0]
    async with AsyncExitStack() as stack:
        open_one = await send(stack, old, "/stream")
        await eventually(lambda: sum(replica.working for replica in replicas) == 1)
        busy, free = sorted((0, 1), key=lambda number: -replicas[number].working)
        await sharing.add(owner=True)
        await sharing.settled()
        assert not old.owns
        await eventually(lambda: sharing.owner.shared.in_flight == 1)
        assert sharing.owner.shared.busy_replicas == (f"rep_{replicas[busy].port}",)
        assert old.shared.in_flight == 0
        # Both through the old one: the first is forwarded and runs on the free replica, the second waits.
        clients = [await send(stack, old, f"/{number}") for number in range(2)]
        await eventually(lambda: replicas[free].working == 1 and len(sharing.owner.endpoint.queue) == 1)
        assert (replicas[busy].working, old.shared.leftover) == (1, {f"rep_{replicas[busy].port}": 1})
        gates[busy].open(2)
        assert (await open_one.answer()).body == b"/stream"
        assert (await clients[1].answer()).body == b"/1"
        gates[free].open()
        assert (await clients[0].answer()).body == b"/0"
    assert [replica.working_max for replica in replicas] == [1, 1]
    assert sharing.owner.endpoint.stats.statuses == {200: 2}
    assert old.endpoint.stats.statuses == {200: 1}


async def test_who_waits_at_the_old_owner_goes_to_the_new_one(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    sharing = await make_sharing(2, replica)
    leaving, staying = sharing.owner, sharing.others[0]
    async with AsyncExitStack() as stack:
        first = await send(stack, leaving, "/0")
        await eventually(lambda: replica.working == 1)
        # Some of its own clients, some that were forwarded to it.
        clients = [await send(stack, running, f"/{number}") for number, running in ((1, leaving), (2, staying))]
        await eventually(lambda: len(leaving.endpoint.queue) == 2)
        leaving.cluster.leave()
        await eventually(lambda: staying.owns and len(staying.endpoint.queue) == 2)
        assert replica.working_max == 1
        gate.open(3)
        for number, client in enumerate((first, *clients)):
            assert (await client.answer()).body == f"/{number}".encode()
    assert replica.working_max == 1
    assert leaving.endpoint.stats.statuses == {200: 1}
    assert staying.endpoint.stats.statuses == {200: 2}


async def test_a_long_body_that_waits_when_the_owner_changes_is_sent_back_to_its_client(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    sharing = await make_sharing(2, replica, settings={"held_bytes_max": 1000})
    leaving, staying = sharing.owner, sharing.others[0]
    async with AsyncExitStack() as stack:
        first = await send(stack, leaving, "/0")
        await eventually(lambda: replica.working == 1)
        client = await stack.enter_async_context(staying.client())
        await client.send(b"POST /1 HTTP/1.1\r\n" + FIELDS + b"Content-Length: 9000\r\n\r\n" + b"x" * 5000)
        await eventually(lambda: len(leaving.endpoint.queue) == 1)
        leaving.cluster.leave()
        answer = await client.answer()
        assert (answer.status, answer.json()["code"]) == (503, "owner_changed")
        assert answer.one("Retry-After") == "1"
        gate.open()
        assert (await first.answer()).status == 200


# --- without NATS -----------------------------------------------------------------------------


async def test_without_nats_the_gateways_ask_each_other_and_nothing_changes(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    replica.handler = briefly
    sharing = await make_sharing(2, replica)
    owner = sharing.owner
    load = Load()
    load.start([running.port for running in sharing.planes], 2)
    sharing.bus = False
    began_s = monotonic()
    while monotonic() - began_s < TAKEOVER_S:
        await load.goes_on(20)
        assert sharing.owner is owner
        assert len(owner.cluster._members) == 2
    await load.stop()
    exact(load, replica)
    assert load.failed == []
    survivor = sharing.others[0]
    died_s = monotonic()
    await owner.die()
    await eventually(lambda: survivor.owns and survivor.cluster._may_start, TAKEOVER_S)
    assert monotonic() - died_s < TAKEOVER_S
    async with survivor.client() as client:
        assert (await client.request("POST", "/x", body=b"{}")).status == 200
