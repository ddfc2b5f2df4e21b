"""Timelines: what users, hosts and time do to an endpoint."""

from datetime import timedelta

import pytest

from penstock_common.contracts.events import (
    EndpointFailed,
    EndpointQueued,
    EndpointRunning,
    EndpointStarting,
    EndpointTerminated,
    ReplicaEnded,
    ReplicaScheduled,
    ReplicaStarted,
)
from penstock_common.delivery.errors import Permanent
from penstock_scheduler.domain import Policy

from .builders import RTX, TRACEPARENT, at, inventory, spec
from .world import World


@pytest.fixture
def world() -> World:
    found = World()
    found.join("host-a")
    return found


def test_an_endpoint_goes_from_request_to_running(world: World) -> None:
    world.create("ep_1", spec(2))
    placed = world.only("ep_1")
    assert placed.gpu_uuids == (f"host-a-{RTX}-0", f"host-a-{RTX}-1")
    assignment = world.store.assignments[f"host-a.{placed.replica_id}"]
    assert (assignment.gpu_uuids, assignment.generation, assignment.traceparent) == (placed.gpu_uuids, 1, TRACEPARENT)
    assert world.store.routes["ep_1"].state == "starting"
    world.report(placed, "fetching", detail="fetching the source")
    world.report(placed, "installing")
    world.report(placed, "starting")
    world.advance(1)
    world.report(placed, "ready", address="127.0.0.1:9999")
    assert world.told("ep_1") == [
        "EndpointStarting",
        "ReplicaScheduled",
        "ReplicaProgressed",
        "ReplicaProgressed",
        "ReplicaProgressed",
        "ReplicaStarted",
        "EndpointRunning",
    ]
    [started] = world.facts(ReplicaStarted)
    assert (started.at, started.gpu_type, started.gpu_count, started.workspace_id) == (at(1), RTX, 2, "ws_a")
    route = world.store.routes["ep_1"]
    assert route.state == "running"
    assert [(each.replica_id, each.address) for each in route.replicas] == [(placed.replica_id, "127.0.0.1:9999")]
    assert [fact.version for fact in world.store.facts if hasattr(fact, "endpoint_id")] == list(range(1, 8))


