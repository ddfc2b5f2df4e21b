"""The ledger's arithmetic, in integers only: microseconds of use in, millionths of the currency out.

A replica is metered by one segment: from the moment it became ready to the moment it ended. What a
segment has cost up to a moment is a sum of floors, one for each price that held meanwhile, each
measured from where that price began to hold. The cost of any part of a segment is the difference
of two such sums, so however a bill is cut (by day, by window, by group) its parts add up to the
whole exactly, and nothing is rounded twice.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from penstock_common.contracts.questions import CPU_TYPE, Grouping
from penstock_common.errors import DomainError

HOUR_US = 3_600_000_000
ANY_GPU = "*"
"""The price of every GPU type that has none of its own."""
CLOCK_SLACK = timedelta(minutes=1)
"""A price asked for by another machine's "now" may look this old when it arrives."""

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_GPU_TYPE_LENGTH_MAX = 64
_MICROS_PER_HOUR_MAX = 10**12
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class PriceLine:
    """What one unit (a GPU of this type, or a CPU core) costs an hour, from `valid_from` on."""

    gpu_type: str
    valid_from: datetime
    micros_per_hour: int
    currency: str


@dataclass(frozen=True, slots=True)
class Segment:
    """What is known of one replica's metered time. Either end may become known first."""

    replica_id: str
    organization_id: str
    endpoint_id: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    gpu_type: str = CPU_TYPE
    gpu_count: int = 0
    cpu_cores: int = 0

    @property
    def units(self) -> int:
        """How many times the price of its type this replica costs."""
        return self.cpu_cores if self.gpu_type == CPU_TYPE else self.gpu_count

    def with_start(self, at: datetime, *, gpu_type: str | None, gpu_count: int, cpu_cores: int) -> "Segment":
        """The segment once the replica is known to have become ready. The earliest start counts."""
        if self.started_at is not None and self.started_at <= at:
            return self
        return replace(
            self,
            started_at=at,
            gpu_type=gpu_type or CPU_TYPE,
            gpu_count=gpu_count if gpu_type else 0,
            cpu_cores=cpu_cores,
        )

    def with_end(self, at: datetime) -> "Segment":
        """The segment once the replica is known to have ended. The earliest end counts."""
        if self.ended_at is not None and self.ended_at <= at:
            return self
        return replace(self, ended_at=at)


@dataclass(frozen=True, slots=True)
class Window:
    """The part of time that a bill is asked for: `[start, end)`."""

    start: datetime
    end: datetime

    def days(self) -> Iterator[tuple[str, "Window"]]:
        """The window cut at each midnight UTC, with the name of the day."""
        start = self.start
        while start < self.end:
            midnight = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            end = min(self.end, midnight + _DAY)
            yield midnight.date().isoformat(), Window(start, end)
            start = end


@dataclass(frozen=True, slots=True)
class Use:
    """Metered use and what it costs. Times are summed over replicas, and over GPUs."""

    replica_us: int = 0
    gpu_us: int = 0
    cost_micros: int = 0

    def __add__(self, other: "Use") -> "Use":
        return Use(self.replica_us + other.replica_us, self.gpu_us + other.gpu_us, self.cost_micros + other.cost_micros)


GroupKey = tuple[str, ...]
"""The values of the fields grouped by, in the order they were asked for."""


def tariff_of(gpu_type: str, lines: Iterable[PriceLine]) -> tuple[PriceLine, ...]:
    """The prices that hold for a type, oldest first; each holds until the next.

    Until a GPU type has a price of its own, that of any GPU holds.
    """
    by_date = sorted(lines, key=lambda line: line.valid_from)
    own = tuple(line for line in by_date if line.gpu_type == gpu_type)
    if gpu_type == CPU_TYPE:
        return own
    fallback = (line for line in by_date if line.gpu_type == ANY_GPU)
    return (*(line for line in fallback if not own or line.valid_from < own[0].valid_from), *own)


def accrued_micros(segment: Segment, tariff: Sequence[PriceLine], until: datetime) -> int:
    """What the segment costs from its start to `until`, its end left aside. Never negative.

    Time before the first price of the tariff is free.
    """
    if segment.started_at is None:
        return 0
    total = 0
    for position, line in enumerate(tariff):
        starts = max(line.valid_from, segment.started_at)
        ends = until if position + 1 == len(tariff) else min(until, tariff[position + 1].valid_from)
        if starts < ends:
            total += _microseconds(ends - starts) * line.micros_per_hour * segment.units // HOUR_US
    return total


def metered(segment: Segment, window: Window) -> Window | None:
    """The part of the window in which the replica was ready, or None when there is none."""
    if segment.started_at is None:
        return None
    start = max(window.start, segment.started_at)
    end = window.end if segment.ended_at is None else min(window.end, segment.ended_at)
    return Window(start, end) if start < end else None


