"""Whatever users, hosts and luck do: no GPU twice, none leaked, none idle while the first in line fits."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_common.contracts.events import EndpointFact, ReplicaEnded, ReplicaFact, ReplicaStarted
from penstock_common.contracts.questions import CPU_TYPE
from penstock_scheduler.domain import SCALABLE_STATES, WANTED_STATES, Deployment, EndpointRecord, Host
from penstock_scheduler.records import assignment_key, assignment_of, content_of, route_of

from .builders import RTX, at, inventory, spec
from .world import World, go

A100 = "A100"
HOSTS = {"host-a": inventory(4, host_id="host-a"), "host-b": inventory(2, host_id="host-b")}
HOSTS["host-c"] = inventory(3, A100, cpu_cores=4, host_id="host-c")
SPECS = [
    spec(1),
    spec(2),
    spec(4),
    spec(1, replicas=3),
    spec(2, A100, cpu_cores=2),
    spec(1, A100),
    spec(cpu_cores=6),
    spec(1, "RTX 9090"),
    spec(1, replicas=0, most=3),
    spec(2, replicas=0),
    spec(1, replicas=1, most=4),
]

numbers = st.integers(0, len(SPECS) - 1)
steps = st.one_of(
    st.tuples(st.just("create"), numbers),
    st.tuples(st.sampled_from(["stop", "restart", "terminate", "ready", "crash", "repeat"]), numbers),
    st.tuples(st.just("scale"), st.tuples(numbers, st.integers(0, 4), st.integers(0, 2), st.integers(0, 3))),
    st.tuples(st.just("scale"), st.tuples(numbers, st.integers(0, 4), st.just(0), st.just(0))),
    st.tuples(st.sampled_from(["silence", "revive", "leave", "boot"]), st.sampled_from(sorted(HOSTS))),
    st.tuples(st.sampled_from(["obey", "deafen", "restart scheduler"]), st.just(0)),
    st.tuples(st.just("advance"), st.sampled_from([0.25, 1, 2, 5, 11, 301])),
)


class Story:
    """A world to which random things happen; `check` holds after each."""

    def __init__(self) -> None:
        self.world = World()
        self.created = 0
        for host_id, parts in HOSTS.items():
            self.world.join(host_id, parts)

    def do(self, what: str, which: Any) -> None:
        world = self.world
        endpoint_id = f"ep_{which}"
        if what == "create":
            self.created += 1
            world.create(f"ep_{self.created}", SPECS[which])
        elif what in ("stop", "restart", "terminate"):
            if endpoint_id in world.store.records:
                world.ask(what, endpoint_id)  # type: ignore[arg-type]
        elif what == "scale":
            self.scale(*which)
        elif what == "ready":
            world.ready(endpoint_id)
        elif what == "crash":
            world.crash(endpoint_id)
        elif what == "repeat":
            for sim in list(world.hosts.values()):
                for said in list(sim.reports.values()):
                    world.hear_report(said)
        elif what in ("silence", "revive"):
            world.change_host(which, up=what == "revive")
        elif what == "leave":
            world.beat(which, leaving=True)
            world.change_host(which, up=False)
        elif what == "boot":
            world.change_host(which, boot_id=f"boot-{world.elapsed_s}", reports={}, up=True)
        elif what == "obey":
            world.obey()
        elif what == "deafen":
            world.connected = not world.connected
        elif what == "restart scheduler":
            world.restart_scheduler()
        else:
            world.advance(which)

    def scale(self, which: int, replicas: int, working: int, age: int) -> None:
        """A wish of some age, while the oldest replicas of the endpoint work."""
        world, endpoint_id = self.world, f"ep_{which}"
        route = world.store.routes.get(endpoint_id)
        if route is None:
            return
        busy = tuple(each.replica_id for each in route.replicas[:working])
        desired = route.desired_replicas
        reply = world.scale(endpoint_id, replicas, busy=busy, route_version=route.version - age)
        now = world.store.routes[endpoint_id]
        if reply.accepted:
            limits = route.scaling
            assert reply.desired_replicas == min(max(replicas, limits.min_replicas), limits.max_replicas)
        else:
            assert now == route
        assert reply.accepted or age > 0 or route.state not in SCALABLE_STATES
        assert reply.version <= now.version
        if desired and not reply.desired_replicas:
            assert all(each.draining for each in now.replicas)

    def settle(self) -> None:
        """All is well again: hosts are up and heard, and do as they are told."""
        self.world.connected = True
        for host_id in HOSTS:
            self.world.change_host(host_id, up=True)
        for _ in range(4):
            self.world.advance(8)
            self.world.obey()
        self.world.advance(65)


def check(world: World) -> None:
    store = world.store
    live = [each for each in store.all_replicas.values() if each.live]
    held = Counter(gpu_uuid for each in live for gpu_uuid in each.gpu_uuids)
    assert all(times == 1 for times in held.values())
    assert set(held) == set(store.reservations)
    for host_id, known in store.all_hosts.items():
        here = [each for each in live if each.host_id == host_id]
        assert known.state == "up" or not here
        assert sum(each.demand.cpu_cores for each in here) <= known.cpu_cores
    for endpoint_id, record in store.records.items():
        mine = [each for each in live if each.endpoint_id == endpoint_id]
        assert len([each for each in mine if not each.leaving]) <= record.desired_replicas
        if record.state in ("idle", "stopped", "terminated"):
            assert not mine
        if record.state == "queued":
            assert all(each.leaving for each in mine)
        if record.state == "running" and record.desired_replicas:
            assert any(each.routable for each in mine)
        assert (record.state == "idle") == (record.idle_since is not None)
        assert record.route_version <= store_version(world, endpoint_id)
        if record.state in ("stopping", "terminating", "failed"):
            assert all(each.leaving for each in mine)
    check_buckets(world)
    check_facts(world)


def store_version(world: World, endpoint_id: str) -> int:
    """Of the route that the gateway has; the endpoint's own once there is none."""
    route = world.store.routes.get(endpoint_id)
    return world.record(endpoint_id).version if route is None else route.version