def test_stopping_first_empties_the_route_then_the_assignments(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    placed = world.only("ep_1")
    world.advance(5)
    world.ask("stop", "ep_1")
    assert world.state("ep_1") == "stopping"
    assert world.store.routes["ep_1"].replicas == ()
    assert world.store.assignments
    world.advance(0.75)
    assert world.store.assignments
    world.advance(0.25)
    assert not world.store.assignments
    assert world.store.reservations
    world.advance(3)
    world.report(placed, "stopped", cause="stopped")
    assert world.state("ep_1") == "stopped"
    assert not world.store.reservations
    [ended] = world.facts(ReplicaEnded)
    assert (ended.cause, ended.was_ready, ended.at) == ("stopped", True, at(9))
    assert world.store.routes["ep_1"].state == "stopped"


def test_a_replica_that_is_not_ready_is_stopped_without_waiting(world: World) -> None:
    world.create("ep_1")
    world.ask("stop", "ep_1")
    assert not world.store.assignments
    world.report(world.only("ep_1"), "ready")
    assert world.facts(ReplicaStarted) == []
    assert world.store.routes["ep_1"].replicas == ()
    world.obey()
    assert world.state("ep_1") == "stopped"
    [ended] = world.facts(ReplicaEnded)
    assert not ended.was_ready


def test_an_endpoint_stopped_while_it_waits_is_stopped_at_once(world: World) -> None:
    world.create("ep_1", spec(4))
    world.create("ep_2", spec(1))
    assert world.state("ep_2") == "queued"
    world.ask("stop", "ep_2")
    assert world.state("ep_2") == "stopped"


def test_restarting_runs_a_new_generation_from_the_same_source(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    first = world.only("ep_1")
    source = world.store.assignments[f"host-a.{first.replica_id}"].source
    world.ask("stop", "ep_1")
    world.advance(1)
    world.obey()
    world.ask("restart", "ep_1")
    second = world.only("ep_1")
    assert (second.generation, second.replica_id != first.replica_id) == (2, True)
    assert world.store.assignments[f"host-a.{second.replica_id}"].source == source
    world.ready("ep_1")
    assert world.state("ep_1") == "running"


def test_a_restart_while_it_stops_starts_it_again_once_it_has_stopped(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    world.ask("stop", "ep_1")
    world.ask("restart", "ep_1")
    assert world.state("ep_1") == "stopping"
    world.advance(1)
    world.obey()
    assert world.state("ep_1") == "starting"


def test_a_stop_after_that_restart_wins(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    for kind in ("stop", "restart", "stop"):
        world.ask(kind, "ep_1")
    world.advance(1)
    world.obey()
    assert world.state("ep_1") == "stopped"


def test_terminating_while_starting_leaves_nothing(world: World) -> None:
    world.create("ep_1", spec(1))
    world.report(world.only("ep_1"), "installing")
    world.ask("terminate", "ep_1")
    assert world.state("ep_1") == "terminating"
    assert world.store.routes["ep_1"].state == "terminating"
    world.obey()
    assert world.state("ep_1") == "terminated"
    assert (world.store.routes, world.store.assignments, world.store.reservations) == ({}, {}, {})
    for kind in ("restart", "stop", "terminate"):
        world.ask(kind, "ep_1")
    assert world.state("ep_1") == "terminated"


def test_an_assignment_that_its_host_never_saw_ends_by_itself(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ask("terminate", "ep_1")
    world.advance(4.5)
    assert world.state("ep_1") == "terminating"
    world.advance(3)
    assert world.state("ep_1") == "terminated"
    assert not world.store.reservations


def test_a_replica_that_takes_long_to_stop_keeps_its_gpus(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    world.ask("stop", "ep_1")
    world.advance(60)
    assert world.state("ep_1") == "stopping"
    assert world.store.reservations


def test_a_crash_is_followed_by_a_new_replica_after_a_growing_wait(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    world.advance(10)
    world.crash("ep_1")
    assert (world.state("ep_1"), world.live("ep_1"), world.store.reservations) == ("starting", [], {})
    assert world.record("ep_1").reason == ("restarting in 1 s after: the model's process ended by itself (exit code 1)")
    assert world.store.assignments == {}
    world.advance(0.75)
    assert world.live("ep_1") == []
    world.advance(0.25)
    assert world.only("ep_1").generation == 2
    world.crash("ep_1", cause="start_failed", exit_code=3, detail="No module named 'torch'.")
    assert world.record("ep_1").reason == (
        "restarting in 2 s after: the model could not be loaded (exit code 3): No module named 'torch'"
    )
    world.advance(1.75)
    assert world.live("ep_1") == []
    world.advance(0.25)
    assert world.only("ep_1").generation == 3


def test_three_crashes_in_a_row_fail_the_endpoint_with_cause_mend_and_log(world: World) -> None:
    world.create("ep_1", spec(1))
    for _ in range(3):
        world.crash("ep_1", cause="start_failed", exit_code=3, detail="No module named 'torch'", log_tail="Traceback…")
        world.advance(5)
    assert world.state("ep_1") == "failed"
    [failed] = world.facts(EndpointFailed)
    assert failed.reason == (
        "It failed 3 times in a row; the last time the model could not be loaded (exit code 3): No module named"
        " 'torch'. Read the end of its log, mend what fails while it is loaded and create the endpoint again."
    )
    assert failed.log_tail == "Traceback…"
    assert not world.store.reservations
    assert world.store.routes["ep_1"].state == "failed"
    assert not world.facts(EndpointQueued)
    for kind in ("stop", "restart"):
        world.ask(kind, "ep_1")
        assert world.state("ep_1") == "failed"
    world.ask("terminate", "ep_1")
    assert world.state("ep_1") == "terminated"


def test_five_healthy_minutes_forgive_earlier_crashes(world: World) -> None:
    world.create("ep_1", spec(1))
    for _ in range(2):
        world.crash("ep_1")
        world.advance(5)
    world.ready("ep_1")
    world.advance(300)
    world.crash("ep_1")
    assert world.record("ep_1").reason.startswith("restarting in 1 s after")


def test_a_crash_loop_keeps_its_gpus_from_those_who_wait(world: World) -> None:
    world.create("ep_1", spec(4))
    world.create("ep_2", spec(4))
    world.crash("ep_1")
    assert (world.state("ep_1"), world.state("ep_2")) == ("starting", "queued")
    world.advance(5)
    assert world.only("ep_1").generation == 2
    for _ in range(2):
        world.crash("ep_1")
        world.advance(5)
    assert (world.state("ep_1"), world.state("ep_2")) == ("failed", "starting")


def test_replicas_that_crash_together_count_as_one_crash(world: World) -> None:
    world.create("ep_1", spec(1, replicas=4))
    world.ready("ep_1")
    world.crash("ep_1")
    assert world.state("ep_1") == "starting"
    world.advance(2)
    assert len(world.live("ep_1")) == 4
    world.ready("ep_1")
    assert world.state("ep_1") == "running"


def test_one_bad_replica_does_not_fail_an_endpoint_that_serves_well(world: World) -> None:
    world.create("ep_1", spec(1, replicas=2))
    world.ready("ep_1")
    good, _ = world.live("ep_1")
    world.advance(300)
    for wait_s in (1, 2, 4, 8, 16, 32, 60, 60):
        [bad] = [each for each in world.live("ep_1") if each.replica_id != good.replica_id]
        world.report(bad, "failed", cause="crashed")
        assert world.state("ep_1") == "running"
        world.advance(wait_s - 0.25)
        assert len(world.live("ep_1")) == 1
        world.advance(0.25)
        assert len(world.live("ep_1")) == 2
    assert world.store.routes["ep_1"].replicas[0].replica_id == good.replica_id


def test_an_endpoint_runs_as_soon_as_one_replica_is_ready(world: World) -> None:
    world.create("ep_1", spec(1, replicas=2))
    first, second = world.live("ep_1")
    world.report(second, "ready")
    world.report(first, "ready")
    one, two = world.facts(EndpointRunning)
    assert (one.ready_replicas, one.reason) == (1, "1 of 2 replicas are ready")
    assert (two.ready_replicas, two.reason) == (2, "")
    assert len(world.store.routes["ep_1"].replicas) == 2


def test_a_vanished_replica_is_replaced_and_billed_until_it_was_last_seen(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    placed = world.only("ep_1")
    world.advance(20)
    world.change_host("host-a", up=False)
    world.advance(5)
    world.report(placed, "failed", cause="vanished")
    [ended] = world.facts(ReplicaEnded)
    assert ended.at == at(20)
    assert world.record("ep_1").crash_streak == 0
    world.change_host("host-a", up=True)
    world.advance(1)
    assert world.only("ep_1").generation == 2


def test_a_replica_that_vanished_before_anyone_saw_it_run_ends_no_earlier_than_it_began(world: World) -> None:
    world.advance(1)
    world.create("ep_1", spec(1))
    world.report(world.only("ep_1"), "failed", cause="vanished")
    [ended] = world.facts(ReplicaEnded)
    [scheduled] = world.facts(ReplicaScheduled)
    assert ended.at == scheduled.at


def test_a_report_that_is_late_or_of_another_attempt_changes_nothing(world: World) -> None:
    world.create("ep_1", spec(1))
    placed = world.only("ep_1")
    world.report(placed, "starting", sequence=3)
    told = list(world.store.facts)
    world.report(placed, "fetching", sequence=2)
    world.report(placed, "installing", sequence=3)
    world.report(placed, "failed", sequence=9, generation=7)
    world.report(placed, "failed", sequence=9, host_id="host-b")
    world.report(placed, "ready", sequence=9, replica_id="rep_unknown")
    assert world.store.facts == told


def test_a_report_never_revives_a_replica_that_ended(world: World) -> None:
    world.create("ep_1", spec(1))
    placed = world.only("ep_1")
    world.crash("ep_1")
    told = list(world.store.facts)
    world.report(placed, "ready")
    assert world.store.facts == told
    assert placed.replica_id not in {each.replica_id for each in world.live("ep_1")}


def test_a_replica_found_at_another_address_is_routed_there_and_not_billed_twice(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    world.report(world.only("ep_1"), "starting")
    assert world.store.routes["ep_1"].replicas != ()
    world.report(world.only("ep_1"), "ready", address="127.0.0.1:7777")
    assert world.store.routes["ep_1"].replicas[0].address == "127.0.0.1:7777"
    assert len(world.facts(ReplicaStarted)) == 1


def test_ready_without_an_address_can_never_be_handled(world: World) -> None:
    world.create("ep_1")
    with pytest.raises(Permanent, match="without an address"):
        world.report(world.only("ep_1"), "ready", address=None)


def test_what_the_host_stopped_by_itself_is_started_again_but_not_at_once(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    world.report(world.only("ep_1"), "stopped", cause="stopped")
    assert (world.state("ep_1"), world.live("ep_1")) == ("starting", [])
    assert world.facts(EndpointStarting)[-1].reason == "starting again, because the replica was stopped on its host"
    world.advance(1)
    assert world.only("ep_1").generation == 2


def test_an_endpoint_stopped_for_fourteen_days_is_terminated() -> None:
    world = World(Policy(purge_after=timedelta(seconds=60)))
    world.join("host-a")
    world.create("ep_1")
    world.ask("stop", "ep_1")
    world.obey()
    world.advance(59.75)
    assert world.state("ep_1") == "stopped"
    world.advance(0.25)
    assert world.state("ep_1") == "terminated"
    [fact] = world.facts(EndpointTerminated)
    assert fact.reason == "terminated because it was stopped and unused for 60 s"
    assert world.store.routes == {}


def test_a_gpu_that_disappears_takes_its_replica_with_it(world: World) -> None:
    world.create("ep_1", spec(4))
    world.ready("ep_1")
    world.change_host("host-a", parts=inventory(3))
    world.beat("host-a")
    [ended] = world.facts(ReplicaEnded)
    assert ended.cause == "vanished"
    assert ended.detail == f"host-a no longer has GPU host-a-{RTX}-3: look at the card and its driver"
    world.obey()
    world.advance(2)
    assert world.state("ep_1") == "queued"
    assert "no host has more than 3" in world.record("ep_1").reason
