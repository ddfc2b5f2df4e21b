"""Settings of asynchronous inference. Each is an environment variable with the prefix `PENSTOCK_`."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
DAY_S = 24 * 3600


class DeferredSettings(BaseSettings):
    """What the gateway needs to keep requests and answer them later."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", extra="ignore", frozen=True)

    deferred_body_bytes_max: int = Field(
        default=32 * MIB, ge=0, description="Longest body of an asynchronous request, in bytes; more is answered 413."
    )
    deferred_result_bytes_max: int = Field(
        default=32 * MIB, ge=0, description="Longest answer that is kept, in bytes; a longer one makes it fail."
    )
    deferred_held_bytes_max: int = Field(
        default=256 * MIB,
        ge=1,
        description="Most that bodies of asynchronous requests take in memory together, in bytes.",
    )
    deferred_retention_s: int = Field(
        default=DAY_S, ge=1, le=7 * DAY_S, description="How long a result is kept once it is there, in seconds."
    )
    deferred_wait_s_max: int = Field(
        default=DAY_S,
        ge=1,
        le=7 * DAY_S,
        description="Longest that an asynchronous request waits to run, in seconds; then it fails.",
    )
    deferred_run_s_max: float = Field(
        default=3600, gt=0, description="Longest that an asynchronous request runs, in seconds; then it is cut off."
    )
    deferred_per_endpoint_max: int = Field(
        default=1000, ge=1, description="Most unfinished asynchronous requests of one endpoint; more are answered 503."
    )
    deferred_per_organization_max: int = Field(
        default=5000, ge=1, description="Most of one organization; more are answered 429."
    )
    deferred_open_max: int = Field(
        default=50_000, ge=1, description="Most unfinished asynchronous requests of all; more are answered 503."
    )
    deferred_running_max: int = Field(
        default=256, ge=1, description="Most asynchronous requests that this gateway has running at once."
    )
    deferred_lost_after_s: float = Field(
        default=10, ge=1, description="After so long without a sign of life a gateway is taken to be lost, in seconds."
    )
    deferred_prefer_wait_s_max: int = Field(
        default=60, ge=0, description="Longest that `Prefer: respond-async, wait=N` holds the caller, in seconds."
    )

    webhook_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="What every organization's webhook secret is derived from. Without it webhooks are refused.",
    )
    webhook_allow_http: bool = Field(default=False, description="Whether webhooks may go to http addresses.")
    webhook_allow_private: bool = Field(
        default=False,
        description="Whether webhooks may go to private, loopback, link-local and reserved addresses.",
    )
    webhook_timeout_s: float = Field(
        default=15, gt=0, description="Longest that one delivery of a webhook takes, in seconds."
    )
    webhook_sending_max: int = Field(default=16, ge=1, description="Most webhooks that are delivered at once.")
