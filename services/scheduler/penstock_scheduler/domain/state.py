"""What the scheduler knows and decides, as frozen data. Times are UTC, of one clock: PostgreSQL's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from penstock_common.contracts.base import Event
from penstock_common.contracts.endpoint import EndpointSpec, EndpointState, PinnedSource
from penstock_common.contracts.events import EndCause
from penstock_common.contracts.questions import CPU_TYPE

HostState = Literal["up", "lost", "left"]
Phase = Literal["scheduled", "fetching", "installing", "starting", "ready", "ended"]
RequestKind = Literal["stop", "restart", "terminate"]

WANTED_STATES: frozenset[EndpointState] = frozenset({"queued", "starting", "running"})
"""States of an endpoint whose user wants it to run, and that still may, but for those that sleep."""
SCALABLE_STATES: frozenset[EndpointState] = WANTED_STATES | {"idle"}
"""States in which the number of replicas follows the load."""
ONE_MACHINE_ENDS: frozenset[EndCause] = frozenset({"vanished", "host_lost", "host_left"})
"""Ends that are no fault of the model."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Every limit that decisions go by."""

    lost_after: timedelta = timedelta(seconds=10)
    """A host silent for so long is lost."""
    drain: timedelta = timedelta(seconds=1)
    """From a ready replica's leaving the route to the end of its assignment."""
    drain_limit: timedelta = timedelta(minutes=5)
    """A replica that a scale-down drains is ended after so long, whatever it still works on."""
    idle_fresh: timedelta = timedelta(seconds=15)
    """For so long after the autoscaler said that a replica is idle, it counts as idle."""
    idle_told_every: timedelta = timedelta(seconds=5)
    """The same idle replicas are noted anew no more often."""
    purge_after: timedelta = timedelta(days=14)
    """An endpoint stopped for so long is terminated."""
    forgotten_after: timedelta = timedelta(seconds=5)
    """A replica told to stop that its host has not mentioned for so long never ran there."""
    crashes_until_failed: int = 3
    healthy_after: timedelta = timedelta(minutes=5)
    """A replica ready for so long was healthy: its crash is the first in a row."""
    backoff_first: timedelta = timedelta(seconds=1)
    backoff_max: timedelta = timedelta(seconds=60)
    notice_every: timedelta = timedelta(seconds=1)
    """A waiting endpoint is told of its changed position no more often."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica needs, all of it on one host."""

    cpu_cores: int
    memory_gb: int
    disk_gb: int
    gpu_type: str | None = None
    gpu_count: int = 0

    @property
    def line(self) -> str:
        """The queue it stands in: one for each GPU type, and one for the CPU."""
        return self.gpu_type or CPU_TYPE


def demand_of(spec: EndpointSpec) -> Demand:
    """What each replica of an endpoint needs."""
    resources = spec.resources
    return Demand(
        cpu_cores=resources.cpu_cores,
        memory_gb=resources.memory_gb,
        disk_gb=resources.disk_gb,
        gpu_type=spec.gpu.type if spec.gpu else None,
        gpu_count=spec.gpu.count if spec.gpu else 0,
    )


