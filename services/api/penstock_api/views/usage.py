"""Answers about use, prices and GPUs."""

from datetime import datetime

from pydantic import Field

from penstock_api.views.base import View, moment


class UsageRow(View):
    """Use and cost of one group."""

    endpoint_id: str | None = Field(
        description="Endpoint; null when rows are not grouped by it.", examples=["ep_01kc4v5s8mf7q9x2t6w3y1z0ab"]
    )
    day: str | None = Field(description="Day in UTC; null when rows are not grouped by it.", examples=["2026-03-01"])
    gpu_type: str | None = Field(
        description="GPU type, or CPU; null when rows are not grouped by it.", examples=["RTX 4090"]
    )
    replica_s: float = Field(
        description="Seconds that replicas were ready, summed over replicas.", examples=[3600.000001]
    )
    gpu_s: float = Field(description="The same, times each replica's GPUs.", examples=[7200.000002])
    cost_micros: int = Field(description="Cost, in millionths of the currency.", examples=[900000])


class Usage(View):
    """Metered use in `[from, to)`. Replicas that still run count up to `as_of`."""

    rows: list[UsageRow] = Field(description="One row for each group that has any use.")
    total_cost_micros: int = Field(description="Cost of all rows, in millionths of the currency.", examples=[900000])
    currency: str = Field(description="Currency of the costs.", examples=["USD"])
    as_of: datetime = moment("When this was computed.")
    running_replicas: int = Field(description="Replicas that cost at this moment.", examples=[1])


class Capacity(View):
    """How much there is of one GPU type (or, for CPU, of slots without a GPU)."""

    type: str = Field(description="GPU type, or CPU.", examples=["RTX 4090"])
    memory_gb: int = Field(description="Memory of one, in GB.", examples=[24])
    total: int = Field(description="How many there are.", examples=[4])
    free: int = Field(description="How many are free.", examples=[3])
    price_micros_per_hour: int | None = Field(
        description="Price of one GPU (or one CPU core) and hour, in millionths of the currency; "
        "null when there is none, or it is not known now.",
        examples=[450000],
    )
    currency: str | None = Field(description="Currency of the price.", examples=["USD"])
    can_start: dict[str, bool] = Field(
        description="For each count from 1 to 4: whether a replica with that many could start right now.",
        examples=[{"1": True, "2": True, "3": True, "4": False}],
    )


class Gpus(View):
    """What the hosts have to offer."""

    gpus: list[Capacity] = Field(description="Each GPU type.")
    cpu: Capacity = Field(description="CPU-only replicas.")
