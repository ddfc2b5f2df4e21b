"""Settings of the API. Each is an environment variable with the prefix `PENSTOCK_`."""

from pydantic import Field

from penstock_api.domain.windows import Kept, Resolutions
from penstock_common.settings import ServiceSettings


class ApiSettings(ServiceSettings):
    """Where the API listens, what it tells users about addresses, and its bounds."""

    api_host: str = Field(default="127.0.0.1", description="Address that the public API listens on.")
    api_port: int = Field(default=8081, ge=0, le=65535, description="Its port; 0 takes any free one.")
    gateway_url: str = Field(
        default="http://127.0.0.1:8080",
        pattern=r"^https?://[^/\s]+$",
        description="Where users reach the gateway, without a path; endpoint URLs begin with it.",
    )
    domain: str = Field(
        default="localhost",
        pattern=r"^[a-z0-9.-]+$",
        description="Domain below which every endpoint has a host name.",
    )
    body_bytes_max: int = Field(default=1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    requests_at_once: int = Field(default=256, ge=1, description="Requests worked on at the same time, streams apart.")
    requests_per_s: float = Field(default=300, gt=0, description="Requests a second that one API key may make.")
    requests_burst: int = Field(default=600, ge=1, description="Requests one API key may make at once after a pause.")
    creates_at_once: int = Field(default=16, ge=1, description="Endpoint creations checked at the same time.")
    inspections_per_organization: int = Field(
        default=2, ge=1, description="Of these, how many of one organization; its further ones wait for their turn."
    )
    streams_at_once: int = Field(default=500, ge=1, description="Event and log streams open at the same time.")
    streams_per_organization: int = Field(
        default=100, ge=1, description="Of these, how many one organization may have."
    )
    stream_heartbeat_s: float = Field(default=15, gt=0, description="Silence after which a stream sends a comment.")
    log_retention_days: int = Field(default=7, ge=1, description="Days that log lines are kept.")
    log_lines_per_endpoint: int = Field(default=100_000, ge=100, description="Log lines kept for each endpoint.")
    events_per_endpoint: int = Field(default=1_000, ge=100, description="Lifecycle events kept for each endpoint.")
    terminated_kept_days: int = Field(
        default=30,
        ge=8,
        description="Days that a terminated endpoint and its history are kept; more than facts may be replayed.",
    )
    metrics_write_s: float = Field(default=5, gt=0, description="Seconds between writes of what gateways measured.")
    metrics_rows_max: int = Field(
        default=20_000, ge=10, description="Rows of 10 seconds held in memory while they cannot be written."
    )
    metrics_10s_kept_h: int = Field(default=2, ge=1, le=24, description="Hours that metrics are kept by 10 seconds.")
    metrics_1m_kept_h: int = Field(default=48, ge=24, le=168, description="Hours that metrics are kept by the minute.")
    metrics_1h_kept_days: int = Field(default=90, ge=7, le=400, description="Days that metrics are kept by the hour.")
    idempotency_kept_h: int = Field(default=24, ge=1, description="Hours that an Idempotency-Key is remembered.")
    upkeep_s: float = Field(default=60, gt=0, description="Seconds between rounds of cleaning and of key repair.")

    @property
    def resolutions(self) -> Resolutions:
        """How long metrics are kept in which steps."""
        return (
            Kept(10, self.metrics_10s_kept_h * 3600),
            Kept(60, self.metrics_1m_kept_h * 3600),
            Kept(3600, self.metrics_1h_kept_days * 86_400),
        )
