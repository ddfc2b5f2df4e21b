"""Bodies and answers for who runs the platform."""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from penstock_api.views.base import Body, View, moment
from penstock_common.contracts.events import EndpointRunning


class Host(View):
    """A machine that runs replicas."""

    id: str = Field(description="Its id.", examples=["gpu-host-1"])
    state: Literal["up", "lost", "left"] = Field(
        description="up; lost when it fell silent; left when it said it was leaving.", examples=["up"]
    )
    last_seen_at: datetime = moment("When it was last heard of.")
    cpu_cores: int = Field(description="CPU cores.", examples=[16])
    memory_gb: int = Field(description="Memory, in GB.", examples=[128])
    disk_gb: int = Field(description="Disk, in GB.", examples=[1000])
    gpus: dict[str, int] = Field(description="GPU type → how many.", examples=[{"RTX 4090": 4}])
    gpus_used: int = Field(description="GPUs that are reserved.", examples=[1])
    replicas: int = Field(description="Replicas that it was given.", examples=[1])
    driver: str = Field(description="How it runs replicas.", examples=["process"])
    simulated: bool = Field(description="Whether its GPUs are made up by settings.", examples=[False])


class Hosts(View):
    """Every host that was ever heard of."""

    items: list[Host] = Field(description="Hosts.")


class DeadLetter(View):
    """A message that a consumer gave up on, kept until it is sent again or dropped."""

    sequence: int = Field(description="Its number.", examples=[3])
    at: datetime = moment("When it was given up.")
    subject: str = Field(description="Subject it was published on.", examples=[EndpointRunning.message_type])
    type: str = Field(description="Type of message.", examples=[EndpointRunning.message_type])
    message_id: str | None = Field(
        description="Id of the message; null when it has none, and then it cannot be sent again.",
        examples=["evt_01kc4v5s8mf7q9x2t6w3y1z0ab"],
    )
    consumer: str = Field(description="Consumer that gave up.", examples=["billing-scheduler-replica"])
    error: str = Field(description="Why it gave up.", examples=["ValueError: the endpoint is not known"])
    deliveries: int = Field(description="How often it was tried.", examples=[8])
    preview: str = Field(
        description="Beginning of the message, without log lines and other text that could hold secrets.",
        examples=['{"endpoint_id": "ep_01kc…", "version": 4}'],
    )


class DeadLetters(View):
    """A part of the dead letters, newest first."""

    items: list[DeadLetter] = Field(description="Dead letters.")
    next_before: int | None = Field(
        description="Give this as `before` to get the next part; null at the end.", examples=[None]
    )


class ReplayRequest(Body):
    """From when to publish facts again."""

    since: AwareDatetime = Field(
        description="Facts committed from this time on are published again; at most 7 days are kept.",
        examples=["2026-03-01T12:00:00Z"],
    )


class Replayed(View):
    """What one service published again."""

    events: int = Field(description="Facts.", examples=[120])
    records: int = Field(description="Bucket records.", examples=[8])
    error: str | None = Field(default=None, description="Why it could not, if it could not.", examples=[None])


class Replay(View):
    """What was published again."""

    services: dict[str, Replayed] = Field(description="For each service that owns an outbox.")


class Price(View):
    """The price of one GPU of a type, or of one CPU core, and hour."""

    gpu_type: str = Field(
        description="GPU type, `CPU`, or `*` for every type without a price of its own.", examples=["RTX 4090"]
    )
    micros_per_hour: int = Field(description="Price, in millionths of the currency.", examples=[450000])
    currency: str = Field(description="Currency.", examples=["USD"])
    valid_from: datetime = moment("From when it holds.")


class Prices(View):
    """The prices in force now."""

    items: list[Price] = Field(description="Prices.")
    upcoming: list[Price] = Field(description="Prices that will hold from a later time on, soonest first.")


class NewPrice(Body):
    """A price to set."""

    gpu_type: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="GPU type, `CPU`, or `*` for every type without a price of its own.",
        examples=["RTX 4090"],
    )
    micros_per_hour: int = Field(
        ge=0, le=10**12, description="Price for one GPU (or core) and hour, in millionths.", examples=[450000]
    )
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="Currency, as ISO 4217 names it.", examples=["USD"])
    valid_from: AwareDatetime | None = Field(
        default=None,
        description="From when it holds, with a time zone; without it, from now.",
        examples=["2026-04-01T00:00:00Z"],
    )
