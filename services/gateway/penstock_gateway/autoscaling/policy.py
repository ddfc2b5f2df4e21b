"""What a decision must keep to at one moment: the endpoint's scaling, with its schedule worked out. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from penstock_common.contracts.endpoint import Scaling

HEADROOM = 2.0
"""Standard deviations of the load that are kept free above its mean."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds and times of one endpoint's scaling, as they are at one moment."""

    minimum: int
    maximum: int
    concurrency: int = 1
    idle_timeout_s: float = 300
    scale_down_delay_s: float = 60
    queue_wait_target_s: float | None = None
    headroom: float = HEADROOM


def policy_at(scaling: Scaling, now: datetime) -> Policy:
    """The policy that holds at `now`, which carries a time zone."""
    return Policy(
        minimum=minimum_at(scaling, now),
        maximum=scaling.max_replicas,
        concurrency=scaling.target_concurrency,
        idle_timeout_s=scaling.idle_timeout_s,
        scale_down_delay_s=scaling.scale_down_delay_s,
        queue_wait_target_s=scaling.queue_wait_target_s,
    )


def minimum_at(scaling: Scaling, now: datetime) -> int:
    """How many replicas run at least at `now`, which carries a time zone: the highest of all open windows.

    A window is open from when its start line last fired until its end line fires; where both fire in
    the same minute, it is open.
    """
    if not scaling.schedule:
        return scaling.min_replicas
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    opened = (w.min_replicas for w in scaling.schedule if _is_open(w.start, w.end, w.time_zone, minute))
    return max(scaling.min_replicas, *opened, 0)


@lru_cache(maxsize=1024)
def _is_open(start: str, end: str, time_zone: str, minute: datetime) -> bool:
    # Cron lines have the step of a minute, so that one answer holds for a minute.
    zone = ZoneInfo(time_zone)
    started = last_fired(start, zone, minute)
    if started is None:
        return False
    ended = last_fired(end, zone, minute)
    return ended is None or started >= ended


def last_fired(line: str, zone: ZoneInfo, minute: datetime) -> datetime | None:
    """When a cron line last fired up to and with `minute` (a whole one, in UTC), in UTC; None if never.

    Times of day that the clocks skip fire when they go on; those that come twice fire the first time
    (as in Debian's cron, which cronsim follows).
    """
    local = minute.astimezone(zone)
    # In the hour that comes twice, times that the wall clock shows ahead of us have fired already.
    ahead = timedelta(hours=1) if local.fold else timedelta()
    begin = (minute + ahead + timedelta(seconds=1)).astimezone(zone)
    for fired in CronSim(line, begin, reverse=True):
        if fired.astimezone(UTC) <= minute:
            return fired.astimezone(UTC)
    return None
