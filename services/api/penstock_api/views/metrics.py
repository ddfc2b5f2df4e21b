"""Answers about how an endpoint does."""

from datetime import datetime

from pydantic import Field

from penstock_api.views.base import View, moment


class Quantiles(View):
    """Times that so many of the requests were shorter than, in milliseconds; exact to 19 %."""

    p50: float = Field(description="Half of them.", examples=[12.288])
    p90: float = Field(description="90 in 100.", examples=[28.672])
    p99: float = Field(description="99 in 100.", examples=[57.344])


def quantiles(description: str) -> Quantiles | None:
    """A field of times."""
    times: Quantiles | None = Field(default=None, description=f"{description} In milliseconds; null without any.")
    return times


class MetricsPoint(View):
    """What was measured in one stretch of time. Gauges are null where nothing was told."""

    at: datetime = moment("When it begins.")
    requests: int = Field(description="Requests that ended.", examples=[120])
    requests_per_s: float = Field(description="The same for each second.", examples=[2.0])
    statuses: dict[str, int] = Field(
        description="Requests by the class of their status: 2xx, 3xx, 4xx, 5xx, and 499 for those whose client left.",
        examples=[{"2xx": 118, "3xx": 0, "4xx": 1, "499": 0, "5xx": 1}],
    )
    latency_ms: Quantiles | None = quantiles("From a request's arrival to the end of its answer.")
    queue_wait_ms: Quantiles | None = quantiles("How long requests waited for a replica.")
    first_byte_ms: Quantiles | None = quantiles("From a request's arrival to the first byte of its answer.")
    first_token_ms: Quantiles | None = quantiles("To the first event, for answers that are streams of events.")
    prompt_tokens_per_s: float = Field(description="Tokens that were read.", examples=[350.5])
    completion_tokens_per_s: float = Field(description="Tokens that were made.", examples=[42.25])
    in_flight: float | None = Field(description="Requests that replicas worked on, on average.", examples=[1.5])
    in_flight_max: int | None = Field(description="The most at once.", examples=[4])
    queue_length: float | None = Field(description="Requests that waited for a replica, on average.", examples=[0.25])
    queue_length_max: int | None = Field(description="The most at once.", examples=[3])
    ready_replicas: int | None = Field(description="Replicas that were ready, at the end.", examples=[2])
    desired_replicas: int | None = Field(description="Replicas that the platform aimed for, at the end.", examples=[3])
    cold_starts: int = Field(description="Times that a request woke the endpoint.", examples=[0])


class Metrics(View):
    """How an endpoint did in `[start, end)`, as measured by the gateway."""

    endpoint_id: str = Field(description="Endpoint.", examples=["ep_01kc4v5s8mf7q9x2t6w3y1z0ab"])
    start: datetime = moment("Beginning of the first step.")
    end: datetime = moment("End of the last step, which may still go on.")
    step_s: int = Field(description="Length of a step, in seconds.", examples=[30])
    points: list[MetricsPoint] = Field(description="Every step, oldest first, also where nothing happened.")
    total: MetricsPoint = Field(description="All of them together.")