def check_buckets(world: World) -> None:
    store = world.store
    expected = {
        assignment_key(each): assignment_of(store.definitions[each.endpoint_id], each)
        for each in store.all_replicas.values()
        if each.live and each.unassigned_at is None
    }
    assert store.assignments == expected
    routes = {endpoint_id: route_of(deployment(world, endpoint_id)) for endpoint_id in store.records}
    assert set(store.routes) == {endpoint_id for endpoint_id, route in routes.items() if route is not None}
    for endpoint_id, found in store.routes.items():
        wanted = routes[endpoint_id]
        assert wanted is not None
        assert content_of(found) == content_of(wanted)


def deployment(world: World, endpoint_id: str) -> Deployment:
    found = go(world.store.deployment(endpoint_id))
    assert found is not None
    return found


def check_facts(world: World) -> None:
    """Versions count every fact of an endpoint; a replica starts and ends once, in that order."""
    versions: Counter[str] = Counter()
    started: dict[str, Any] = {}
    ended: set[str] = set()
    for fact in world.store.facts:
        if isinstance(fact, EndpointFact | ReplicaFact):
            versions[fact.endpoint_id] += 1
            assert fact.version == versions[fact.endpoint_id]
            assert fact.at <= at(world.elapsed_s)
        if isinstance(fact, ReplicaStarted):
            assert fact.replica_id not in started
            assert fact.replica_id not in ended
            started[fact.replica_id] = fact.at
        if isinstance(fact, ReplicaEnded):
            assert fact.replica_id not in ended
            ended.add(fact.replica_id)
            assert fact.was_ready == (fact.replica_id in started)
            assert fact.at >= started.get(fact.replica_id, fact.at)


def missing(world: World, record: EndpointRecord, of: int) -> bool:
    staying = [each for each in world.live(record.endpoint_id) if not each.leaving]
    possible = record.state in WANTED_STATES and "9090" not in (record.demand.gpu_type or "")
    return possible and len(staying) < min(of, record.desired_replicas)


def check_nobody_waits_in_vain(world: World) -> None:
    """Once everything has settled, the first of each line does not fit anywhere; and nothing that is
    desired fits when nobody waits for what it must have."""
    store = world.store
    firsts: dict[str, EndpointRecord] = {}
    for record in sorted(store.records.values(), key=lambda each: (each.requested_at, each.endpoint_id)):
        if missing(world, record, max(1, record.required_replicas)):
            assert record.next_start_at is None or record.next_start_at > at(world.elapsed_s)
            firsts.setdefault(record.demand.gpu_type or CPU_TYPE, record)
    if not firsts:
        short = [record for record in store.records.values() if missing(world, record, record.desired_replicas)]
        assert not any(fits(world, record, known) for record in short for known in store.all_hosts.values())
        assert all(record.shortage for record in short)
    for line, record in firsts.items():
        others = [each for other, each in firsts.items() if other != line]
        for known in store.all_hosts.values():
            kept_for_others = any(known.gpu_count(each.demand.gpu_type) >= each.demand.gpu_count for each in others)
            assert kept_for_others or not fits(world, record, known), (record, known)


def fits(world: World, record: EndpointRecord, known: Host) -> bool:
    here = [each.demand for each in world.store.all_replicas.values() if each.live and each.host_id == known.host_id]
    free = [
        gpu for gpu in known.gpus if gpu.type == record.demand.gpu_type and gpu.uuid not in world.store.reservations
    ]
    return (
        known.usable
        and len(free) >= record.demand.gpu_count
        and known.cpu_cores - sum(each.cpu_cores for each in here) >= record.demand.cpu_cores
        and known.memory_gb - sum(each.memory_gb for each in here) >= record.demand.memory_gb
        and known.disk_gb - sum(each.disk_gb for each in here) >= record.demand.disk_gb
    )


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(steps, max_size=40))
def test_whatever_happens_the_rules_hold(history: list[tuple[str, Any]]) -> None:
    story = Story()
    for what, which in history:
        story.do(what, which)
        check(story.world)
    story.settle()
    check(story.world)
    check_nobody_waits_in_vain(story.world)
    for record in story.world.store.records.values():
        assert record.state not in ("stopping", "terminating")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(steps, max_size=30))
def test_everything_terminated_leaves_nothing(history: list[tuple[str, Any]]) -> None:
    story = Story()
    for what, which in history:
        story.do(what, which)
    for endpoint_id in list(story.world.store.records):
        story.world.ask("terminate", endpoint_id)
    story.settle()
    store = story.world.store
    assert {record.state for record in store.records.values()} <= {"terminated"}
    assert (store.assignments, store.routes, store.reservations) == ({}, {}, {})
    assert not any(each.live for each in store.all_replicas.values())


def test_a_gpu_type_that_nobody_has_is_the_only_one_that_waits_for_ever() -> None:
    story = Story()
    story.do("create", 7)
    story.do("create", 0)
    story.settle()
    assert story.world.state("ep_1") == "queued"
    assert story.world.only("ep_2").demand.gpu_type == RTX
