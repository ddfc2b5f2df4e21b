"""Timelines: the number of replicas follows the autoscaler's wishes."""

from datetime import timedelta

import pytest

from penstock_common.contracts.events import (
    EndpointQueued,
    EndpointRunning,
    EndpointScaled,
    ReplicaEnded,
    ReplicaScheduled,
)
from penstock_common.contracts.records import RouteReplica
from penstock_scheduler.domain import Policy

from .builders import at, spec
from .world import World, drains, ids, running


@pytest.fixture
def world() -> World:
    found = World()
    found.join("host-a")
    return found


# --- up -------------------------------------------------------------------------------------


def test_a_new_endpoint_that_may_sleep_starts_with_one_replica(world: World) -> None:
    world.create("ep_1", spec(1, replicas=0, most=4))
    world.create("ep_2", spec(1, replicas=2, most=4))
    assert [len(world.live(each)) for each in ("ep_1", "ep_2")] == [1, 2]
    assert [world.store.routes[each].desired_replicas for each in ("ep_1", "ep_2")] == [1, 2]


def test_a_wish_for_more_places_more_and_is_told_with_its_reason(world: World) -> None:
    running(world)
    reply = world.scale("ep_1", 3, reason="8 requests wait for 1 replica")
    assert (reply.accepted, reply.desired_replicas, reply.reason) == (True, 3, "")
    assert reply.version == world.store.routes["ep_1"].version
    assert [each.generation for each in world.live("ep_1")] == [1, 2, 3]
    [told] = world.facts(EndpointScaled)
    assert (told.desired_replicas, told.ready_replicas, told.reason) == (3, 1, "8 requests wait for 1 replica")
    assert (world.state("ep_1"), world.record("ep_1").reason) == ("running", "1 of 3 replicas are ready")
    world.ready("ep_1")
    assert (world.record("ep_1").reason, len(world.store.routes["ep_1"].replicas)) == ("", 3)


def test_the_same_wish_again_changes_nothing(world: World) -> None:
    running(world)
    world.scale("ep_1", 3)
    told, record = list(world.store.facts), world.record("ep_1")
    for _ in range(100):
        assert world.scale("ep_1", 3).accepted
    assert (world.store.facts, world.record("ep_1")) == (told, record)


def test_a_wish_is_kept_within_the_limits(world: World) -> None:
    running(world, least=1, most=3)
    assert world.scale("ep_1", 64).desired_replicas == 3
    assert world.scale("ep_1", 0).desired_replicas == 1
    assert world.scale("ep_1", 2, minimum=64).desired_replicas == 2
    assert world.record("ep_1").required_replicas == 2


def test_a_wish_from_an_older_route_is_refused(world: World) -> None:
    running(world)
    old = world.store.routes["ep_1"].version
    assert world.scale("ep_1", 2).accepted
    told = list(world.store.facts)
    reply = world.scale("ep_1", 4, route_version=old)
    assert (reply.accepted, reply.desired_replicas) == (False, 2)
    assert reply.version == world.store.routes["ep_1"].version
    assert reply.reason.endswith("decide anew")
    assert world.store.facts == told
    assert world.scale("ep_1", 4, route_version=reply.version).accepted


def test_facts_that_change_no_route_make_no_wish_too_old(world: World) -> None:
    running(world)
    world.scale("ep_1", 2)
    seen = world.store.routes["ep_1"].version
    [new] = [each for each in world.live("ep_1") if each.phase != "ready"]
    world.report(new, "fetching")
    world.report(new, "installing")
    assert world.record("ep_1").version > seen
    assert world.scale("ep_1", 3, route_version=seen).accepted


def test_a_changed_reason_makes_no_wish_too_old(world: World) -> None:
    world.create("ep_0", spec(3))
    running(world)
    reply = world.scale("ep_1", 2)
    route = world.store.routes["ep_1"]
    assert (route.version > reply.version, route.shortage != "") == (True, True)
    assert world.scale("ep_1", 3, route_version=reply.version).accepted


@pytest.mark.parametrize("kind", ["stop", "terminate"])
def test_an_endpoint_that_does_not_run_is_not_scaled(world: World, kind: str) -> None:
    running(world)
    world.ask(kind, "ep_1")  # type: ignore[arg-type]
    reply = world.scale("ep_1", 3)
    assert (reply.accepted, reply.desired_replicas) == (False, 0)
    assert reply.reason.startswith(f"the endpoint is {world.state('ep_1')}")
    world.advance(2)
    world.obey()
    assert world.live("ep_1") == []


def test_a_failed_endpoint_is_not_scaled(world: World) -> None:
    world.create("ep_1", spec(1, replicas=0))
    for _ in range(3):
        world.crash("ep_1")
        world.advance(5)
    assert world.state("ep_1") == "failed"
    assert not world.scale("ep_1", 1).accepted
    assert world.store.routes["ep_1"].desired_replicas == 0


def test_a_stopped_endpoint_restarts_with_what_it_must_have(world: World) -> None:
    running(world, replicas=3)
    world.ask("stop", "ep_1")
    world.advance(1)
    world.obey()
    world.ask("restart", "ep_1")
    assert len(world.live("ep_1")) == 1


