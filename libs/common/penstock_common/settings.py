"""Settings that every service has. Each is an environment variable with the prefix `PENSTOCK_`."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Addresses and limits common to all services; a service adds its own fields in a subclass."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", extra="ignore", frozen=True)

    database_url: SecretStr | None = Field(default=None, description="PostgreSQL address with this service's role.")
    nats_url: str = Field(default="nats://127.0.0.1:4222", description="NATS addresses, separated by commas.")
    nats_user: str | None = Field(default=None, description="NATS user of this service.")
    nats_password: SecretStr | None = Field(default=None, description="Password of that user.")
    ops_host: str = Field(default="127.0.0.1", description="Address that /healthz, /readyz and /metrics listen on.")
    ops_port: int = Field(default=0, description="Their port; 0 takes any free one.")
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP address that traces go to; without one none are exported."
    )
    log_level: str = Field(default="INFO", description="Least severe level that is logged.")
    shutdown_grace_s: float = Field(default=10.0, gt=0, description="Longest wait for work in hand when stopping.")
    pool_size: int = Field(default=8, ge=2, description="Most PostgreSQL connections of this process.")
