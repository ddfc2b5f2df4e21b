"""Questions about capacity."""

import pytest

from penstock_common.contracts.endpoint import GpuRequest, Resources
from penstock_common.contracts.questions import ForecastReply, GpuCapacity
from penstock_scheduler.answers import capacity, forecast, hosts
from penstock_scheduler.domain import EndpointRecord, Host, Snapshot

from .builders import RTX, T0, at, demand, endpoint, host, replica, snapshot


def busy() -> Snapshot:
    """Two hosts with four GPUs each: one has one free, the other two. A third host is lost."""
    return snapshot(
        [host("host-a"), host("host-b"), host("host-c", kind="A100", state="lost")],
        [],
        [
            replica("ep_1", "host-a", demand(3), gpu_uuids=tuple(f"host-a-{RTX}-{n}" for n in range(3))),
            replica("ep_2", "host-b", demand(2), gpu_uuids=tuple(f"host-b-{RTX}-{n}" for n in range(2))),
        ],
    )


def waiting(asked: Snapshot, *endpoints: EndpointRecord) -> Snapshot:
    return snapshot(list(asked.hosts), list(endpoints), list(asked.replicas))


def test_capacity_counts_hosts_that_are_up() -> None:
    reply = capacity(busy(), T0)
    assert reply.hosts == 2
    assert reply.gpus == (GpuCapacity(type=RTX, memory_gb=24, total=8, free=3, startable_counts=(1, 2)),)
    assert reply.cpu == GpuCapacity(type="CPU", memory_gb=64, total=32, free=30, startable_counts=(1, 2, 3, 4))


def test_capacity_leaves_what_is_kept_for_those_who_wait() -> None:
    reply = capacity(waiting(busy(), endpoint("ep_3", demand(3))), T0)
    assert (reply.gpus[0].free, reply.gpus[0].startable_counts) == (3, (1,))


def test_capacity_of_nothing_is_nothing() -> None:
    reply = capacity(snapshot([], []), T0)
    assert (reply.gpus, reply.cpu.total, reply.cpu.startable_counts, reply.hosts) == ((), 0, (), 0)


def ask(asked: Snapshot, count: int, kind: str = RTX, replicas: int = 1) -> ForecastReply:
    return forecast(asked, GpuRequest(type=kind, count=count) if count else None, Resources(), replicas, at(1))


def test_forecast_of_what_fits_names_the_host() -> None:
    reply = ask(busy(), 2)
    assert (reply.starts_now, reply.position, reply.reason) == (True, None, "starts at once on host-b")


def test_forecast_of_what_waits_says_why_and_where() -> None:
    reply = ask(waiting(busy(), endpoint("ep_3", demand(4))), 3)
    assert (reply.starts_now, reply.position, reply.problems) == (False, 2, ())
    assert reply.reason.startswith("needs 3 × RTX 4090 on one host; 2 are free on host-b, 1 is free on host-a, 5 are")


def test_forecast_of_some_replicas() -> None:
    reply = ask(busy(), 1, replicas=5)
    assert reply.starts_now
    assert reply.reason.startswith("3 of 5 replicas start at once; for the others: needs 1 × RTX 4090")


def test_forecast_of_one_that_may_sleep_is_of_one_replica() -> None:
    reply = ask(busy(), 2, replicas=0)
    assert (reply.starts_now, reply.reason) == (True, "starts at once on host-b")
    assert ask(waiting(busy(), endpoint("ep_3", demand(4))), 3, replicas=0).position == 2


def desiring_more() -> Snapshot:
    """One that runs desires a second replica, which needs four GPUs that no host has free."""
    more = endpoint("ep_1", demand(4), state="running", desired_replicas=2, required_replicas=1)
    return snapshot(
        [host(), host("host-b", 3)], [more], [replica("ep_1", needs=demand(4), gpu_uuids=cards("host-a", 4))]
    )


def cards(host_id: str, count: int) -> tuple[str, ...]:
    return tuple(f"{host_id}-{RTX}-{number}" for number in range(count))


def test_nothing_is_kept_for_what_is_only_desired() -> None:
    assert capacity(desiring_more(), T0).gpus[0].startable_counts == (1, 2, 3)
    assert ask(desiring_more(), 3).reason == "starts at once on host-b"


def test_a_new_endpoint_comes_before_what_others_only_desire() -> None:
    asked = snapshot(
        [host()],
        [endpoint("ep_1", demand(2), state="running", desired_replicas=3, required_replicas=1)],
        [replica("ep_1", needs=demand(2), gpu_uuids=cards("host-a", 2))],
    )
    assert ask(asked, 2).starts_now
    assert ask(asked, 4).position == 1


def test_forecast_names_the_field_that_no_host_can_satisfy() -> None:
    [problem] = ask(busy(), 1, "RTX 9090").problems
    assert (problem.field, problem.message) == ("gpu.type", "no host has RTX 9090; there are: A100, RTX 4090")
    asked = snapshot([host(gpus=2)], [])
    assert [problem.field for problem in ask(asked, 3).problems] == ["gpu.count"]


@pytest.mark.parametrize(
    ("resources", "fields"),
    [
        (Resources(cpu_cores=17), ["resources.cpu_cores"]),
        (Resources(memory_gb=65, disk_gb=501), ["resources.memory_gb", "resources.disk_gb"]),
    ],
)
def test_forecast_names_every_resource_that_is_too_much(resources: Resources, fields: list[str]) -> None:
    reply = forecast(snapshot([host()], []), None, resources, 1, T0)
    assert [problem.field for problem in reply.problems] == fields


def test_forecast_says_when_only_the_combination_is_too_much() -> None:
    small = [host("host-a", cpu_cores=2), host("host-b", memory_gb=8)]
    [problem] = forecast(snapshot(small, []), None, Resources(cpu_cores=8, memory_gb=32), 1, T0).problems
    assert problem.field == "resources"
    assert problem.message == "no one host has all of it: 8 CPU cores, 32 GB of memory and 10 GB of disk; ask for less"


def test_forecast_without_a_gpu_anywhere_tells_to_use_the_cpu() -> None:
    [problem] = ask(snapshot([host(gpus=0)], []), 1).problems
    assert problem.message == "no host has RTX 4090; no host has a GPU: leave gpu out to use the CPU"


def test_a_type_whose_hosts_are_lost_is_no_problem_of_the_request() -> None:
    reply = ask(busy(), 1, "A100")
    assert reply.problems == ()
    assert "host-c could run it but cannot be reached" in reply.reason


def test_before_any_host_joined_a_request_waits() -> None:
    reply = ask(snapshot([], []), 1)
    assert (reply.starts_now, reply.problems) == (False, ())


def test_every_host_is_listed() -> None:
    lost: Host
    first, _, lost = busy().hosts
    [one, _, three] = hosts(busy()).hosts
    assert (one.host_id, one.gpus, one.gpus_used, one.replicas) == (first.host_id, {RTX: 4}, 3, 1)
    assert (three.host_id, three.state, three.gpus) == (lost.host_id, "lost", {"A100": 4})
