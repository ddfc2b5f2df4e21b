"""How an endpoint does."""

from pydantic import Field

from penstock.models.base import Result, Utc


class Quantiles(Result):
    """Times that 50, 90 and 99 in 100 requests were shorter than, in milliseconds."""

    p50: float
    p90: float
    p99: float


class MetricsPoint(Result):
    """What was measured in one stretch of time; None where there was nothing to measure."""

    at: Utc
    requests: int = 0
    requests_per_s: float = 0.0
    statuses: dict[str, int] = Field(default_factory=dict)
    """By class: `2xx`, `3xx`, `4xx`, `5xx`, and `499` for requests whose client left."""
    latency_ms: Quantiles | None = None
    """From a request's arrival to the end of its answer."""
    queue_wait_ms: Quantiles | None = None
    first_byte_ms: Quantiles | None = None
    first_token_ms: Quantiles | None = None
    """To the first event, for answers that are streams of events."""
    prompt_tokens_per_s: float = 0.0
    completion_tokens_per_s: float = 0.0
    in_flight: float | None = None
    """Requests that replicas worked on, on average."""
    in_flight_max: int | None = None
    queue_length: float | None = None
    queue_length_max: int | None = None
    ready_replicas: int | None = None
    """At the end, as `desired_replicas`."""
    desired_replicas: int | None = None
    cold_starts: int = 0
    """Times that a request woke the endpoint."""


class Metrics(Result):
    """A series of points, one for each step, from `start` to `end`."""

    endpoint_id: str = ""
    start: Utc
    end: Utc
    step_s: int
    points: tuple[MetricsPoint, ...]
    total: MetricsPoint
    """All of them together."""
