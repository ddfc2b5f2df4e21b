"""When a replica ended, whoever was away at that time."""

from datetime import datetime

import pytest

from penstock_common.contracts.events import ReplicaEnded, ReplicaPhase, ReplicaReported
from penstock_scheduler.domain import Replica

from .builders import at, report, spec
from .world import World


@pytest.fixture
def world() -> World:
    """An endpoint ready since 1 s, heard of every 2 s until 20 s."""
    made = World()
    made.join()
    made.advance(1)
    made.create("ep_1", spec(1))
    made.ready("ep_1")
    made.advance(19)
    return made


def crash(placed: Replica) -> ReplicaReported:
    return report(placed, 2, "failed", cause="crashed", exit_code=-9)


def beat_with(world: World, said: ReplicaReported) -> None:
    """A heartbeat that tells what no report told yet."""
    world.hosts["host-a"].reports[said.replica_id] = said
    world.beat("host-a")


def ended_at(world: World) -> datetime:
    [ended] = world.facts(ReplicaEnded)
    return ended.at


def test_a_report_handled_at_once_tells_of_an_end_now(world: World) -> None:
    world.advance(1.5)
    world.crash("ep_1")
    assert ended_at(world) == at(21.5)


def test_what_ended_while_the_scheduler_was_away_ended_when_nats_heard_of_it(world: World) -> None:
    placed = world.only("ep_1")
    world.stand_still(40)
    world.restart_scheduler()
    world.hear_report(crash(placed), waited_s=25)
    assert ended_at(world) == at(35)


@pytest.mark.parametrize("cause", ["stopped", "host_left", "out_of_memory", "unresponsive"])
def test_every_cause_is_dated_alike(world: World, cause: str) -> None:
    placed = world.only("ep_1")
    world.stand_still(40)
    world.restart_scheduler()
    phase: ReplicaPhase = "stopped" if cause in ("stopped", "host_left") else "failed"
    world.hear_report(report(placed, 2, phase, cause=cause), waited_s=25)
    assert ended_at(world) == at(35)


def test_what_ended_while_the_scheduler_stood_still_ended_when_nats_heard_of_it(world: World) -> None:
    placed = world.only("ep_1")
    world.stand_still(40)
    world.heartbeats.stay_awake(world.elapsed_s)
    world.beat("host-a")  # sent before the end, and kept in the socket
    world.hear_report(crash(placed), waited_s=25)
    assert ended_at(world) == at(35)


def test_what_ended_while_the_database_was_away_ended_when_nats_heard_of_it(world: World) -> None:
    placed = world.only("ep_1")
    world.advance(1)
    world.hosts["host-a"].up = False  # as no heartbeat can be handled
    for _ in range(30):
        world.stand_still(1)
        world.heartbeats.stay_awake(world.elapsed_s)
    world.hear_report(crash(placed), waited_s=29)
    assert ended_at(world) == at(22)


def test_what_ended_while_nats_was_away_ended_when_its_host_was_last_heard(world: World) -> None:
    world.connected = False
    world.advance(40)
    world.connected = True
    world.crash("ep_1")
    assert ended_at(world) == at(20)


def test_two_heartbeats_that_are_missing_are_no_silence(world: World) -> None:
    world.connected = False
    world.advance(5)
    world.connected = True
    world.crash("ep_1")
    assert ended_at(world) == at(25)


def test_a_heartbeat_that_tells_an_end_after_nats_was_away(world: World) -> None:
    placed = world.only("ep_1")
    world.connected = False
    world.advance(40)
    world.connected = True
    beat_with(world, crash(placed))
    assert ended_at(world) == at(20)


def test_a_heartbeat_that_tells_an_end_after_the_scheduler_was_away(world: World) -> None:
    placed = world.only("ep_1")
    world.stand_still(40)
    world.restart_scheduler()
    beat_with(world, crash(placed))
    assert ended_at(world) == at(20)


def test_a_heartbeat_from_before_the_end_that_was_held_up_is_no_sign_of_life(world: World) -> None:
    placed = world.only("ep_1")
    world.stand_still(40)
    world.heartbeats.stay_awake(world.elapsed_s)
    world.beat("host-a")
    beat_with(world, crash(placed))
    assert ended_at(world) == at(20)


def test_a_heartbeat_that_comes_before_the_report_tells_of_an_end_now(world: World) -> None:
    world.advance(1)
    beat_with(world, crash(world.only("ep_1")))
    assert ended_at(world) == at(21)


def test_an_end_heard_late_by_heartbeat_is_billed_to_when_its_host_saw_it(world: World) -> None:
    placed = world.only("ep_1")
    world.stand_still(4)
    beat_with(world, crash(placed).model_copy(update={"age_s": 3.0}))
    assert ended_at(world) == at(21)


def test_an_age_that_cannot_be_changes_nothing_before_the_replica_was_heard_to_run(world: World) -> None:
    placed = world.only("ep_1")
    world.stand_still(4)
    beat_with(world, crash(placed).model_copy(update={"age_s": 3600.0}))
    assert ended_at(world) == at(20)


def test_what_became_ready_and_ended_while_nobody_looked_costs_nothing() -> None:
    world = World()
    world.join()
    world.advance(1)
    world.create("ep_1", spec(1))
    placed = world.only("ep_1")
    world.stand_still(40)
    world.restart_scheduler()
    world.hear_report(report(placed, 1, "ready"), waited_s=30)
    world.hear_report(crash(placed), waited_s=20)
    assert world.facts(ReplicaEnded)[0].at == at(41)


def test_a_crash_long_after_which_nobody_looked_was_no_healthy_one(world: World) -> None:
    world.crash("ep_1")
    world.advance(2)
    world.ready("ep_1")
    placed = world.only("ep_1")
    world.stand_still(400)
    world.restart_scheduler()
    world.report(placed, "failed", cause="crashed", waited_s=399)
    assert world.record("ep_1").crash_streak == 2


def test_a_server_whose_clock_is_ahead_ends_nothing_before_it_began(world: World) -> None:
    world.hear_report(crash(world.only("ep_1")), waited_s=3600)
    assert ended_at(world) == at(1)
