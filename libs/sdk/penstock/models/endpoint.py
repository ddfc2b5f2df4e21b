"""Endpoints: what they were asked to be, what they are, and what happened to them."""

from pydantic import BaseModel, ConfigDict

from penstock.models.base import Micros, Result, Utc

ENDED_STATES = frozenset({"failed", "terminated"})
"""Nothing runs any more, nor will again."""


class Parameter(BaseModel):
    """One field of a route's JSON body."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    """`str`, `int`, `float`, `bool`, `dict` or `list`."""
    optional: bool = False
    default_value: str | None = None
    """Used when an optional field is left out, as a Python literal: `None`, `"a"`, `[1]`."""


class Route(BaseModel):
    """Which function of the model's code answers which request."""

    model_config = ConfigDict(frozen=True)

    path: str
    file: str
    """Python file in the source, with or without `.py`."""
    function: str
    verb: str = "POST"
    positional: bool = False
    """Pass the body's fields by position, in the order given, instead of by keyword."""
    body: tuple[Parameter, ...] = ()


class GitSource(Result):
    kind: str = "git"
    uri: str = ""
    ref: str = ""


class GpuRequest(Result):
    type: str
    count: int = 1


class Resources(Result):
    cpu_cores: int
    memory_gb: int
    disk_gb: int


class ScheduledMinimum(BaseModel):
    """A window of time in which more replicas run at least, such as office hours."""

    model_config = ConfigDict(frozen=True)

    start: str
    """When it opens, as a cron line of five fields, such as `0 8 * * 1-5`."""
    end: str
    min_replicas: int
    time_zone: str = "UTC"
    """Of both lines, as the IANA names it."""


class Scaling(Result):
    min_replicas: int
    """0 for an endpoint that sleeps when nobody calls it."""
    max_replicas: int
    idle_timeout_s: int | None = None
    scale_down_delay_s: int | None = None
    queue_wait_target_s: float | None = None
    schedule: tuple[ScheduledMinimum, ...] = ()
    target_concurrency: int
    queue_limit: int
    queue_timeout_s: int


class ScalingDecision(Result):
    """A change of the number of replicas that the platform aims for, and its reason."""

    at: Utc
    desired_replicas: int
    ready_replicas: int = 0
    reason: str = ""


class EndpointSpec(Result):
    """Everything that was said when the endpoint was created; it never changes."""

    name: str
    workspace: str
    source: GitSource
    routes: tuple[Route, ...]
    gpu: GpuRequest | None = None
    resources: Resources | None = None
    scaling: Scaling | None = None
    public: bool = False


class PinnedSource(Result):
    """The commit and the resolved requirements that every start of the endpoint uses."""

    uri: str = ""
    ref: str = ""
    commit: str = ""
    requirements: str = ""


class Replica(Result):
    """One running copy of the model."""

    id: str
    host_id: str = ""
    phase: str = ""
    detail: str = ""
    generation: int = 0
    gpu_uuids: tuple[str, ...] = ()
    scheduled_at: Utc | None = None
    ready_at: Utc | None = None


class EndpointData(Result):
    """An endpoint as it was when the API answered."""

    id: str
    name: str
    slug: str
    workspace: str
    organization_id: str = ""
    state: str
    """queued, starting, running, idle, stopping, stopped, failed, terminating or terminated."""
    reason: str = ""
    position: int | None = None
    """Place in the queue, from 1."""
    estimated_start_at: Utc | None = None
    spec: EndpointSpec
    source: PinnedSource | None = None
    url: str
    host_url: str = ""
    price_micros_per_hour: Micros | None = None
    currency: str | None = None
    replicas: tuple[Replica, ...] = ()
    ready_replicas: int = 0
    """How many of them are ready for requests."""
    desired_replicas: int = 0
    """How many the platform aims for now."""
    idle_since: Utc | None = None
    """Since when it sleeps, while its state is idle: the next request wakes it."""
    scaling_decisions: tuple[ScalingDecision, ...] = ()
    """The last changes of the number of replicas, newest first."""
    log_tail: str | None = None
    """The last lines of its log; only of a failed endpoint."""
    example_command: str = ""
    created_at: Utc
    updated_at: Utc | None = None
    started_at: Utc | None = None

    @property
    def full_name(self) -> str:
        """`workspace/slug`, which finds it again."""
        return f"{self.workspace}/{self.slug}"


class Forecast(Result):
    """What would happen if an endpoint were created now."""

    starts_now: bool
    position: int | None = None
    reason: str = ""
    price_micros_per_hour: Micros | None = None
    currency: str | None = None
    source: PinnedSource | None = None
    url: str = ""


class LifecycleEvent(Result):
    """One line of an endpoint's history."""

    id: int
    at: Utc
    type: str
    """Such as `endpoint.queued` or `replica.progressed`."""
    phase: str
    """As users see it: queued, scheduled, fetching source, installing, starting, running, …"""
    message: str = ""
    replica_id: str | None = None


class LogLine(Result):
    """One line that a replica printed."""

    id: int | str
    at: Utc
    replica_id: str
    text: str
