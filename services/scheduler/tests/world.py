"""A scheduler in memory, with hosts that obey it and a clock that tests move."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prometheus_client import REGISTRY

from penstock_common.contracts.base import Event
from penstock_common.contracts.endpoint import EndpointSpec
from penstock_common.contracts.events import (
    EndpointRestartRequested,
    EndpointStopRequested,
    EndpointTerminateRequested,
    ReplicaPhase,
    ReplicaReported,
)
from penstock_common.contracts.heartbeat import Inventory
from penstock_common.contracts.questions import ScaleReply
from penstock_scheduler import handlers
from penstock_scheduler.domain import EndpointRecord, Policy, Replica, RequestKind
from penstock_scheduler.handlers import Context
from penstock_scheduler.heartbeats import Hearing, Heartbeats
from penstock_scheduler.planner import Planner
from penstock_scheduler.records import assignment_key

from .builders import at, heartbeat, inventory, received, report, requested, scaling_wish, spec
from .fake_store import FakeStore

T = TypeVar("T")
F = TypeVar("F", bound=Event)

BEAT_S = 2.0
STEP_S = 0.25
REQUESTS = {
    "stop": EndpointStopRequested,
    "restart": EndpointRestartRequested,
    "terminate": EndpointTerminateRequested,
}


def go(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits for something")


def refused_plans() -> float:
    # Only this one is asked: the registry holds the metrics of every service that a test of this process imported.
    (metric,) = REGISTRY.restricted_registry(["penstock_scheduler_plans_refused_total"]).collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


@dataclass
class SimHost:
    """A machine with a provisioner that keeps the last report of each replica it ran."""

    parts: Inventory
    boot_id: str = "boot-1"
    up: bool = True
    reports: dict[str, ReplicaReported] = field(default_factory=dict)


class World:
    """`advance` lets time pass: hosts send heartbeats, and the planner does what is due."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.elapsed_s = 0.0
        self.store = FakeStore()
        self.hosts: dict[str, SimHost] = {}
        self.connected = True
        self._versions: dict[str, int] = {}
        self._policy = policy or Policy()
        self.restart_scheduler()

    def restart_scheduler(self) -> None:
        """A new process: what was in memory only is gone."""
        self.heartbeats = Heartbeats()
        self.heartbeats.remember(go(self.store.hosts()))
        self.context = Context(self._policy, self.heartbeats, lambda: self.elapsed_s)
        self.heartbeats.stay_awake(self.elapsed_s)
        self.hearing = Hearing(self.elapsed_s)
        self.planner = Planner(self._transaction, self.context, self.hearing)
        self._due_s = self.elapsed_s

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[FakeStore]:
        yield self.store

    # --- time

    def advance(self, seconds: float) -> None:
        end_s = self.elapsed_s + seconds
        while self.elapsed_s < end_s:
            self._set_time(min(end_s, self.elapsed_s + STEP_S))
            if self.elapsed_s % 1.0 == 0:
                self.heartbeats.stay_awake(self.elapsed_s)
                self.hearing.tick(self.elapsed_s, self.connected)
            if self.elapsed_s % BEAT_S == 0:
                self.beat_all()
            if self.elapsed_s >= self._due_s:
                self.plan()

    def stand_still(self, seconds: float) -> None:
        """Time passes, and this scheduler notices nothing of it: it is stopped, or away."""
        self._set_time(self.elapsed_s + seconds)

    def _set_time(self, elapsed_s: float) -> None:
        self.elapsed_s = elapsed_s
        self.store.clock = at(elapsed_s)

    def plan(self) -> None:
        """Plan until nothing more is due now. A plan that breaks a rule fails the test."""
        for _ in range(50):
            refused = refused_plans()
            told = len(self.store.facts)
            wait_s = go(self.planner.plan_once())
            assert refused_plans() == refused
            self._due_s = self.elapsed_s + wait_s
            if wait_s > 0 and len(self.store.facts) == told:
                return
        raise AssertionError("planning comes to no end")

    # --- users

    def create(self, endpoint_id: str, spec: EndpointSpec | None = None) -> None:
        self._versions[endpoint_id] = 1
        go(handlers.endpoint_requested(received(requested(endpoint_id, spec)), self.store, context=self.context))
        self.plan()

    def ask(self, kind: RequestKind, endpoint_id: str) -> None:
        self._versions[endpoint_id] += 1
        message = REQUESTS[kind](endpoint_id=endpoint_id, organization_id="org_a", version=self._versions[endpoint_id])
        go(handlers.endpoint_request(received(message), self.store, kind=kind, context=self.context))
        self.plan()

    def scale(self, endpoint_id: str, replicas: int, **fields: Any) -> ScaleReply:
        """The autoscaler's wish, made from the route as it is unless a version is given."""
        wish = scaling_wish(self.store.routes[endpoint_id], replicas, **fields)
        reply, news = go(handlers.scale(wish, self.store, context=self.context))
        if news:
            self.plan()
        return reply

    # --- hosts

    def join(self, host_id: str = "host-a", parts: Inventory | None = None) -> None:
        self.hosts[host_id] = SimHost(parts or inventory(host_id=host_id))
        self.beat(host_id)

    def beat(self, host_id: str, *, leaving: bool = False) -> None:
        """One heartbeat, as the scheduler hears it if it can."""
        sim = self.hosts[host_id]
        if not self.connected:
            return
        message = heartbeat(
            host_id, sim.parts, boot_id=sim.boot_id, reports=tuple(sim.reports.values()), leaving=leaving
        )
        self.heartbeats.hear(message, self.elapsed_s)
        for news in self.heartbeats.news():
            go(handlers.host_heard(news, self.store, context=self.context))
            self.heartbeats.handled(news)
            self.plan()
        go(self.store.saw_hosts(self.heartbeats.take_unsaved(self.elapsed_s)))

    def beat_all(self) -> None:
        for host_id in sorted(self.hosts):
            if self.hosts[host_id].up:
                self.beat(host_id)

    def report(self, replica: Replica, phase: ReplicaPhase, **fields: Any) -> ReplicaReported:
        """A host reports a replica; the next sequence unless one is given."""
        sim = self.hosts[replica.host_id]
        last = sim.reports.get(replica.replica_id)
        sequence = fields.pop("sequence", last.sequence + 1 if last else 1)
        waited_s = fields.pop("waited_s", 0.0)
        said = report(replica, sequence, phase, **fields)
        if last is None or last.sequence < sequence:
            sim.reports[replica.replica_id] = said
        self.hear_report(said, waited_s=waited_s)
        return said

    def hear_report(self, said: ReplicaReported, *, waited_s: float = 0.0) -> None:
        """The report comes over the stream, after it waited there."""
        go(handlers.replica_reported(received(said, waited_s=waited_s), self.store, context=self.context))
        self.plan()

    def ready(self, endpoint_id: str) -> None:
        """Every replica of the endpoint that is on its way becomes ready."""
        for each in self.live(endpoint_id):
            if each.phase != "ready" and not each.leaving:
                self.report(each, "ready")

    def crash(self, endpoint_id: str, **fields: Any) -> None:
        """Each replica of the endpoint crashes."""
        for each in self.live(endpoint_id):
            self.report(each, "failed", **{"cause": "crashed", "exit_code": 1, "log_tail": "boom\n", **fields})

    def obey(self) -> None:
        """Hosts that are up stop what they were told to stop."""
        for each in list(self.store.all_replicas.values()):
            sim = self.hosts[each.host_id]
            gone = assignment_key(each) not in self.store.assignments
            last = sim.reports.get(each.replica_id)
            over = last is not None and last.phase in ("failed", "stopped")
            if sim.up and gone and not over and (each.live or last is not None):
                self.report(each, "stopped", cause="stopped")

    # --- looking

    def record(self, endpoint_id: str) -> EndpointRecord:
        return self.store.records[endpoint_id]

    def state(self, endpoint_id: str) -> str:
        return self.record(endpoint_id).state

    def live(self, endpoint_id: str) -> list[Replica]:
        return [each for each in self.store.all_replicas.values() if each.live and each.endpoint_id == endpoint_id]

    def only(self, endpoint_id: str) -> Replica:
        [found] = self.live(endpoint_id)
        return found

    def told(self, endpoint_id: str) -> list[str]:
        """Names of the facts told about an endpoint and its replicas, in order."""
        return [type(fact).__name__ for fact in self.store.facts if getattr(fact, "endpoint_id", "") == endpoint_id]

    def facts(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.store.facts if isinstance(fact, kind)]

    def change_host(self, host_id: str, **fields: Any) -> None:
        self.hosts[host_id] = replace(self.hosts[host_id], **fields)


def running(world: World, *, replicas: int = 1, least: int = 0, most: int = 4) -> None:
    """`ep_1` runs with so many replicas, each on a GPU of its own."""
    world.create("ep_1", spec(1, replicas=least, most=most))
    world.ready("ep_1")
    world.scale("ep_1", replicas)
    world.ready("ep_1")


def ids(replicas: list[Replica]) -> list[str]:
    return [each.replica_id for each in replicas]


def drains(world: World, endpoint_id: str = "ep_1") -> list[str]:
    """Replicas that the gateway is told drain."""
    return [each.replica_id for each in world.store.routes[endpoint_id].replicas if each.draining]