def use_of(segment: Segment, tariff: Sequence[PriceLine], window: Window) -> Use:
    """The segment's use inside the window."""
    part = metered(segment, window)
    if part is None:
        return Use()
    replica_us = _microseconds(part.end - part.start)
    return Use(
        replica_us=replica_us,
        gpu_us=replica_us * segment.gpu_count,
        cost_micros=accrued_micros(segment, tariff, part.end) - accrued_micros(segment, tariff, part.start),
    )


def usage(
    segments: Iterable[Segment], lines: Iterable[PriceLine], window: Window, group_by: Sequence[Grouping]
) -> dict[GroupKey, Use]:
    """The use of all segments inside the window, in groups. Groups without use do not appear."""
    prices = tuple(lines)
    tariffs: dict[str, tuple[PriceLine, ...]] = {}
    totals: dict[GroupKey, Use] = {}
    for segment in segments:
        part = metered(segment, window)
        if part is None:
            continue
        if segment.gpu_type not in tariffs:
            tariffs[segment.gpu_type] = tariff_of(segment.gpu_type, prices)
        for day, piece in part.days() if "day" in group_by else [("", part)]:
            values: dict[Grouping, str] = {"endpoint": segment.endpoint_id, "day": day, "gpu_type": segment.gpu_type}
            key = tuple(values[field] for field in group_by)
            totals[key] = totals.get(key, Use()) + use_of(segment, tariffs[segment.gpu_type], piece)
    return totals


def combined(totals: dict[GroupKey, Use], more: dict[GroupKey, Use]) -> dict[GroupKey, Use]:
    """Both, with the use of equal groups added up."""
    return totals | {key: totals.get(key, Use()) + use for key, use in more.items()}


def in_force(lines: Iterable[PriceLine], now: datetime) -> list[PriceLine]:
    """The price of each type that holds now, by type."""
    latest: dict[str, PriceLine] = {}
    for line in sorted(lines, key=lambda line: line.valid_from):
        if line.valid_from <= now:
            latest[line.gpu_type] = line
    return [latest[gpu_type] for gpu_type in sorted(latest)]


def upcoming(lines: Iterable[PriceLine], now: datetime) -> list[PriceLine]:
    """The prices that will hold from a later date on, soonest first."""
    return sorted((line for line in lines if line.valid_from > now), key=lambda line: (line.valid_from, line.gpu_type))


def holds_already(wanted: PriceLine, lines: Iterable[PriceLine]) -> bool:
    """Whether setting this price would change nothing."""
    before = [line for line in in_force(lines, wanted.valid_from) if line.gpu_type == wanted.gpu_type]
    return any((line.micros_per_hour, line.currency) == (wanted.micros_per_hour, wanted.currency) for line in before)


def checked_price(wanted: PriceLine, now: datetime) -> PriceLine:
    """The price as it can be kept; one dated just now holds from our clock's now.

    Raises DomainError `invalid_price` when it makes no sense.
    """
    gpu_type = wanted.gpu_type
    if not 1 <= len(gpu_type) <= _GPU_TYPE_LENGTH_MAX or gpu_type != gpu_type.strip():
        raise DomainError(
            "invalid_price",
            f"gpu_type must be a GPU type of 1 to {_GPU_TYPE_LENGTH_MAX} characters without blanks around it,"
            f" {CPU_TYPE}, or {ANY_GPU} for every GPU type without a price of its own",
        )
    if not 0 <= wanted.micros_per_hour <= _MICROS_PER_HOUR_MAX:
        raise DomainError(
            "invalid_price", f"micros_per_hour must be from 0 to {_MICROS_PER_HOUR_MAX}, not {wanted.micros_per_hour}"
        )
    if not _CURRENCY.fullmatch(wanted.currency):
        raise DomainError("invalid_price", f"currency must be three capital letters like USD, not {wanted.currency!r}")
    if now - CLOCK_SLACK <= wanted.valid_from < now:
        return replace(wanted, valid_from=now)
    return wanted


@dataclass(frozen=True, slots=True)
class PricedTypes:
    """The types of replica that one price applies to: those named, or all but those named."""

    named: frozenset[str]
    all_but_named: bool = False


def types_priced_by(wanted: PriceLine, lines: Iterable[PriceLine]) -> PricedTypes:
    """The types whose metering a price would change from its date on."""
    if wanted.gpu_type != ANY_GPU:
        return PricedTypes(frozenset({wanted.gpu_type}))
    own = {line.gpu_type for line in lines if line.gpu_type != ANY_GPU and line.valid_from <= wanted.valid_from}
    return PricedTypes(frozenset(own | {CPU_TYPE}), all_but_named=True)


def _microseconds(duration: timedelta) -> int:
    return duration // _MICROSECOND
