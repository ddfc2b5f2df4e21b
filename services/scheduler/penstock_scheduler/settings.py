"""Settings of the scheduler. Each is an environment variable with the prefix `PENSTOCK_`."""

from datetime import timedelta

from pydantic import Field

from penstock_common.settings import ServiceSettings
from penstock_scheduler.domain import Policy


class SchedulerSettings(ServiceSettings):
    """What the scheduler needs besides the settings that every service has."""

    host_lost_after_s: float = Field(default=10.0, gt=0, description="A host silent for so long is lost, in seconds.")
    drain_s: float = Field(
        default=1.0,
        ge=0,
        description="Time between a replica's leaving the routes and its host being told to stop it, in seconds.",
    )
    drain_limit_s: float = Field(
        default=300.0,
        gt=0,
        description="Longest that a replica taken away by a scale-down may finish its requests, in seconds.",
    )
    purge_after_s: float = Field(
        default=14 * 24 * 3600.0, gt=0, description="An endpoint stopped for so long is terminated, in seconds."
    )
    crashes_until_failed: int = Field(
        default=3, ge=1, description="Crashes in a row, without five healthy minutes, after which an endpoint fails."
    )
    repair_every_s: float = Field(
        default=30.0, gt=0, description="How often the buckets are compared with the tables, in seconds."
    )
    ended_replicas_kept_s: float = Field(
        default=30 * 24 * 3600.0, gt=0, description="How long ended replicas stay in the tables, in seconds."
    )

    def policy(self) -> Policy:
        """The limits that decisions go by."""
        return Policy(
            lost_after=timedelta(seconds=self.host_lost_after_s),
            drain=timedelta(seconds=self.drain_s),
            drain_limit=timedelta(seconds=self.drain_limit_s),
            purge_after=timedelta(seconds=self.purge_after_s),
            crashes_until_failed=self.crashes_until_failed,
        )