@dataclass(frozen=True, slots=True)
class Gpu:
    uuid: str
    type: str
    memory_gb: int


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that runs replicas, as its heartbeats describe it."""

    host_id: str
    state: HostState
    boot_id: str
    driver: str
    cpu_cores: int
    memory_gb: int
    disk_gb: int
    simulated: bool
    last_seen_at: datetime
    gpus: tuple[Gpu, ...] = ()
    fenced: bool = False
    """It still runs replicas that are not its own any more, so nothing new goes there yet."""

    @property
    def usable(self) -> bool:
        """Whether replicas may be placed there now."""
        return self.state == "up" and not self.fenced

    def gpu_count(self, gpu_type: str | None) -> int:
        """How many GPUs of this type it has, used or not."""
        return sum(gpu.type == gpu_type for gpu in self.gpus)


@dataclass(frozen=True, slots=True)
class Replica:
    """One attempt to run an endpoint: placed once, ended once."""

    replica_id: str
    endpoint_id: str
    host_id: str
    generation: int
    demand: Demand
    gpu_uuids: tuple[str, ...]
    phase: Phase
    scheduled_at: datetime
    sequence: int = 0
    """Of the last report applied; older ones change nothing."""
    detail: str = ""
    address: str | None = None
    ready_at: datetime | None = None
    unassign_at: datetime | None = None
    """When its assignment is to be deleted; set once the replica is not wanted any more. While it drains
    this is the end of the drain limit."""
    drain_version: int | None = None
    """Version of the first route that says it drains; None while it does not."""
    gives_way: bool = False
    """It drains for an endpoint that waits, so a scale-up does not bring it back."""
    unassigned_at: datetime | None = None
    """When its assignment was deleted."""
    ended_at: datetime | None = None
    cause: EndCause | None = None
    exit_code: int | None = None

    @property
    def live(self) -> bool:
        return self.ended_at is None

    @property
    def leaving(self) -> bool:
        """Whether it was, or is about to be, told to stop."""
        return self.unassign_at is not None

    @property
    def routable(self) -> bool:
        """Whether new requests may go to it."""
        return self.live and self.phase == "ready" and not self.leaving and self.address is not None

    @property
    def draining(self) -> bool:
        """Whether it finishes its requests in the route, and may still be brought back."""
        return self.live and self.drain_version is not None and self.unassigned_at is None


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """Where an endpoint stands. What it is, is its Definition."""

    endpoint_id: str
    state: EndpointState
    demand: Demand
    desired_replicas: int
    """How many replicas it aims for; 0 once it is to sleep."""
    requested_at: datetime
    """Its place in the queue counts from here."""
    request_version: int
    """Of the last request applied; older ones change nothing."""
    required_replicas: int = 0
    """Of those desired, how many must run: the others give way when they are idle."""
    version: int = 0
    """Grows with each fact."""
    route_version: int = 0
    """Version of the route that last changed what the autoscaler decides from."""
    reason: str = ""
    shortage: str = ""
    """What there is no room for, when fewer run than desired; see reasons.short()."""
    position: int | None = None
    estimated_start_at: datetime | None = None
    told_at: datetime | None = None
    """When it was last told its position."""
    generation: int = 0
    """Of the last replica placed."""
    crash_streak: int = 0
    crashed_at: datetime | None = None
    next_start_at: datetime | None = None
    """No replica is placed before: it waits after a crash."""
    stopped_at: datetime | None = None
    idle_since: datetime | None = None
    """Since when it sleeps."""
    idle_replicas: tuple[str, ...] = ()
    """Replicas without a request, as the autoscaler last said."""
    idle_told_at: datetime | None = None
    restart_wanted: bool = False
    """It starts again once it has stopped."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What never changes about an endpoint, but for the trace of the last request to start it."""

    endpoint_id: str
    organization_id: str
    workspace_id: str
    workspace: str
    slug: str
    spec: EndpointSpec
    source: PinnedSource
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """An endpoint with its replicas: those that live, and those that a transition just ended."""

    definition: Definition
    endpoint: EndpointRecord
    replicas: tuple[Replica, ...] = ()

    @property
    def live(self) -> tuple[Replica, ...]:
        return tuple(replica for replica in self.replicas if replica.live)

    @property
    def staying(self) -> tuple[Replica, ...]:
        """Those that live and are not about to end."""
        return tuple(replica for replica in self.live if not replica.leaving)

    def replica(self, replica_id: str) -> Replica | None:
        """The replica of this id, if it lives."""
        return next((replica for replica in self.live if replica.replica_id == replica_id), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transition leads to: the new state, and the facts to tell, in order."""

    deployment: Deployment
    facts: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of when a reported end was."""

    told_at: datetime
    """It was over by then: when NATS got the report, or now if it came with a heartbeat."""
    last_alive_at: datetime
    """When the host last said that the replica runs."""
    silence_counts: bool
    """Whether silence between the two was the host's or NATS's, not this scheduler's own absence."""


@dataclass(frozen=True, slots=True)
class EarlyRequest:
    """The newest request about an endpoint whose creation has not arrived yet."""

    endpoint_id: str
    kind: RequestKind
    version: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that planning needs to know."""

    policy: Policy
    hosts: tuple[Host, ...]
    endpoints: tuple[EndpointRecord, ...]
    """Those wanted to run, those with live replicas, and those stopped for long."""
    replicas: tuple[Replica, ...]
    """Those that live."""
    reserved: frozenset[str]
    """UUIDs of the GPUs that live replicas hold."""
    listening_since: datetime
    """Since when this scheduler can hear hosts; silence from before says nothing."""
    alive_at: Mapping[str, datetime] = field(default_factory=dict)
    """Replica → when its host last said that it runs, where that is known."""
    unmentioned: frozenset[str] = frozenset()
    """Replicas told to stop that their host's latest heartbeat does not know."""
    release_s: float | None = None
    """How long replicas lately took to stop, in seconds; None while there is no experience."""
    next_purge_at: datetime | None = None


def without_twins(hosts: tuple[Host, ...]) -> tuple[Host, ...]:
    """The hosts, with each GPU counted once: on the first of those that are up and claim to have it.

    Two provisioners on one machine see the same cards.
    """
    seen: set[str] = set()
    found: list[Host] = []
    for host in hosts:
        if host.state == "up":
            own = tuple(gpu for gpu in host.gpus if gpu.uuid not in seen)
            seen.update(gpu.uuid for gpu in own)
            host = host if len(own) == len(host.gpus) else replace(host, gpus=own)
        found.append(host)
    return tuple(found)
