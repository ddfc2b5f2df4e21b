"""Timelines of hosts: joining, falling silent, coming back; and of a scheduler that cannot hear."""

import pytest

from penstock_common.contracts.events import EndpointQueued, EndpointStarting, HostJoined, HostLost, ReplicaEnded

from .builders import RTX, at, inventory, spec
from .world import World


@pytest.fixture
def world() -> World:
    found = World()
    found.join("host-a")
    return found


def test_a_host_joins_with_its_first_heartbeat(world: World) -> None:
    world.advance(10)
    [joined] = world.facts(HostJoined)
    assert (joined.host_id, joined.at) == ("host-a", at(0))
    known = world.store.all_hosts["host-a"]
    assert (known.state, known.gpu_count(RTX), known.last_seen_at) == ("up", 4, at(10))


def test_a_waiting_endpoint_starts_when_a_host_joins() -> None:
    world = World()
    world.create("ep_1", spec(2))
    assert world.record("ep_1").reason == (
        "needs 2 × RTX 4090 on one host; no host has joined yet: start a provisioner; first in line for RTX 4090"
    )
    world.join("host-a")
    assert world.state("ep_1") == "starting"


def test_a_silent_host_is_lost_after_ten_seconds_and_replaced_elsewhere(world: World) -> None:
    world.create("ep_1", spec(2))
    world.ready("ep_1")
    world.join("host-b")
    world.advance(20)
    world.change_host("host-a", up=False)
    world.advance(9.75)
    assert not world.facts(HostLost)
    world.advance(0.25)
    [lost] = world.facts(HostLost)
    assert (lost.host_id, lost.at, lost.last_seen_at) == ("host-a", at(30), at(20))
    [ended] = world.facts(ReplicaEnded)
    assert (ended.cause, ended.at, ended.was_ready) == ("host_lost", at(20), True)
    replacement = world.only("ep_1")
    assert (replacement.host_id, replacement.generation) == ("host-b", 2)
    assert list(world.store.assignments) == [f"host-b.{replacement.replica_id}"]
    assert world.store.routes["ep_1"].replicas == ()
    assert world.facts(EndpointStarting)[-1].reason == "starting on host-b"
    assert world.record("ep_1").crash_streak == 0


def test_a_host_that_comes_back_takes_nothing_new_until_it_stopped_the_old(world: World) -> None:
    world.create("ep_1", spec(4))
    world.ready("ep_1")
    stale = world.only("ep_1")
    world.advance(4)
    world.change_host("host-a", up=False)
    world.advance(12)
    assert world.state("ep_1") == "queued"
    assert world.record("ep_1").reason.startswith(
        "needs 4 × RTX 4090 on one host; host-a could run it but cannot be reached: check that its provisioner runs"
    )
    world.change_host("host-a", up=True)
    world.advance(2)
    assert len(world.facts(HostJoined)) == 2
    assert world.live("ep_1") == []
    world.advance(1)
    assert "host-a must first stop what it still runs from before" in world.record("ep_1").reason
    world.obey()
    world.advance(2)
    assert world.only("ep_1").replica_id != stale.replica_id
    assert world.store.all_replicas[stale.replica_id].cause == "host_lost"


def test_a_replica_ends_no_earlier_than_it_became_ready_though_its_host_was_silent_before(world: World) -> None:
    world.create("ep_1")
    world.advance(4)
    world.change_host("host-a", up=False)
    world.advance(3)
    world.ready("ep_1")
    world.advance(8)
    [ended] = world.facts(ReplicaEnded)
    assert ended.at == at(7)


