"""The checker finds what is wrong with a plan, and nothing wrong with a good one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_scheduler.checking import violations
from penstock_scheduler.domain import (
    Demand,
    EndpointRecord,
    EndReplica,
    GiveWay,
    Host,
    LoseHost,
    Place,
    Plan,
    Purge,
    Replica,
    Shortage,
    Snapshot,
    Unassign,
    Wait,
)
from penstock_scheduler.planning import plan

from .builders import RTX, T0, at, demand, endpoint, host, replica, snapshot

A100 = "A100"
NOW = at(5)
PAIRS = {1: (f"host-c-{RTX}-0", f"host-c-{RTX}-1"), 2: (f"host-c-{RTX}-2", f"host-c-{RTX}-3")}


def gpu(number: int, host_id: str = "host-a", kind: str = RTX) -> str:
    return f"{host_id}-{kind}-{number}"


def given_snapshot() -> Snapshot:
    """Two hosts of four GPUs, one with A100s, a lost one; a replica that holds a GPU; a queue."""
    holder = replica("ep_old", needs=demand(1), gpu_uuids=(gpu(0),))
    leaving = replica("ep_leaving", host_id="host-b", unassign_at=at(4))
    later = replica("ep_later", host_id="host-b", unassign_at=at(6))
    idle = [
        replica("ep_idle", "host-c", demand(2), gpu_uuids=pair, generation=number) for number, pair in PAIRS.items()
    ]
    works = replica("ep_works", host_id="host-b")
    return snapshot(
        [
            host("host-a"),
            host("host-b", kind=A100),
            host("host-lost", state="lost"),
            host("host-fenced", fenced=True),
            host("host-silent", 0, last_seen_at=T0),
            host("host-c"),
        ],
        [
            endpoint("ep_old", demand(1), state="running", generation=1),
            endpoint("ep_1", demand(2)),
            endpoint("ep_2", demand(2), after_s=1),
            endpoint("ep_3", demand(1, A100), after_s=2, desired_replicas=2),
            endpoint("ep_crashed", demand(1, A100), after_s=3, state="starting", next_start_at=at(9)),
            endpoint("ep_stopped", after_s=3, state="stopped"),
            endpoint(
                "ep_idle",
                demand(2),
                state="running",
                generation=2,
                desired_replicas=3,
                required_replicas=0,
                idle_replicas=("rep_ep_idle_1", "rep_ep_idle_2"),
                idle_told_at=T0,
            ),
            endpoint(
                "ep_works",
                state="running",
                generation=1,
                desired_replicas=2,
                required_replicas=1,
                idle_replicas=("rep_ep_works_1",),
                idle_told_at=at(-11),
            ),
        ],
        [holder, leaving, later, *idle, works],
    )


def place(endpoint_id: str, *gpu_uuids: str, host_id: str = "host-a", generation: int = 1) -> Place:
    return Place(endpoint_id, generation, host_id, gpu_uuids, "because")


def good_plan() -> Plan:
    return plan(given_snapshot(), NOW)


def test_a_good_plan_breaks_no_rule() -> None:
    good = good_plan()
    assert [each.endpoint_id for each in good.placed] == ["ep_1", "ep_3", "ep_3", "ep_works"]
    assert good.giving_way == (GiveWay("rep_ep_idle_2", "ep_idle", good.giving_way[0].reason),)
    assert good.short == (Shortage("ep_idle", "no host has 2 free RTX 4090 for more"),)
    assert [each.replica_id for each in good.unassigned] == ["rep_ep_leaving_1"]
    assert [each.endpoint_id for each in good.waiting] == ["ep_2"]
    assert violations(given_snapshot(), good) == []


def but(**fields: Any) -> Callable[[Plan], Plan]:
    return lambda good: replace(good, **fields)


def and_placed(*more: Place) -> Callable[[Plan], Plan]:
    return lambda good: replace(good, placed=(*good.placed, *more))


def giving(*replica_ids: str, of: str = "ep_idle") -> Callable[[Plan], Plan]:
    return but(giving_way=tuple(GiveWay(each, of, "") for each in replica_ids))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (and_placed(place("ep_2", gpu(1), gpu(3))), f"GPU {gpu(1)} is given out 2 times"),
        (and_placed(place("ep_2", gpu(0), gpu(3))), f"GPU {gpu(0)} is reserved already"),
        (and_placed(place("ep_2", gpu(3))), "replica 1 of ep_2 gets 1 GPUs and needs 2"),
        (and_placed(place("ep_2", gpu(3), "GPU-x")), "replica 1 of ep_2 gets GPU GPU-x, which host-a does not have"),
        (
            and_placed(place("ep_2", gpu(2, "host-b", A100), gpu(3, "host-b", A100), host_id="host-b")),
            f"replica 1 of ep_2 gets GPU {gpu(2, 'host-b', A100)} of type A100 and needs RTX 4090",
        ),
        (
            and_placed(place("ep_2", gpu(0, "host-lost"), gpu(1, "host-lost"), host_id="host-lost")),
            "replicas are placed on host-lost, which cannot take any",
        ),
        (
            and_placed(place("ep_2", gpu(0, "host-fenced"), gpu(1, "host-fenced"), host_id="host-fenced")),
            "replicas are placed on host-fenced, which cannot take any",
        ),
        (and_placed(place("ep_2", host_id="host-x")), "replicas are placed on host-x, which cannot take any"),
        (and_placed(place("ep_unknown")), "ep_unknown is placed and not known"),
        (and_placed(place("ep_stopped")), "ep_stopped is placed although it is stopped"),
        (
            and_placed(place("ep_crashed", gpu(3, "host-b", A100), host_id="host-b")),
            "ep_crashed is placed before its wait after a crash is over",
        ),
        (and_placed(place("ep_old", gpu(3), generation=2)), "ep_old would have 2 replicas of 1"),
        (
            lambda good: replace(good, placed=tuple(replace(each, generation=7) for each in good.placed[:1])),
            "ep_1 gets generations [7] and should get [1]",
        ),
        (but(placed=()), "ep_1 waits although it is first and fits"),
        (but(placed=(place("ep_2", gpu(1), gpu(2)),)), "ep_2 passes ep_1, which comes first and asks for no more"),
        (
            but(ended=(EndReplica("rep_x", "ep_x", "stopped", NOW, ""),)),
            "rep_x would end, but no live replica of ep_x is called so",
        ),
        (
            but(ended=(EndReplica("rep_ep_old_1", "ep_old", "stopped", at(9), ""),)),
            f"rep_ep_old_1 would end at {at(9).isoformat()}, outside its life",
        ),
        (
            but(ended=(EndReplica("rep_ep_old_1", "ep_old", "stopped", NOW, ""),) * 2),
            "rep_ep_old_1 would end 2 times",
        ),
        (
            but(ended=(EndReplica("rep_ep_old_1", "ep_old", "host_lost", NOW, ""),)),
            "rep_ep_old_1 would end with its host, which is not lost",
        ),
        (but(lost=(LoseHost("host-a", ""),)), "rep_ep_old_1 would stay on host-a, which is lost"),
        (but(lost=(LoseHost("host-a", ""),)), "host-a would be lost, but it was heard of lately"),
        (but(lost=(LoseHost("host-lost", ""),)), "host-lost would be lost, but it is not up"),
        (
            but(unassigned=(Unassign("rep_ep_later_1", "ep_later", ""),)),
            "rep_ep_later_1 would be unassigned before its time",
        ),
        (
            but(unassigned=(Unassign("rep_x", "ep_x", ""),)),
            "rep_x would be unassigned, but no live replica is called so",
        ),
        (but(waiting=(Wait("ep_1", 1, "", None),)), "ep_1 would be told to wait, but it does not"),
        (but(waiting=(Wait("ep_stopped", 1, "", None),)), "ep_stopped would be told to wait, but it does not"),
        (
            and_placed(place("ep_idle", gpu(1), gpu(2), generation=3)),
            "ep_idle passes ep_2, which comes first and asks for no more",
        ),
        (
            but(short=(Shortage("ep_stopped", "no room"),)),
            "ep_stopped would be told of a shortage, but it does not run",
        ),
        (but(short=(Shortage("ep_old", "no room"),)), "ep_old would be told of a shortage, but it has none"),
        (but(short=(Shortage("ep_2", "no room"),)), "ep_2 would be told of a shortage, but it has none"),
        (giving("rep_ep_idle_2", "rep_ep_idle_2"), "rep_ep_idle_2 would give way 2 times"),
        (giving("rep_x"), "rep_x would give way, but no live replica of ep_idle is called so"),
        (giving("rep_x", of="ep_x"), "ep_x would give way, but it does not run"),
        (giving("rep_ep_old_1", of="ep_old"), "ep_old would keep 0 replicas of 1"),
        (
            giving("rep_ep_works_1", of="ep_works"),
            "rep_ep_works_1 would give way, but nobody said lately that it is idle",
        ),
        (
            giving("rep_ep_leaving_1", of="ep_leaving"),
            "rep_ep_leaving_1 would give way, but no live replica of ep_leaving is called so",
        ),
        (but(purged=(Purge("ep_1", ""),)), "ep_1 would be purged, but it is not stopped"),
    ],
)
def test_a_spoilt_plan_is_found_out(spoil: Callable[[Plan], Plan], expected: str) -> None:
    assert expected in violations(given_snapshot(), spoil(good_plan()))


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (demand(cpu_cores=12), "host-a has 16 CPU cores and would need 24"),
        (demand(memory_gb=40), "host-a has 64 GB of memory and would need 80"),
        (demand(disk_gb=300), "host-a has 500 GB of disk and would need 600"),
    ],
)
def test_a_host_that_would_be_overfull_is_found_out(needs: Demand, expected: str) -> None:
    asked = snapshot([host()], [endpoint("ep_1", needs), endpoint("ep_2", needs)])
    both = Plan(at=NOW, placed=(place("ep_1"), place("ep_2")))
    assert violations(asked, both) == [expected]


# --- any snapshot ---------------------------------------------------------------------------


def test_a_replica_that_leaves_or_starts_cannot_give_way() -> None:
    gone = replica("ep_idle", needs=demand(4), unassign_at=at(9), drain_version=2)
    new = replica("ep_idle", needs=demand(4), generation=2, phase="starting", ready_at=None)
    for each in (gone, new):
        asked = snapshot([host()], [endpoint("ep_idle", state="running", required_replicas=-1)], [each])
        spoilt = Plan(at=NOW, giving_way=(GiveWay(each.replica_id, "ep_idle", ""),))
        assert f"{each.replica_id} would give way, but requests do not go to it" in violations(asked, spoilt)


def test_a_replica_that_helps_nobody_cannot_give_way() -> None:
    known = replica("ep_idle")
    idle = endpoint("ep_idle", state="running", required_replicas=0, idle_replicas=(known.replica_id,), idle_told_at=T0)
    spoilt = Plan(at=NOW, giving_way=(GiveWay(known.replica_id, "ep_idle", ""),))
    for others in ([], [endpoint("ep_1", demand(4, A100))]):
        asked = snapshot([host()], [idle, *others], [known])
        expected = "rep_ep_idle_1 would give way, but nobody who waits could have its room"
        assert expected in violations(asked, spoilt)


def test_what_somebody_desires_may_not_be_left_free() -> None:
    short = endpoint("ep_1", state="running", generation=1, desired_replicas=2, required_replicas=1)
    asked = snapshot([host()], [short], [replica("ep_1")])
    assert violations(asked, Plan(at=NOW)) == ["ep_1 desires more and it fits"]
    assert [each.generation for each in plan(asked, NOW).placed] == [2]


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    hosts = [
        host(
            f"host-{name}",
            draw(st.integers(0, 4)),
            draw(st.sampled_from([RTX, A100])),
            cpu_cores=draw(st.integers(1, 8)),
            state=draw(st.sampled_from(["up", "up", "up", "lost", "left"])),
            fenced=draw(st.booleans()) and draw(st.booleans()),
        )
        for name in "abcd"[: draw(st.integers(0, 4))]
    ]
    endpoints = [
        endpoint(
            f"ep_{number}",
            demand(draw(st.integers(0, 4)), draw(st.sampled_from([RTX, A100])), cpu_cores=draw(st.integers(1, 4))),
            after_s=draw(st.integers(0, 3)),
            state=draw(st.sampled_from(["queued", "starting", "running"])),
            desired_replicas=draw(st.integers(0, 3)),
            required_replicas=draw(st.integers(0, 3)),
            next_start_at=draw(st.sampled_from([None, at(4), at(9)])),
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    replicas = draw(filling(hosts)) if draw(st.booleans()) else []
    return snapshot(hosts, [*endpoints, *_owners(draw, replicas)], replicas)


LEAVING: list[dict[str, Any]] = [{}, {}, {}, {"unassign_at": at(9)}, {"unassign_at": at(290), "drain_version": 1}]


@st.composite
def filling(draw: st.DrawFn, hosts: list[Host]) -> list[Replica]:
    """Replicas of a few endpoints on what the hosts have, some of which drain or leave."""
    found: list[Replica] = []
    for each in hosts:
        free = [card.uuid for card in each.gpus]
        while each.state == "up" and free and draw(st.integers(0, 4)):
            count = draw(st.integers(1, len(free)))
            number = len(found) + 1
            found.append(
                replica(
                    f"ep_old_{draw(st.integers(0, 2))}_{count}_{each.gpus[0].type}",
                    each.host_id,
                    demand(count, each.gpus[0].type, cpu_cores=1),
                    gpu_uuids=tuple(free[:count]),
                    generation=number,
                    **draw(st.sampled_from(LEAVING)),
                )
            )
            free = free[count:]
    return found


def _owners(draw: st.DrawFn, replicas: list[Replica]) -> list[EndpointRecord]:
    found: list[EndpointRecord] = []
    for endpoint_id in sorted({each.endpoint_id for each in replicas}):
        mine = [each for each in replicas if each.endpoint_id == endpoint_id]
        staying = [each.replica_id for each in mine if not each.leaving]
        found.append(
            endpoint(
                endpoint_id,
                mine[0].demand,
                state="running",
                generation=99,
                desired_replicas=len(staying) + draw(st.integers(0, 2)),
                required_replicas=draw(st.sampled_from([0, 0, len(staying)])),
                idle_replicas=tuple(staying[draw(st.sampled_from([0, 0, 1])) :]),
                idle_told_at=draw(st.sampled_from([at(4), at(4), at(-20)])),
            )
        )
    return found


@settings(max_examples=300, deadline=None, derandomize=True)
@given(snapshots())
def test_no_plan_breaks_a_rule(asked: Snapshot) -> None:
    assert violations(asked, plan(asked, NOW)) == []


@settings(max_examples=300, deadline=None, derandomize=True)
@given(snapshots(), st.data())
def test_a_placement_changed_in_any_way_is_found_out(asked: Snapshot, data: st.DataObject) -> None:
    good = plan(asked, NOW)
    if not good.placed:
        return
    index = data.draw(st.integers(0, len(good.placed) - 1))
    one = good.placed[index]
    changed = data.draw(
        st.sampled_from(
            [
                replace(one, generation=one.generation + 5),
                replace(one, host_id="host-z"),
                replace(one, gpu_uuids=(*one.gpu_uuids, "GPU-more")),
                replace(one, gpu_uuids=one.gpu_uuids[1:]) if one.gpu_uuids else replace(one, generation=0),
                replace(one, endpoint_id="ep_z"),
            ]
        )
    )
    spoilt = replace(good, placed=(*good.placed[:index], changed, *good.placed[index + 1 :]))
    assert violations(asked, spoilt)
    assert violations(asked, replace(good, placed=(*good.placed, one)))
