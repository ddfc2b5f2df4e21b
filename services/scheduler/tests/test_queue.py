"""The queue: who starts, who waits, and what those who wait are told."""

import pytest

from penstock_common.contracts.events import EndpointQueued
from penstock_scheduler.domain import Policy
from penstock_scheduler.planning import plan

from .builders import RTX, T0, at, demand, endpoint, host, inventory, replica, snapshot, spec
from .world import World

A100 = "A100"


@pytest.fixture
def world() -> World:
    found = World()
    found.join("host-a")
    return found


def test_who_comes_first_starts_first(world: World) -> None:
    world.create("ep_1", spec(3))
    world.create("ep_2", spec(2))
    world.create("ep_3", spec(2))
    assert [world.state(each) for each in ("ep_1", "ep_2", "ep_3")] == ["starting", "queued", "queued"]
    told = {fact.endpoint_id: fact for fact in world.facts(EndpointQueued)}
    assert told["ep_2"].reason == (
        "needs 2 × RTX 4090 on one host; 1 is free on host-a, 3 are in use; first in line for RTX 4090"
    )
    assert (told["ep_2"].position, told["ep_3"].position) == (1, 2)
    assert told["ep_3"].reason.endswith("second in line for RTX 4090")
    assert told["ep_2"].estimated_start_at is None


def test_a_small_request_does_not_take_what_the_first_in_line_waits_for(world: World) -> None:
    world.create("ep_1", spec(3))
    world.create("ep_2", spec(4))
    world.create("ep_3", spec(1))
    assert world.live("ep_3") == []
    assert world.record("ep_3").reason == (
        "needs 1 × RTX 4090 on one host; 1 is free on host-a, 3 are in use, what is free is kept for an endpoint"
        " further ahead; second in line for RTX 4090"
    )


def test_a_small_request_may_use_a_host_that_the_first_in_line_does_not_wait_for(world: World) -> None:
    world.join("host-b", inventory(2, host_id="host-b"))
    world.create("ep_1", spec(3))
    world.create("ep_2", spec(4))
    world.create("ep_3", spec(2))
    assert world.state("ep_2") == "queued"
    assert world.only("ep_3").host_id == "host-b"


def test_another_gpu_type_does_not_wait(world: World) -> None:
    world.join("host-b", inventory(2, A100, host_id="host-b"))
    world.create("ep_1", spec(4))
    world.create("ep_2", spec(4))
    world.create("ep_3", spec(2, A100))
    world.create("ep_4")
    assert [world.state(f"ep_{n}") for n in (2, 3, 4)] == ["queued", "starting", "starting"]


def test_who_waits_starts_by_itself_when_gpus_become_free(world: World) -> None:
    world.create("ep_1", spec(4))
    world.ready("ep_1")
    world.create("ep_2", spec(2))
    world.create("ep_3", spec(2))
    world.ask("terminate", "ep_1")
    world.advance(1)
    world.obey()
    assert [world.state(each) for each in ("ep_2", "ep_3")] == ["starting", "starting"]


def test_a_changed_place_is_told_but_not_more_than_once_a_second(world: World) -> None:
    world.create("ep_1", spec(4))
    for number in range(2, 6):
        world.create(f"ep_{number}", spec(4))
    world.advance(5)
    before = len(world.facts(EndpointQueued))
    for number in (2, 3, 4):
        world.ask("stop", f"ep_{number}")
    told = [fact for fact in world.facts(EndpointQueued)[before:] if fact.endpoint_id == "ep_5"]
    assert [fact.position for fact in told] == [3]
    world.advance(0.75)
    assert world.record("ep_5").position == 3
    world.advance(0.25)
    assert world.record("ep_5").position == 1
    before = len(world.facts(EndpointQueued))
    world.advance(30)
    assert len(world.facts(EndpointQueued)) == before


def test_an_endpoint_with_too_few_replicas_is_not_shown_as_waiting(world: World) -> None:
    world.create("ep_1", spec(2, replicas=3))
    assert len(world.live("ep_1")) == 2
    assert world.state("ep_1") == "starting"
    world.create("ep_2", spec(2))
    assert world.record("ep_2").position == 2
    world.ready("ep_1")
    world.advance(2)
    assert world.state("ep_1") == "running"
    assert world.record("ep_1").reason == "2 of 3 replicas run; no host has 2 free RTX 4090 for more"
    assert all(fact.endpoint_id == "ep_2" for fact in world.facts(EndpointQueued))


def test_who_starts_again_after_a_crash_is_not_counted_as_waiting(world: World) -> None:
    world.create("ep_1", spec(4))
    world.create("ep_2", spec(4))
    world.advance(5)
    world.crash("ep_1")
    world.advance(0.75)
    assert world.live("ep_1") == []
    assert world.record("ep_2").position == 1


def test_cpu_only_replicas_use_cores_and_wait_for_them(world: World) -> None:
    world.create("ep_1", spec(cpu_cores=10))
    world.create("ep_2", spec(cpu_cores=10))
    world.create("ep_3", spec(cpu_cores=2))
    assert world.record("ep_2").reason == (
        "needs 10 CPU cores, 2 GB of memory and 10 GB of disk on one host; host-a has 6 CPU cores, 62 GB of memory"
        " and 490 GB of disk free; first in line for CPU"
    )
    # Those six cores are what the first in line waits for.
    assert world.state("ep_3") == "queued"


