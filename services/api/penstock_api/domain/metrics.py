"""What gateways counted of an endpoint: tallies of an interval, merged, and put into the steps of a series.

A tally holds whole numbers only, so merging is exact, whatever the order and the grouping.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from penstock_api.domain.windows import Window, aligned
from penstock_common.contracts.statistics import BUCKETS_MAX, EndpointStatistics

Counts = Mapping[int, int]
CLIENT_LEFT = 499
CLASSES = ("2xx", "3xx", "4xx", "499", "5xx")
_MICROS = 1_000_000
_INTERVAL_S_MAX = 3600.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted in some stretch of time."""

    statuses: Counts = field(default_factory=dict)
    """HTTP status → requests that ended with it."""
    latency: Counts = field(default_factory=dict)
    """Histograms: bucket → requests, as the contract of statistics says."""
    queue_wait: Counts = field(default_factory=dict)
    first_byte: Counts = field(default_factory=dict)
    first_token: Counts = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cold_starts: int = 0
    measured_us: int = 0
    """For how long a gateway told of it; gauges are averaged over this, in microseconds."""
    in_flight_us: int = 0
    """Requests in flight times the microseconds that they were."""
    queued_us: int = 0
    in_flight_max: int = 0
    queued_max: int = 0
    replicas: tuple[datetime, int, int] | None = None
    """The last that was told: when, how many were ready, how many were desired."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """A tally as it is kept: of the `step_s` seconds from `at` on. Several may tell of the same time."""

    id: str
    """A UUID."""
    endpoint_id: str
    at: datetime
    step_s: int
    tally: Tally


def tally_of(told: EndpointStatistics, at: datetime) -> Tally:
    """One message; `at` is when it came, by a clock of the platform."""
    measured_us = round(min(max(told.interval_s, 0.0), _INTERVAL_S_MAX) * _MICROS)
    return Tally(
        statuses=_within(told.statuses, 600),
        latency=_within(told.latency, BUCKETS_MAX),
        queue_wait=_within(told.queue_wait, BUCKETS_MAX),
        first_byte=_within(told.first_byte, BUCKETS_MAX),
        first_token=_within(told.first_token, BUCKETS_MAX),
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        cold_starts=told.cold_starts,
        measured_us=measured_us,
        in_flight_us=told.in_flight * measured_us,
        queued_us=told.queued * measured_us,
        in_flight_max=told.in_flight,
        queued_max=told.queued,
        replicas=(at, told.replicas, told.desired_replicas),
    )


def merged(one: Tally, other: Tally) -> Tally:
    """Both together. Associative and commutative; the empty tally changes nothing."""
    return Tally(
        statuses=_sum(one.statuses, other.statuses),
        latency=_sum(one.latency, other.latency),
        queue_wait=_sum(one.queue_wait, other.queue_wait),
        first_byte=_sum(one.first_byte, other.first_byte),
        first_token=_sum(one.first_token, other.first_token),
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        cold_starts=one.cold_starts + other.cold_starts,
        measured_us=one.measured_us + other.measured_us,
        in_flight_us=one.in_flight_us + other.in_flight_us,
        queued_us=one.queued_us + other.queued_us,
        in_flight_max=max(one.in_flight_max, other.in_flight_max),
        queued_max=max(one.queued_max, other.queued_max),
        replicas=max(filter(None, (one.replicas, other.replicas)), default=None),
    )


def total_of(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total = merged(total, tally)
    return total


def series(rollups: Iterable[Rollup], window: Window) -> list[tuple[datetime, Tally]]:
    """The window's steps with what was counted in each. A rollup counts where it begins."""
    found = dict.fromkeys(window.steps(), Tally())
    for rollup in rollups:
        at = aligned(rollup.at, window.step)
        if at in found:
            found[at] = merged(found[at], rollup.tally)
    return list(found.items())


def coarser(rollups: Sequence[Rollup], step_s: int) -> list[Rollup]:
    """The same counts by longer steps: one rollup for each endpoint and step, which keeps the id of its first."""
    found: dict[tuple[str, datetime], Rollup] = {}
    for rollup in rollups:
        at = aligned(rollup.at, timedelta(seconds=step_s))
        before = found.get((rollup.endpoint_id, at))
        if before is None:
            found[rollup.endpoint_id, at] = replace(rollup, at=at, step_s=step_s)
        else:
            found[rollup.endpoint_id, at] = replace(before, tally=merged(before.tally, rollup.tally))
    return list(found.values())


def by_class(statuses: Counts) -> dict[str, int]:
    """Requests by the class of their status; those whose client left are a class of their own."""
    found = dict.fromkeys(CLASSES, 0)
    for status, count in statuses.items():
        name = str(status) if status == CLIENT_LEFT else f"{status // 100}xx"
        if name in found:
            found[name] += count
    return found


def _within(counts: Counts, limit: int) -> Counts:
    return {key: count for key, count in counts.items() if 0 <= key < limit and count > 0}


def _sum(one: Counts, other: Counts) -> Counts:
    if not one or not other:
        return one or other
    total = dict(one)
    for key, count in other.items():
        total[key] = total.get(key, 0) + count
    return total
