"""Timelines: endpoints that nobody calls have no replicas, and wake up once."""

import pytest

from penstock_common.contracts.events import (
    EndpointIdle,
    EndpointScaled,
    EndpointStarting,
    ReplicaEnded,
    ReplicaScheduled,
)

from .builders import at, spec
from .world import World, drains, ids, running


@pytest.fixture
def world() -> World:
    found = World()
    found.join("host-a")
    return found


def asleep(world: World) -> None:
    """`ep_1` ran, and sleeps."""
    running(world)
    world.advance(10)
    world.scale("ep_1", 0)
    world.scale("ep_1", 0)
    world.advance(1)
    world.obey()
    assert world.state("ep_1") == "idle"


def test_the_last_replica_drains_and_ends_and_the_endpoint_sleeps(world: World) -> None:
    running(world)
    only = world.only("ep_1")
    world.advance(10)
    world.scale("ep_1", 0, busy=(only.replica_id,), reason="no request for 300 s")
    assert (world.state("ep_1"), drains(world)) == ("running", [only.replica_id])
    assert world.record("ep_1").reason == "it sleeps once its last requests are done"
    world.scale("ep_1", 0)
    world.advance(1)
    assert world.store.assignments == {}
    assert world.state("ep_1") == "running"
    world.obey()
    assert world.state("ep_1") == "idle"
    assert not world.store.reservations
    [fact] = world.facts(EndpointIdle)
    assert (fact.at, fact.reason) == (at(11), "it sleeps: a request wakes it")
    route = world.store.routes["ep_1"]
    assert (route.state, route.desired_replicas, route.idle_since, route.replicas) == ("idle", 0, at(11), ())
    [ended] = world.facts(ReplicaEnded)
    assert (ended.cause, ended.at, ended.was_ready) == ("stopped", at(11), True)
    world.advance(300)
    assert world.live("ep_1") == []


def test_a_minimum_of_one_never_sleeps(world: World) -> None:
    running(world, least=1)
    assert world.scale("ep_1", 0).desired_replicas == 1
    assert drains(world) == []


def test_a_thousand_wishes_wake_it_once(world: World) -> None:
    asleep(world)
    old = world.store.routes["ep_1"].version
    before = len(world.facts(ReplicaScheduled))
    replies = [world.scale("ep_1", 1, route_version=old, reason="a request came") for _ in range(1000)]
    assert sum(reply.accepted for reply in replies) == 1
    for _ in range(10):
        assert world.scale("ep_1", 1).accepted
    assert len(world.facts(ReplicaScheduled)) == before + 1
    assert [fact.reason for fact in world.facts(EndpointScaled)].count("a request came") == 1
    route = world.store.routes["ep_1"]
    assert (route.state, route.desired_replicas, route.idle_since) == ("starting", 1, None)
    world.ready("ep_1")
    assert world.state("ep_1") == "running"


def test_many_requests_wake_as_many_replicas_as_they_need(world: World) -> None:
    asleep(world)
    world.scale("ep_1", 3)
    assert len(world.live("ep_1")) == 3


def test_asking_a_sleeping_endpoint_to_sleep_changes_nothing(world: World) -> None:
    asleep(world)
    told = list(world.store.facts)
    assert world.scale("ep_1", 0).accepted
    assert world.store.facts == told


def test_who_wakes_without_room_waits_with_position_and_reason(world: World) -> None:
    asleep(world)
    world.create("ep_2", spec(4))
    world.create("ep_3", spec(4))
    world.advance(1)
    world.scale("ep_1", 1)
    record = world.record("ep_1")
    assert (record.state, record.position) == ("queued", 2)
    assert record.reason == ("needs 1 × RTX 4090 on one host; none is free, 4 are in use; second in line for RTX 4090")
    assert world.store.routes["ep_1"].reason == record.reason
    assert world.store.routes["ep_1"].shortage == ""


def test_who_gives_up_waiting_sleeps_again(world: World) -> None:
    asleep(world)
    world.create("ep_2", spec(4))
    world.scale("ep_1", 1)
    world.scale("ep_1", 0)
    assert (world.state("ep_1"), world.record("ep_1").position) == ("idle", None)
    assert len(world.facts(EndpointIdle)) == 2