def test_gpu_replicas_use_cores_memory_and_disk_too(world: World) -> None:
    world.create("ep_1", spec(memory_gb=60))
    world.create("ep_2", spec(2, memory_gb=8))
    assert world.record("ep_2").reason == (
        "needs 2 × RTX 4090 on one host; 4 are free on host-a, but host-a has only 15 CPU cores, 4 GB of memory and"
        " 490 GB of disk free, and it needs 1 CPU core, 8 GB of memory and 10 GB of disk; first in line for RTX 4090"
    )


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (spec(1, "RTX 9090"), "no host has RTX 9090; there are: A100, RTX 4090"),
        (spec(4, A100), "needs 4 × A100 on one host, but no host has more than 2: ask for 2 or fewer"),
        (spec(cpu_cores=64), "needs 64 CPU cores on one host, but no host that could run it has more than 16"),
        (spec(1, memory_gb=999), "needs 999 GB of memory on one host, but no host that could run it has more than 64"),
    ],
)
def test_a_request_that_no_host_can_ever_satisfy_says_so_and_holds_up_nobody(
    world: World, wanted: object, reason: str
) -> None:
    world.join("host-b", inventory(2, A100, host_id="host-b"))
    world.create("ep_1", wanted)  # type: ignore[arg-type]
    assert world.record("ep_1").reason.partition(";")[0] in reason
    assert world.record("ep_1").reason.startswith(reason)
    world.create("ep_2", spec(4))
    world.create("ep_3", spec(2, A100))
    assert (world.state("ep_2"), world.state("ep_3")) == ("starting", "starting")
    world.create("ep_4", spec(4))
    assert world.record("ep_4").position == 1


def test_replicas_are_packed_so_that_large_gaps_stay() -> None:
    hosts = [host("host-a", 4), host("host-b", 2), host("host-c", 8)]
    decided = plan(snapshot(hosts, [endpoint("ep_1", demand(2)), endpoint("ep_2", demand(1), after_s=1)]), at(1))
    assert [(place.host_id, place.gpu_uuids) for place in decided.placed] == [
        ("host-b", (f"host-b-{RTX}-0", f"host-b-{RTX}-1")),
        ("host-a", (f"host-a-{RTX}-0",)),
    ]


def test_cpu_only_replicas_leave_gpu_hosts_alone_where_they_can() -> None:
    decided = plan(snapshot([host("host-a"), host("host-b", 0)], [endpoint("ep_1")]), at(1))
    assert [place.host_id for place in decided.placed] == ["host-b"]


def test_an_estimate_is_given_when_what_is_missing_is_being_freed() -> None:
    leaving = replica("ep_1", needs=demand(4), gpu_uuids=tuple(gpu.uuid for gpu in host().gpus), unassign_at=at(10))
    waiting = endpoint("ep_2", demand(2))
    [wait] = plan(snapshot([host()], [waiting], [leaving], release_s=3.0), at(9)).waiting
    assert wait.estimated_start_at == at(13)
    [wait] = plan(snapshot([host()], [waiting], [leaving], release_s=None), at(9)).waiting
    assert wait.estimated_start_at is None


def test_an_estimate_that_moves_a_little_is_not_told_again() -> None:
    leaving = replica("ep_1", needs=demand(4), gpu_uuids=tuple(gpu.uuid for gpu in host().gpus), unassign_at=at(10))
    [wait] = plan(snapshot([host()], [endpoint("ep_2", demand(2))], [leaving], release_s=3.0), at(9)).waiting
    told = endpoint("ep_2", demand(2), position=1, reason=wait.reason, estimated_start_at=at(17), told_at=T0)
    assert plan(snapshot([host()], [told], [leaving], release_s=3.0), at(9)).waiting == ()


def test_nothing_to_do_is_an_empty_plan_that_wakes_when_a_host_may_be_lost() -> None:
    decided = plan(snapshot([host(last_seen_at=at(3))], []), at(4))
    assert decided.empty
    assert decided.wake_at == at(13)


def test_without_hosts_and_endpoints_nothing_is_ever_due() -> None:
    assert plan(snapshot([], []), at(1)).wake_at is None


def test_a_plan_wakes_when_the_next_thing_is_due() -> None:
    backing_off = endpoint("ep_1", state="starting", next_start_at=at(6))
    leaving = replica("ep_2", unassign_at=at(5))
    decided = plan(snapshot([host()], [backing_off], [leaving]), at(4))
    assert decided.wake_at == at(5)
    assert plan(snapshot([host()], [backing_off]), at(4)).wake_at == at(6)


def test_the_same_arguments_give_the_same_plan() -> None:
    given = snapshot([host("host-a"), host("host-b")], [endpoint(f"ep_{n}", demand(n % 4 + 1)) for n in range(20)])
    assert plan(given, at(1)) == plan(given, at(1))


def test_a_gpu_that_two_hosts_claim_is_given_out_once(world: World) -> None:
    world.join("host-b", inventory(4, host_id="host-a"))
    world.create("ep_1", spec(4))
    world.create("ep_2", spec(4))
    assert (world.state("ep_1"), world.state("ep_2")) == ("starting", "queued")


def test_the_default_limits_are_those_that_are_documented() -> None:
    policy = Policy()
    assert (policy.lost_after.seconds, policy.crashes_until_failed, policy.purge_after.days) == (10, 3, 14)
