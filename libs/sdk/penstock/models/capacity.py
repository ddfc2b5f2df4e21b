"""What there is, what it costs, and what was used."""

from pydantic import Field

from penstock.models.base import Micros, Result, Utc


class Capacity(Result):
    """How much there is of one GPU type, or of CPU cores."""

    type: str
    memory_gb: int = 0
    """Memory of one GPU, in GB."""
    total: int
    free: int
    price_micros_per_hour: Micros | None = None
    """For one GPU, or one core."""
    currency: str | None = None
    can_start: dict[int, bool] = Field(default_factory=dict)
    """For each count from 1 to 4, whether one replica could start now."""


class Gpus(Result):
    """Every GPU type of the platform, and its CPU cores."""

    gpus: tuple[Capacity, ...]
    cpu: Capacity | None = None


class UsageRow(Result):
    """What was used by one group; what the groups leave out is None."""

    endpoint_id: str | None = None
    day: str | None = None
    """`YYYY-MM-DD`, in UTC."""
    gpu_type: str | None = None
    replica_s: float
    """Time that replicas were ready, summed over replicas."""
    gpu_s: float
    """The same, times each replica's GPUs."""
    cost_micros: Micros


class Usage(Result):
    """Metered use; what runs now counts up to `as_of`."""

    rows: tuple[UsageRow, ...]
    total_cost_micros: Micros
    currency: str
    as_of: Utc
    running_replicas: int = 0