def test_a_wish_for_none_while_it_starts_ends_the_start(world: World) -> None:
    world.create("ep_1", spec(1, replicas=0))
    world.scale("ep_1", 0)
    assert world.store.assignments == {}
    world.obey()
    assert world.state("ep_1") == "idle"
    assert not world.facts(ReplicaEnded)[0].was_ready


def test_a_request_brings_back_the_last_replica_while_it_drains(world: World) -> None:
    running(world)
    only = world.only("ep_1")
    world.scale("ep_1", 0, busy=(only.replica_id,))
    world.scale("ep_1", 1, busy=(only.replica_id,))
    assert (world.state("ep_1"), drains(world), world.record("ep_1").reason) == ("running", [], "")
    assert world.only("ep_1").replica_id == only.replica_id


def test_a_request_after_the_last_replica_left_the_route_starts_another(world: World) -> None:
    running(world)
    old = world.only("ep_1")
    world.scale("ep_1", 0)
    world.scale("ep_1", 0)
    world.scale("ep_1", 1)
    assert world.state("ep_1") == "starting"
    [new] = [each for each in world.live("ep_1") if not each.leaving]
    world.advance(1)
    world.obey()
    assert (world.state("ep_1"), ids(world.live("ep_1"))) == ("starting", [new.replica_id])
    assert world.facts(EndpointIdle) == []
    assert old.generation < new.generation


def test_a_request_after_that_waits_when_the_old_replica_still_holds_the_room(world: World) -> None:
    world.create("ep_1", spec(4, replicas=0))
    world.ready("ep_1")
    world.scale("ep_1", 0)
    world.scale("ep_1", 0)
    world.scale("ep_1", 1)
    assert (world.state("ep_1"), world.record("ep_1").position) == ("queued", 1)
    world.advance(1)
    world.obey()
    assert world.state("ep_1") == "starting"


@pytest.mark.parametrize(("kind", "state"), [("stop", "stopped"), ("terminate", "terminated"), ("restart", "starting")])
def test_requests_about_a_sleeping_endpoint(world: World, kind: str, state: str) -> None:
    asleep(world)
    world.ask(kind, "ep_1")  # type: ignore[arg-type]
    assert world.state("ep_1") == state
    assert world.record("ep_1").idle_since is None


def test_an_endpoint_stopped_while_it_slept_restarts(world: World) -> None:
    asleep(world)
    world.ask("stop", "ep_1")
    assert not world.scale("ep_1", 1).accepted
    world.ask("restart", "ep_1")
    assert (world.state("ep_1"), len(world.live("ep_1"))) == ("starting", 1)


def test_sleep_between_crashes_does_not_hide_them(world: World) -> None:
    world.create("ep_1", spec(1, replicas=0))
    for expected in ("starting", "starting", "failed"):
        world.crash("ep_1")
        assert world.state("ep_1") == expected
        world.scale("ep_1", 0)
        world.scale("ep_1", 1)
        world.advance(5)
    assert world.record("ep_1").crash_streak == 3


def test_the_wait_after_a_crash_is_not_slept_away(world: World) -> None:
    world.create("ep_1", spec(1, replicas=0))
    for _ in range(2):
        world.crash("ep_1")
        world.scale("ep_1", 0)
        assert world.state("ep_1") == "idle"
        world.scale("ep_1", 1)
        assert world.live("ep_1") == []
        world.advance(1.75)
    assert world.live("ep_1") == []
    world.advance(0.25)
    assert len(world.live("ep_1")) == 1
    assert world.facts(EndpointStarting)[-1].reason == "starting on host-a, attempt 3 of 3"


def test_a_replica_that_served_and_slept_forgives_earlier_crashes(world: World) -> None:
    world.create("ep_1", spec(1, replicas=0))
    for _ in range(2):
        world.crash("ep_1")
        world.advance(5)
    world.ready("ep_1")
    for _ in range(2):
        world.scale("ep_1", 0)
    world.advance(1)
    world.obey()
    assert (world.state("ep_1"), world.record("ep_1").crash_streak) == ("idle", 0)


def test_a_lost_host_sends_an_endpoint_that_is_going_to_sleep_to_sleep(world: World) -> None:
    running(world)
    world.scale("ep_1", 0, busy=ids(world.live("ep_1")))
    world.change_host("host-a", up=False)
    world.advance(12)
    assert world.state("ep_1") == "idle"
    assert world.facts(ReplicaEnded)[0].cause == "host_lost"