# --- more than there is room for ------------------------------------------------------------


def test_what_fits_is_placed_and_the_shortage_is_said(world: World) -> None:
    world.create("ep_0", spec(1))
    world.ready("ep_0")
    running(world, replicas=5, most=5)
    text = "3 of 5 replicas run; no host has a free RTX 4090 for more"
    route = world.store.routes["ep_1"]
    assert (world.state("ep_1"), route.reason, route.shortage, route.desired_replicas) == ("running", text, text, 5)
    assert world.scale("ep_1", 5).reason == text
    assert world.facts(EndpointRunning)[-1].reason == text
    told = list(world.store.facts)
    world.advance(30)
    assert world.store.facts == told


def test_more_start_by_themselves_when_room_frees(world: World) -> None:
    world.create("ep_0", spec(2))
    world.ready("ep_0")
    running(world, replicas=4)
    assert world.store.routes["ep_1"].shortage.startswith("2 of 4 replicas run; no host has a free RTX 4090")
    world.ask("terminate", "ep_0")
    world.advance(1)
    world.obey()
    assert len(world.live("ep_1")) == 4
    assert (world.store.routes["ep_1"].shortage, world.record("ep_1").reason) == ("", "2 of 4 replicas are ready")
    world.ready("ep_1")
    assert world.record("ep_1").reason == ""
    assert {fact.reason for fact in world.facts(EndpointQueued) if fact.endpoint_id == "ep_1"} == set()
    assert world.state("ep_1") == "running"


def test_a_shortage_ends_when_fewer_are_desired(world: World) -> None:
    world.create("ep_0", spec(3))
    running(world, replicas=2)
    assert world.store.routes["ep_1"].shortage
    world.scale("ep_1", 1)
    assert (world.store.routes["ep_1"].shortage, world.record("ep_1").reason) == ("", "")


@pytest.mark.parametrize(
    ("wanted", "shortage"),
    [
        (spec(2, replicas=0, most=4), "2 of 4 replicas run; no host has 2 free RTX 4090 for more"),
        (
            spec(cpu_cores=6, replicas=0, most=4),
            "2 of 4 replicas run; no host has 6 CPU cores, 2 GB of memory and 10 GB of disk free for more",
        ),
        (
            spec(1, memory_gb=30, replicas=0, most=4),
            "2 of 4 replicas run; no host with 1 × RTX 4090 free has 1 CPU core, 30 GB of memory and 10 GB of disk"
            " free for more",
        ),
    ],
)
def test_a_shortage_says_what_is_missing(world: World, wanted: object, shortage: str) -> None:
    world.create("ep_1", wanted)  # type: ignore[arg-type]
    world.scale("ep_1", 4)
    world.ready("ep_1")
    assert world.store.routes["ep_1"].shortage == shortage


def test_extra_replicas_come_after_endpoints_that_have_none(world: World) -> None:
    running(world)
    world.create("ep_0", spec(3))
    world.scale("ep_1", 3, busy=ids(world.live("ep_1")))
    world.create("ep_2", spec(1))
    world.create("ep_3", spec(1))
    world.ask("terminate", "ep_0")
    world.obey()
    assert [len(world.live(each)) for each in ("ep_1", "ep_2", "ep_3")] == [2, 1, 1]


def test_what_must_run_keeps_its_place_in_the_queue(world: World) -> None:
    running(world)
    world.create("ep_0", spec(3))
    world.scale("ep_1", 4, minimum=4)
    world.create("ep_2", spec(1))
    world.ask("terminate", "ep_0")
    world.obey()
    assert [len(world.live(each)) for each in ("ep_1", "ep_2")] == [4, 0]


def test_extra_replicas_go_first_to_whoever_has_the_fewest(world: World) -> None:
    running(world, replicas=2)
    world.create("ep_2", spec(1, replicas=0, most=4))
    world.create("ep_3", spec(1))
    world.scale("ep_1", 4)
    world.scale("ep_2", 4)
    world.ask("terminate", "ep_3")
    world.obey()
    assert [len(world.live(each)) for each in ("ep_1", "ep_2")] == [2, 2]


# --- down -----------------------------------------------------------------------------------


def test_a_wish_for_fewer_drains_the_newest_that_are_idle(world: World) -> None:
    running(world, replicas=4)
    one, two, three, four = ids(world.live("ep_1"))
    world.scale("ep_1", 2, busy=(one, four))
    assert drains(world) == sorted([two, three])
    assert world.record("ep_1").reason == ""
    [*_, told] = world.facts(EndpointScaled)
    assert (told.desired_replicas, told.ready_replicas) == (2, 2)
    world.scale("ep_1", 1, busy=(one, two, three, four))
    assert drains(world) == sorted([two, three, four])


def test_a_replica_that_works_goes_only_when_no_other_is_left(world: World) -> None:
    running(world, replicas=3)
    one, two, three = ids(world.live("ep_1"))
    world.scale("ep_1", 1, busy=(two, three))
    assert drains(world) == sorted([one, three])


