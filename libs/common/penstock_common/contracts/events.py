"""Every fact, by owner. Subjects are `events.<owner>.<entity>.<fact>.v<N>` and are never reused."""

from typing import ClassVar, Literal

from penstock_common.contracts.base import Event, Message, UtcTime
from penstock_common.contracts.endpoint import EndpointSpec, PinnedSource

ReplicaPhase = Literal["fetching", "installing", "starting", "ready", "failed", "stopped"]
EndCause = Literal[
    "stopped",
    "crashed",
    "start_failed",
    "start_timeout",
    "unresponsive",
    "out_of_memory",
    "source_unavailable",
    "install_failed",
    "vanished",
    "host_lost",
    "host_left",
]

# --- owned by the API: what users asked for -------------------------------------------------


class EndpointRequest(Event):
    """Fields of every request about an endpoint. `version` grows with each, so late ones lose."""

    endpoint_id: str
    organization_id: str
    version: int


class EndpointRequested(EndpointRequest):
    """A user created an endpoint; its source is pinned."""

    message_type: ClassVar[str] = "events.api.endpoint.requested.v1"
    workspace_id: str
    workspace: str
    slug: str
    spec: EndpointSpec
    source: PinnedSource


class EndpointStopRequested(EndpointRequest):
    message_type: ClassVar[str] = "events.api.endpoint.stop_requested.v1"


class EndpointRestartRequested(EndpointRequest):
    message_type: ClassVar[str] = "events.api.endpoint.restart_requested.v1"


class EndpointTerminateRequested(EndpointRequest):
    message_type: ClassVar[str] = "events.api.endpoint.terminate_requested.v1"


# --- owned by the provisioner: what a host sees ---------------------------------------------


class ReplicaReported(Event):
    """What a host knows of one replica. `sequence` grows with each report of one replica."""

    message_type: ClassVar[str] = "events.provisioner.replica.reported.v1"
    host_id: str
    replica_id: str
    endpoint_id: str
    generation: int
    sequence: int
    phase: ReplicaPhase
    detail: str = ""
    address: str | None = None
    """`host:port` that the gateway sends requests to, once ready."""
    cause: EndCause | None = None
    exit_code: int | None = None
    log_tail: str = ""
    age_s: float = 0.0
    """How long before this message was made it was so, by the host's own clock."""


class LogLine(Message):
    """One line a replica printed. `offset` is its byte position in that replica's output."""

    message_type: ClassVar[str] = "logs.line.v1"
    offset: int
    at: UtcTime
    text: str


class LogBatch(Message):
    """Lines of one replica, in order, published on `logs.<host>`."""

    message_type: ClassVar[str] = "logs.batch.v1"
    host_id: str
    endpoint_id: str
    replica_id: str
    lines: tuple[LogLine, ...]


# --- owned by the scheduler: the lifecycle --------------------------------------------------


class EndpointFact(Event):
    """A transition of an endpoint. `version` orders all facts about one endpoint."""

    endpoint_id: str
    organization_id: str
    version: int
    at: UtcTime
    reason: str = ""


class EndpointQueued(EndpointFact):
    """There is no room yet: where it stands, what is missing, and when it may start."""

    message_type: ClassVar[str] = "events.scheduler.endpoint.queued.v1"
    position: int
    estimated_start_at: UtcTime | None = None


class EndpointStarting(EndpointFact):
    message_type: ClassVar[str] = "events.scheduler.endpoint.starting.v1"


class EndpointRunning(EndpointFact):
    message_type: ClassVar[str] = "events.scheduler.endpoint.running.v1"
    ready_replicas: int


class EndpointScaled(EndpointFact):
    """The number of replicas it aims for changed; `reason` is the autoscaler's, or names what has no room."""

    message_type: ClassVar[str] = "events.scheduler.endpoint.scaled.v1"
    desired_replicas: int
    ready_replicas: int


class EndpointIdle(EndpointFact):
    """It has scaled to zero; a request wakes it."""

    message_type: ClassVar[str] = "events.scheduler.endpoint.idle.v1"


class EndpointStopping(EndpointFact):
    message_type: ClassVar[str] = "events.scheduler.endpoint.stopping.v1"


class EndpointStopped(EndpointFact):
    message_type: ClassVar[str] = "events.scheduler.endpoint.stopped.v1"


class EndpointFailed(EndpointFact):
    """It cannot run; `reason` names the cause and the mend."""

    message_type: ClassVar[str] = "events.scheduler.endpoint.failed.v1"
    log_tail: str = ""


class EndpointTerminating(EndpointFact):
    message_type: ClassVar[str] = "events.scheduler.endpoint.terminating.v1"


class EndpointTerminated(EndpointFact):
    message_type: ClassVar[str] = "events.scheduler.endpoint.terminated.v1"


class ReplicaFact(Event):
    """A transition of a replica. `version` is the endpoint's, so both kinds share one order."""

    endpoint_id: str
    organization_id: str
    workspace_id: str
    replica_id: str
    host_id: str
    generation: int
    version: int
    at: UtcTime


class ReplicaScheduled(ReplicaFact):
    message_type: ClassVar[str] = "events.scheduler.replica.scheduled.v1"
    gpu_type: str | None
    gpu_uuids: tuple[str, ...]


class ReplicaProgressed(ReplicaFact):
    """A step towards ready: fetching, installing or starting."""

    message_type: ClassVar[str] = "events.scheduler.replica.progressed.v1"
    phase: ReplicaPhase
    detail: str = ""


class ReplicaStarted(ReplicaFact):
    """The replica became ready at `at`: it is billed from then on."""

    message_type: ClassVar[str] = "events.scheduler.replica.started.v1"
    gpu_type: str | None
    gpu_count: int
    cpu_cores: int


class ReplicaEnded(ReplicaFact):
    """The replica last ran at `at`. `was_ready` says whether it was billed."""

    message_type: ClassVar[str] = "events.scheduler.replica.ended.v1"
    cause: EndCause
    detail: str = ""
    exit_code: int | None = None
    was_ready: bool


class HostFact(Event):
    host_id: str
    at: UtcTime


class HostJoined(HostFact):
    message_type: ClassVar[str] = "events.scheduler.host.joined.v1"


class HostLost(HostFact):
    """The host was silent too long, or said it was leaving; `last_seen_at` is its last sign."""

    message_type: ClassVar[str] = "events.scheduler.host.lost.v1"
    last_seen_at: UtcTime
    reason: str


def _all_messages(root: type[Message]) -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for child in root.__subclasses__():
        if "message_type" in child.__dict__:
            found[child.message_type] = child
        found.update(_all_messages(child))
    return found


MESSAGES: dict[str, type[Message]] = _all_messages(Message)
"""Every published message by its type."""
