"""Questions between services (`rpc.<service>.<verb>`) and their answers: small and idempotent."""

from typing import ClassVar, Literal

from pydantic import Field

from penstock_common.contracts.base import Contract, Question, UtcTime
from penstock_common.contracts.endpoint import GitSource, GpuRequest, PinnedSource, Resources, RouteSpec

Grouping = Literal["endpoint", "day", "gpu_type"]
CPU_TYPE = "CPU"
"""What a CPU-only replica is priced and counted as, where GPU replicas have their GPU type."""


class FieldProblem(Contract):
    """Something wrong with one field of a request, and how to mend it."""

    field: str = Field(description="Field at fault, such as `routes.0.function`.", examples=["routes.0.function"])
    message: str = Field(description="What is wrong and how to mend it.")


# --- asked of the scheduler -----------------------------------------------------------------


class GpuCapacity(Contract):
    """How much there is of one GPU type (or of CPU slots)."""

    type: str
    memory_gb: int
    total: int
    free: int
    startable_counts: tuple[int, ...]
    """The counts, of 1 to 4, for which one replica could start right now on one host."""


class CapacityReply(Contract):
    gpus: tuple[GpuCapacity, ...]
    cpu: GpuCapacity
    hosts: int


class AskCapacity(Question):
    rpc: ClassVar[str] = "rpc.scheduler.capacity"
    reply: ClassVar[type[Contract]] = CapacityReply


class ForecastReply(Contract):
    """What would happen to a new endpoint: start now, or wait, and why."""

    starts_now: bool
    position: int | None = None
    reason: str
    problems: tuple[FieldProblem, ...] = ()
    """Requests that no host could ever satisfy."""


class AskForecast(Question):
    rpc: ClassVar[str] = "rpc.scheduler.forecast"
    reply: ClassVar[type[Contract]] = ForecastReply
    gpu: GpuRequest | None
    resources: Resources
    replicas: int


class ScaleReply(Contract):
    """What became of a wish for replicas."""

    accepted: bool
    """False for one made from an older route than the endpoint's, or for an endpoint that does not run."""
    desired_replicas: int
    version: int
    """Version of the route that holds after this; the next wish is made from it."""
    reason: str = ""


class ScaleEndpoint(Question):
    """How many replicas the autoscaler wants. Asked on every change and again every few seconds, so a
    wish that was lost is made good; the same wish again changes nothing."""

    rpc: ClassVar[str] = "rpc.scheduler.scale"
    reply: ClassVar[type[Contract]] = ScaleReply
    endpoint_id: str
    route_version: int
    """Version of the route that the decision was made from."""
    replicas: int = Field(ge=0)
    minimum: int = Field(ge=0)
    """Of these, how many must run; those above it give way to endpoints that wait when they are idle."""
    busy: tuple[str, ...] = ()
    """Replicas with a request or stream in flight, draining ones among them: they are not ended yet."""
    reason: str = Field(max_length=500)


class HostView(Contract):
    host_id: str
    state: Literal["up", "lost", "left"]
    last_seen_at: UtcTime
    cpu_cores: int
    memory_gb: int
    disk_gb: int
    gpus: dict[str, int]
    """GPU type → how many."""
    gpus_used: int
    replicas: int
    driver: str
    simulated: bool


class HostsReply(Contract):
    hosts: tuple[HostView, ...]


class AskHosts(Question):
    rpc: ClassVar[str] = "rpc.scheduler.hosts"
    reply: ClassVar[type[Contract]] = HostsReply


# --- asked of a provisioner -----------------------------------------------------------------


class SourceInspection(Contract):
    """Either a pinned source, or the problems that keep it from being one (or from its routes)."""

    source: PinnedSource | None = None
    problems: tuple[FieldProblem, ...] = ()


class InspectSource(Question):
    """Fetch, check and pin a source. Any one provisioner answers."""

    rpc: ClassVar[str] = "rpc.provisioner.inspect_source"
    reply: ClassVar[type[Contract]] = SourceInspection
    deadline_s: ClassVar[float] = 120.0
    source: GitSource
    routes: tuple[RouteSpec, ...]


# --- asked of billing -----------------------------------------------------------------------


class Price(Contract):
    gpu_type: str
    """A GPU type, `CPU`, or `*` for every type without a price of its own."""
    micros_per_hour: int
    """For one GPU (or one CPU core), in millionths of the currency."""
    currency: str
    valid_from: UtcTime


class PricesReply(Contract):
    prices: tuple[Price, ...]
    upcoming: tuple[Price, ...] = ()
    """Prices that will hold from a later date on, soonest first."""


class AskPrices(Question):
    """The prices in force now."""

    rpc: ClassVar[str] = "rpc.billing.prices"
    reply: ClassVar[type[Contract]] = PricesReply


class SetPrice(Question):
    """Set a price from a date on. The same price again changes nothing, and a date up to a minute
    old means now, by billing's clock."""

    rpc: ClassVar[str] = "rpc.billing.set_price"
    reply: ClassVar[type[Contract]] = PricesReply
    price: Price


class UsageRow(Contract):
    endpoint_id: str | None = None
    day: str | None = None
    """`YYYY-MM-DD`, in UTC."""
    gpu_type: str | None = None
    replica_us: int
    """Time that replicas were ready, in microseconds, summed over replicas."""
    gpu_us: int
    """The same, times each replica's GPUs."""
    cost_micros: int
    currency: str


class UsageReply(Contract):
    rows: tuple[UsageRow, ...]
    total_cost_micros: int
    currency: str
    as_of: UtcTime
    running_replicas: int


class AskUsage(Question):
    """Metered use in `[start, end)`; open segments count up to `as_of`."""

    rpc: ClassVar[str] = "rpc.billing.usage"
    reply: ClassVar[type[Contract]] = UsageReply
    organization_id: str
    endpoint_id: str | None = None
    start: UtcTime
    end: UtcTime
    group_by: tuple[Grouping, ...] = ("endpoint", "day", "gpu_type")


# --- asked of every service that owns an outbox ---------------------------------------------


class ReplayReply(Contract):
    events: int
    records: int


class Replay(Question):
    """Publish again every fact since a time, and every bucket record that should exist now."""

    rpc: ClassVar[str] = "rpc.{service}.replay"
    reply: ClassVar[type[Contract]] = ReplayReply
    deadline_s: ClassVar[float] = 60.0
    since: UtcTime
