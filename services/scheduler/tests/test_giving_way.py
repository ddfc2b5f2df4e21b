"""Idle replicas make room for endpoints that wait, and only they."""

from typing import Any

import pytest

from penstock_common.contracts.events import EndpointIdle, EndpointScaled
from penstock_scheduler.domain import EndpointRecord, Replica, Snapshot
from penstock_scheduler.planning import plan

from .builders import RTX, T0, at, demand, endpoint, host, replica, snapshot, spec
from .world import World


@pytest.fixture
def world() -> World:
    found = World()
    found.join("host-a")
    return found


def fill(world: World, *, least: int = 0) -> None:
    """`ep_1` runs on all four GPUs, and its autoscaler says that none of the replicas works."""
    world.create("ep_1", spec(1, replicas=least, most=4))
    world.ready("ep_1")
    world.scale("ep_1", 4)
    world.ready("ep_1")
    world.scale("ep_1", 4)


def finish(world: World, endpoint_id: str = "ep_1") -> None:
    """The autoscaler sees the drains and says that all is done there; the hosts stop what they are told to."""
    route = world.store.routes[endpoint_id]
    world.scale(endpoint_id, route.desired_replicas)
    world.advance(1)
    world.obey()


def test_an_idle_replica_makes_room_for_an_endpoint_that_waits(world: World) -> None:
    fill(world)
    newest = world.live("ep_1")[-1]
    world.create("ep_2", spec(1))
    assert (world.state("ep_2"), world.record("ep_2").position) == ("queued", 1)
    route = world.store.routes["ep_1"]
    assert [each.replica_id for each in route.replicas if each.draining] == [newest.replica_id]
    assert route.desired_replicas == 3
    assert world.facts(EndpointScaled)[-1].reason == "an idle replica makes room for an endpoint that waits"
    finish(world)
    assert world.state("ep_2") == "starting"
    assert (world.state("ep_1"), world.record("ep_1").reason, len(world.live("ep_1"))) == ("running", "", 3)


def test_no_more_replicas_end_than_are_in_the_way(world: World) -> None:
    fill(world)
    world.create("ep_2", spec(2))
    world.advance(10)
    assert world.store.routes["ep_1"].desired_replicas == 2
    finish(world)
    assert (world.state("ep_2"), len(world.live("ep_1"))) == ("starting", 2)


def test_what_must_run_never_gives_way(world: World) -> None:
    fill(world, least=3)
    world.create("ep_2", spec(2))
    assert world.store.routes["ep_1"].desired_replicas == 4
    world.create("ep_3", spec(1))
    assert world.store.routes["ep_1"].desired_replicas == 3


def test_a_scheduled_minimum_never_gives_way(world: World) -> None:
    fill(world)
    world.scale("ep_1", 4, minimum=4)
    world.create("ep_2", spec(1))
    assert world.store.routes["ep_1"].desired_replicas == 4


def test_a_replica_that_works_does_not_give_way(world: World) -> None:
    fill(world)
    working = tuple(each.replica_id for each in world.live("ep_1")[1:])
    world.scale("ep_1", 4, busy=working)
    world.create("ep_2", spec(2))
    assert world.store.routes["ep_1"].desired_replicas == 4
    world.create("ep_3", spec(1))
    [drained] = [each for each in world.store.routes["ep_1"].replicas if each.draining]
    assert drained.replica_id not in working


def test_a_replica_that_became_ready_after_the_last_word_does_not_give_way(world: World) -> None:
    world.create("ep_1", spec(4, replicas=0))
    world.scale("ep_1", 1)
    world.ready("ep_1")
    world.create("ep_2", spec(4))
    assert world.store.routes["ep_1"].desired_replicas == 1
    world.scale("ep_1", 1)
    assert world.store.routes["ep_1"].desired_replicas == 0


def test_old_knowledge_moves_nobody_and_new_knowledge_does(world: World) -> None:
    fill(world)
    world.advance(15.25)
    world.create("ep_2", spec(1))
    world.advance(5)
    assert world.store.routes["ep_1"].desired_replicas == 4
    world.scale("ep_1", 4)
    assert world.store.routes["ep_1"].desired_replicas == 3


def test_the_last_replica_gives_way_too_and_its_endpoint_sleeps(world: World) -> None:
    world.create("ep_1", spec(4, replicas=0))
    world.ready("ep_1")
    world.scale("ep_1", 1)
    world.create("ep_2", spec(4))
    finish(world)
    assert (world.state("ep_1"), world.state("ep_2")) == ("idle", "starting")
    assert len(world.facts(EndpointIdle)) == 1


def test_who_gave_way_comes_after_those_it_gave_way_to(world: World) -> None:
    world.create("ep_1", spec(4, replicas=0))
    world.ready("ep_1")
    world.scale("ep_1", 1)
    world.advance(5)
    world.create("ep_2", spec(4, replicas=0))
    world.advance(1)
    world.scale("ep_1", 1)  # a request came while it drains, and the room is promised
    assert (world.state("ep_1"), world.record("ep_1").position) == ("queued", 2)
    assert all(each.draining for each in world.store.routes["ep_1"].replicas)
    finish(world)
    assert (world.state("ep_1"), world.state("ep_2")) == ("queued", "starting")
    world.ready("ep_2")
    assert world.record("ep_1").position == 1
    world.scale("ep_2", 1)  # once it has nothing to do, it is its turn to give way
    finish(world, "ep_2")
    assert (world.state("ep_1"), world.state("ep_2")) == ("starting", "idle")