def test_a_replica_that_is_not_ready_goes_first_and_at_once(world: World) -> None:
    running(world, replicas=2)
    world.scale("ep_1", 3)
    new = world.live("ep_1")[-1]
    world.scale("ep_1", 2)
    assert drains(world) == []
    assert world.store.all_replicas[new.replica_id].unassigned_at == at(0)
    world.obey()
    assert len(world.live("ep_1")) == 2
    assert (world.state("ep_1"), world.record("ep_1").crash_streak) == ("running", 0)


def test_a_drained_replica_ends_once_it_is_said_to_be_done(world: World) -> None:
    running(world, replicas=2)
    first, second = world.live("ep_1")
    world.scale("ep_1", 1, busy=(first.replica_id, second.replica_id))
    assert drains(world) == [second.replica_id]
    world.advance(60)
    world.scale("ep_1", 1, busy=(second.replica_id,))
    world.advance(60)
    assert drains(world) == [second.replica_id]
    world.scale("ep_1", 1)
    assert [each.replica_id for each in world.store.routes["ep_1"].replicas] == [first.replica_id]
    assert len(world.store.assignments) == 2
    world.advance(1)
    assert len(world.store.assignments) == 1
    world.obey()
    [ended] = world.facts(ReplicaEnded)
    assert (ended.replica_id, ended.cause, ended.at) == (second.replica_id, "stopped", at(121))
    assert (world.state("ep_1"), world.record("ep_1").reason) == ("running", "")
    assert len(world.facts(ReplicaScheduled)) == 2


def test_who_did_not_know_of_the_drain_cannot_say_that_it_is_done(world: World) -> None:
    running(world, replicas=2)
    world.scale("ep_1", 1, busy=ids(world.live("ep_1")))
    before = world.store.routes["ep_1"].version - 1
    assert not world.scale("ep_1", 1, route_version=before).accepted
    world.advance(2)
    assert len(drains(world)) == 1


def test_a_replica_that_never_finishes_is_ended_at_the_limit(world: World) -> None:
    running(world, replicas=2)
    world.scale("ep_1", 1, busy=ids(world.live("ep_1")))
    world.advance(299.75)
    assert len(world.store.assignments) == 2
    world.advance(0.25)
    assert len(world.store.assignments) == 1
    assert (drains(world), len(world.store.routes["ep_1"].replicas)) == ([], 1)


def test_the_drain_limit_is_a_setting() -> None:
    world = World(Policy(drain_limit=timedelta(seconds=20)))
    world.join("host-a")
    running(world, replicas=2)
    world.scale("ep_1", 1, busy=ids(world.live("ep_1")))
    world.advance(20)
    assert len(world.store.assignments) == 1


def test_a_wish_for_more_brings_back_what_drains_before_anything_is_placed(world: World) -> None:
    running(world, replicas=3)
    one, two, three = ids(world.live("ep_1"))
    world.scale("ep_1", 1, busy=(one, two, three))
    assert drains(world) == sorted([two, three])
    world.scale("ep_1", 2, busy=(one, two, three))
    assert drains(world) == [three]
    world.advance(2)
    world.scale("ep_1", 4, busy=(one, two, three))
    assert drains(world) == []
    assert len(world.live("ep_1")) == 4
    assert len(world.facts(ReplicaScheduled)) == 4
    assert not world.facts(ReplicaEnded)


def test_a_replica_that_drains_takes_the_place_of_one_that_crashed(world: World) -> None:
    running(world, replicas=2)
    first, second = world.live("ep_1")
    world.scale("ep_1", 1, busy=ids([first, second]))
    world.report(first, "failed", cause="crashed", exit_code=1)
    assert world.state("ep_1") == "starting"
    assert world.store.routes["ep_1"].replicas == (
        RouteReplica(replica_id=second.replica_id, address="127.0.0.1:9002", draining=True),
    )
    world.scale("ep_1", 1, busy=(second.replica_id,))
    assert (world.state("ep_1"), drains(world)) == ("running", [])
    world.advance(5)
    assert ids(world.live("ep_1")) == [second.replica_id]


def test_the_end_of_a_replica_that_drains_is_no_crash(world: World) -> None:
    running(world, replicas=2)
    _, second = world.live("ep_1")
    world.scale("ep_1", 1, busy=ids(world.live("ep_1")))
    world.report(second, "failed", cause="crashed", exit_code=137)
    assert (world.state("ep_1"), world.record("ep_1").reason, world.record("ep_1").crash_streak) == ("running", "", 0)
    world.advance(5)
    assert len(world.live("ep_1")) == 1


def test_stopping_waits_for_no_drain(world: World) -> None:
    running(world, replicas=2)
    world.scale("ep_1", 1, busy=ids(world.live("ep_1")))
    world.ask("stop", "ep_1")
    assert world.store.routes["ep_1"].replicas == ()
    world.advance(1)
    assert world.store.assignments == {}
    world.obey()
    assert world.state("ep_1") == "stopped"
