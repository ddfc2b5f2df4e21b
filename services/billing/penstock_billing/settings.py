"""Settings of the billing service. Each is an environment variable with the prefix `PENSTOCK_`."""

from pydantic import Field

from penstock_common.settings import ServiceSettings


class BillingSettings(ServiceSettings):
    """What billing needs besides the settings that every service has."""

    usage_rows_max: int = Field(
        default=3000,
        ge=1,
        description="Most rows in one answer about usage: it must fit into one NATS message (1 MB by default).",
    )
