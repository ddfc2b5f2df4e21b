"""Stretches of time that users ask for: checked, and cut into steps."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from penstock_api.domain.problems import in_utc, invalid_field

POINTS_BY_DEFAULT = 120
POINTS_MAX = 1_000
SPAN_DEFAULT = timedelta(hours=1)
STEP_MAX = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEPS_S = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Steps that are chosen by themselves: each divides a day."""
_STEP = re.compile(r"([1-9][0-9]{0,6})\s*([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long rollups of each step are kept; then they are merged into the next, or deleted."""

    step_s: int
    for_s: int


Resolutions = tuple[Kept, ...]
"""From the finest to the coarsest; each step is a multiple of the one before."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to `end`, both aligned to `step`."""

    start: datetime
    end: datetime
    step: timedelta

    def steps(self) -> Iterator[datetime]:
        """When each step begins."""
        for number in range(self.count):
            yield self.start + number * self.step

    @property
    def count(self) -> int:
        return (self.end - self.start) // self.step


def aligned(moment: datetime, step: timedelta) -> datetime:
    """The last multiple of `step`, counted from 1970 in UTC, that is not later than `moment`."""
    return moment - (moment - _EPOCH) % step


def merge_before(kept: Kept, coarser_s: int, now: datetime) -> datetime:
    """Rollups that begin earlier are merged into coarser ones: whole steps of those only."""
    return aligned(now - timedelta(seconds=kept.for_s), timedelta(seconds=coarser_s))


def metrics_window(
    start: datetime | None, end: datetime | None, step: str | None, now: datetime, resolutions: Resolutions
) -> Window:
    """What to show for `from`, `to` and `step` as the user gave them; without any, the last hour.

    Raises Problem that names the parameter at fault and the mend.
    """
    until = min(utc("to", end, now), now)
    since = utc("from", start, until - SPAN_DEFAULT)
    if since >= now:
        raise invalid_field("from", "lies in the future: ask for a time that has passed")
    if since >= until:
        raise invalid_field("from", "must be earlier than to")
    oldest = timedelta(seconds=resolutions[-1].for_s)
    if since < now - oldest - STEP_MAX:  # who asks for all of it is not refused for being a moment late
        raise invalid_field("from", f"metrics are kept for {oldest.days} days: ask for a time since then")
    if step is not None:
        return _checked(_window(since, until, _step(step, resolutions[0].step_s)), now, resolutions)
    for seconds in _STEPS_S:
        window = _window(since, until, timedelta(seconds=seconds))
        if (until - since) <= POINTS_BY_DEFAULT * window.step and seconds % _finest(window, now, resolutions) == 0:
            break
    # Not aligned, a span may touch one step more than it is long.
    start_at = window.start + window.step if window.count > POINTS_BY_DEFAULT else window.start
    return Window(start_at, window.end, window.step)


def utc(field: str, time: datetime | None, default: datetime) -> datetime:
    """The moment of a parameter in UTC. Raises Problem for one without a time zone."""
    if time is None:
        return default
    if time.tzinfo is None:
        raise invalid_field(field, "needs a time zone, such as the Z of 2026-03-01T00:00:00Z")
    return in_utc(field, time)


def _window(since: datetime, until: datetime, step: timedelta) -> Window:
    last = aligned(until, step)
    return Window(aligned(since, step), last if last == until else last + step, step)


def _step(text: str, finest_s: int) -> timedelta:
    found = _STEP.fullmatch(text.strip())
    if found is None:
        raise invalid_field("step", "is not a length of time: write it like 30s, 5m or 1h")
    step = timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])
    if step % timedelta(seconds=finest_s) or step > STEP_MAX:
        raise invalid_field("step", f"must be a multiple of {finest_s} seconds, and at most a day")
    return step


def _checked(window: Window, now: datetime, resolutions: Resolutions) -> Window:
    finest_s = _finest(window, now, resolutions)
    if window.count > POINTS_MAX:
        least = window.count * window.step / (POINTS_MAX - 1)
        mend = next(s for s in _STEPS_S if s % finest_s == 0 and timedelta(seconds=s) >= least)
        message = f"gives {window.count} points, and at most {POINTS_MAX} are allowed: use {_words(mend)} or more"
        raise invalid_field("step", message)
    if window.step % timedelta(seconds=finest_s):
        message = f"what is older is kept in steps of {_words(finest_s)} only: use a multiple of that, or a later from"
        raise invalid_field("step", message)
    return window


def _finest(window: Window, now: datetime, resolutions: Resolutions) -> int:
    """The step, in seconds, that the oldest part of the window is kept in."""
    for kept, coarser in pairwise(resolutions):
        if window.start >= merge_before(kept, coarser.step_s, now):
            return kept.step_s
    return resolutions[-1].step_s


def _words(seconds: int) -> str:
    for unit in ("d", "h", "m"):
        if seconds % _UNITS_S[unit] == 0:
            return f"{seconds // _UNITS_S[unit]}{unit}"
    return f"{seconds}s"