def test_what_stops_on_a_lost_host_has_stopped(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    world.create("ep_2")
    world.ready("ep_2")
    world.advance(2)
    world.change_host("host-a", up=False)
    world.ask("stop", "ep_1")
    world.ask("terminate", "ep_2")
    world.advance(12)
    assert (world.state("ep_1"), world.state("ep_2")) == ("stopped", "terminated")
    assert world.store.assignments == {}


def test_a_host_that_leaves_gives_its_replicas_up_at_once(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    world.join("host-b")
    world.advance(3)
    world.change_host("host-a", up=False)
    world.report(world.only("ep_1"), "stopped", cause="host_left")
    assert world.only("ep_1").host_id == "host-b"  # and not again on the host that is leaving
    world.beat("host-a", leaving=True)
    [lost] = world.facts(HostLost)
    assert (lost.host_id, lost.reason) == ("host-a", "host-a left: its provisioner was stopped")
    assert world.store.all_hosts["host-a"].state == "left"
    world.beat("host-a", leaving=True)
    assert len(world.facts(HostLost)) == 1


def test_a_leaving_host_ends_even_what_it_did_not_report(world: World) -> None:
    world.create("ep_1", spec(1))
    world.advance(2)
    world.beat("host-a", leaving=True)
    [ended] = world.facts(ReplicaEnded)
    assert ended.cause == "host_left"
    assert world.state("ep_1") == "queued"
    world.change_host("host-a", up=True)
    world.advance(2)
    assert len(world.facts(HostJoined)) == 2


def test_after_a_machine_booted_nothing_from_before_runs_there(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    world.advance(4)
    world.hosts["host-a"].reports.clear()
    world.change_host("host-a", boot_id="boot-2")
    world.advance(2)
    [ended] = world.facts(ReplicaEnded)
    assert (ended.cause, ended.detail) == ("vanished", "host-a was started again")
    world.advance(2)
    assert world.only("ep_1").generation == 2


def test_more_gpus_on_a_host_let_those_who_wait_start(world: World) -> None:
    world.change_host("host-a", parts=inventory(1))
    world.beat("host-a")
    world.create("ep_1", spec(2))
    assert world.state("ep_1") == "queued"
    world.change_host("host-a", parts=inventory(2))
    world.beat("host-a")
    assert world.state("ep_1") == "starting"


def test_a_report_lost_on_the_way_comes_with_the_next_heartbeat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create("ep_1")
    placed = world.only("ep_1")
    monkeypatch.setattr(world, "hear_report", lambda said, waited_s: None)
    world.report(placed, "ready")
    assert world.state("ep_1") == "starting"
    world.advance(2)
    assert world.state("ep_1") == "running"


def test_a_heartbeat_that_says_nothing_new_is_not_handled_again(world: World) -> None:
    world.advance(2)
    message = world.heartbeats
    assert message.news() == []


def test_a_restarted_scheduler_waits_before_it_believes_in_silence(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    world.change_host("host-a", up=False)
    world.advance(8)
    world.restart_scheduler()
    world.advance(9.5)
    assert not world.facts(HostLost)
    world.change_host("host-a", up=True)
    world.advance(30)
    assert not world.facts(HostLost)
    assert len(world.facts(HostJoined)) == 1


def test_a_restarted_scheduler_still_finds_out_that_a_host_is_gone(world: World) -> None:
    world.create("ep_1")
    world.ready("ep_1")
    world.advance(4)
    world.change_host("host-a", up=False)
    world.restart_scheduler()
    world.advance(10)
    [lost] = world.facts(HostLost)
    assert lost.last_seen_at == at(4)
    [ended] = world.facts(ReplicaEnded)
    assert ended.at == at(4)


def test_after_everything_was_off_for_long_a_bill_ends_when_it_went_off(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    world.advance(60)
    world._set_time(3660)  # the power came back after an hour
    world.restart_scheduler()
    placed = world.only("ep_1")
    sim = world.hosts["host-a"]
    reports, sim.reports = sim.reports, {}
    world.advance(2)  # a heartbeat before the provisioner has looked at what it left
    sim.reports = reports
    world.report(placed, "failed", cause="vanished")
    [ended] = world.facts(ReplicaEnded)
    assert ended.at == at(60)


def test_hosts_are_not_lost_while_nats_is_away(world: World) -> None:
    world.advance(4)
    world.connected = False
    world.advance(60)
    world.connected = True
    world.change_host("host-a", up=False)
    world.advance(9)
    assert not world.facts(HostLost)
    world.advance(2)
    assert len(world.facts(HostLost)) == 1


def test_a_process_that_stood_still_does_not_blame_hosts(world: World) -> None:
    world.advance(4)
    world.stand_still(60)  # as after SIGSTOP and SIGCONT: nothing ran, not even the tick
    world.plan()
    world.advance(20)
    assert not world.facts(HostLost)


def test_a_lost_host_whose_heartbeat_says_nothing_new_joins_again(world: World) -> None:
    world.advance(4)
    world.change_host("host-a", up=False)
    world.advance(11)
    assert world.store.all_hosts["host-a"].state == "lost"
    world.change_host("host-a", up=True)
    world.advance(2)
    assert world.store.all_hosts["host-a"].state == "up"


def test_a_new_plan_is_told_of_at_once_when_the_last_host_goes(world: World) -> None:
    world.create("ep_1", spec(1))
    world.ready("ep_1")
    world.advance(2)
    world.beat("host-a", leaving=True)
    assert world.facts(EndpointQueued)[-1].position == 1