def test_a_replica_that_gives_way_is_not_brought_back(world: World) -> None:
    fill(world)
    newest = world.live("ep_1")[-1]
    world.create("ep_2", spec(1))
    world.scale("ep_1", 4, busy=(newest.replica_id,))
    route = world.store.routes["ep_1"]
    assert [each.replica_id for each in route.replicas if each.draining] == [newest.replica_id]
    assert route.shortage == "3 of 4 replicas run; no host has a free RTX 4090 for more"
    world.advance(300)
    world.obey()
    assert world.state("ep_2") == "starting"
    assert len(world.live("ep_1")) == 3


def test_extra_replicas_move_nobody(world: World) -> None:
    fill(world)
    world.create("ep_2", spec(1, replicas=0, most=4))
    finish(world)
    world.scale("ep_2", 4)
    world.scale("ep_1", 3)
    world.advance(5)
    assert [len(world.live(each)) for each in ("ep_1", "ep_2")] == [3, 1]


# --- plans alone ----------------------------------------------------------------------------


def gpu(number: int, host_id: str = "host-a") -> str:
    return f"{host_id}-{RTX}-{number}"


def holder(endpoint_id: str, *numbers: int, host_id: str = "host-a", **fields: object) -> Replica:
    gpu_uuids = tuple(gpu(number, host_id) for number in numbers)
    return replica(endpoint_id, host_id, demand(len(numbers)), gpu_uuids=gpu_uuids, **fields)


def idle(endpoint_id: str, *replicas: Replica, **fields: Any) -> EndpointRecord:
    """It runs, may sleep, and none of the replicas works."""
    given: dict[str, Any] = {
        "state": "running",
        "generation": len(replicas),
        "desired_replicas": len(replicas),
        "required_replicas": 0,
        "idle_replicas": tuple(each.replica_id for each in replicas),
        "idle_told_at": T0,
        **fields,
    }
    return endpoint(endpoint_id, replicas[0].demand, **given)


def giving(asked: Snapshot, seconds: float = 1) -> list[str]:
    return [given.replica_id for given in plan(asked, at(seconds)).giving_way]


def test_the_fewest_gpus_in_use_are_taken() -> None:
    big, small = holder("ep_big", 0, 1, 2, 3), holder("ep_small", 0, 1, host_id="host-b")
    rest = holder("ep_rest", 2, 3, host_id="host-b")
    given = snapshot(
        [host("host-a"), host("host-b")],
        [idle("ep_big", big), idle("ep_small", small), endpoint("ep_rest", state="running"), endpoint("ep", demand(2))],
        [big, small, rest],
    )
    assert giving(given) == [small.replica_id]


def test_replicas_that_turn_out_not_to_be_needed_stay() -> None:
    one, two = holder("ep_one", 0, scheduled_at=at(3)), holder("ep_two", 1, 2, scheduled_at=at(2))
    other = holder("ep_other", 3)
    given = snapshot(
        [host()],
        [idle("ep_one", one), idle("ep_two", two), endpoint("ep_other", state="running"), endpoint("ep", demand(2))],
        [one, two, other],
    )
    assert giving(given) == [two.replica_id]


def test_room_that_is_about_to_be_free_is_waited_for() -> None:
    leaving, known = holder("ep_leaving", 0, 1, unassign_at=at(2)), holder("ep_idle", 2, 3)
    given = snapshot([host()], [idle("ep_idle", known), endpoint("ep", demand(2))], [leaving, known])
    assert giving(given) == []


def test_a_long_drain_is_not_waited_for() -> None:
    drained = holder("ep_drains", 0, 1, unassign_at=at(300), drain_version=3)
    known = holder("ep_idle", 2, 3)
    told = idle("ep_idle", known, idle_told_at=at(10))
    given = snapshot([host()], [told, endpoint("ep", demand(2))], [drained, known], listening_since=at(10))
    assert giving(given, 14) == []
    assert plan(given, at(14)).wake_at == at(15)
    assert giving(given, 15) == [known.replica_id]


def test_nobody_gives_way_where_it_would_not_help() -> None:
    known, works = holder("ep_idle", 0), holder("ep_works", 1, 2, 3)
    given = snapshot(
        [host()],
        [idle("ep_idle", known), endpoint("ep_works", state="running"), endpoint("ep", demand(2))],
        [known, works],
    )
    assert giving(given) == []


def test_nobody_gives_way_to_one_that_waits_after_a_crash() -> None:
    known = holder("ep_idle", 0, 1, 2, 3)
    crashed = endpoint("ep", demand(4), state="starting", next_start_at=at(9))
    given = snapshot([host()], [idle("ep_idle", known, idle_told_at=at(5)), crashed], [known])
    assert giving(given, 6) == []


def test_two_that_wait_get_room_in_one_plan() -> None:
    replicas = [holder("ep_idle", number, generation=number + 1) for number in range(4)]
    waiting = [endpoint(f"ep_{number}", demand(1), after_s=number) for number in range(2)]
    given = snapshot([host()], [idle("ep_idle", *replicas), *waiting], replicas)
    assert len(giving(given)) == 2


def test_cores_are_made_free_as_gpus_are() -> None:
    known = replica("ep_idle", needs=demand(cpu_cores=10))
    given = snapshot([host()], [idle("ep_idle", known), endpoint("ep", demand(1, cpu_cores=8))], [known])
    assert giving(given) == [known.replica_id]


def test_nothing_on_a_host_that_takes_nothing_new_gives_way() -> None:
    known = holder("ep_idle", 0, 1, 2, 3)
    given = snapshot([host(fenced=True)], [idle("ep_idle", known), endpoint("ep", demand(4))], [known])
    assert giving(given) == []
