"""Numbers, times and money as people write them, and back. Pure."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from penstock.cli.exits import UsageProblem

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MICROS = Decimal(1_000_000)
_BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = whole // 60
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def seconds_of(text: str, option: str) -> float:
    """`90`, `90s`, `10m`, `2h` or `1d` in seconds. Raises UsageProblem."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2] or "s"] if found is not None else math.inf
    if seconds == math.inf:
        raise UsageProblem(f"{option}: {text!r} is not a length of time: write it like 90s, 10m or 2h.")
    return seconds


def moment_of(text: str, option: str, now: datetime) -> datetime:
    """A day or time in ISO 8601 (UTC unless it has a zone), or how long ago: `2h`, `7d`. Raises UsageProblem."""
    found = _DURATION.fullmatch(text.strip())
    try:
        if found is not None and found[2]:
            return now - timedelta(seconds=float(found[1]) * _UNITS_S[found[2]])
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):  # the second: longer ago than the calendar goes
        raise UsageProblem(
            f"{option}: {text!r} is not a time: write 2026-03-01, 2026-03-01T12:00:00Z, or how long ago, like 2h or 7d."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, in words; empty for no time."""
    return "" if moment is None else f"{duration(max(0.0, (now - moment).total_seconds()))} ago"


def timestamp(moment: datetime) -> str:
    """UTC to the millisecond, as `2026-03-01T12:00:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def money(micros: int | None, currency: str | None) -> str:
    """`0.45 USD` with at least two decimals and as many as it takes; empty for no amount."""
    if micros is None:
        return ""
    amount = f"{Decimal(micros) / _MICROS:.6f}"
    whole, _, decimals = amount.partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')} {currency or ''}".rstrip()


def micros_of(text: str, option: str) -> int:
    """An amount such as `0.45` in millionths. Raises UsageProblem."""
    try:
        micros = Decimal(text) * _MICROS
    except InvalidOperation:
        micros = Decimal("NaN")
    if not micros.is_finite() or micros < 0 or micros != micros.to_integral_value():
        raise UsageProblem(f"{option}: {text!r} is not an amount: write it like 0.45, with at most six decimals.")
    return int(micros)


def plain(text: object) -> str:
    """Text without the control characters by which a log line could command the terminal."""
    return _CONTROLS.sub("�", str(text))


def plural(count: int, thing: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def amount(value: float) -> str:
    """`0`, `0.004`, `2.5`, `137`: three digits are enough."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def milliseconds(value: float) -> str:
    """`0.25 ms`, `12.3 ms`, `2.4 s`, `3 min 20 s`."""
    return f"{amount(value)} ms" if value < 1000 else duration(value / 1000)


def sparkline(values: Sequence[float | None], width: int) -> str:
    """A row of bars, the highest as high as a line; blank where nothing is known. At most `width` wide:
    of values that share a bar, the highest is shown."""
    share = max(1, -(-len(values) // width))
    groups = [[v for v in values[at : at + share] if v is not None] for at in range(0, len(values), share)]
    highs = [max(group, default=None) for group in groups]
    top = max((high for high in highs if high is not None), default=0.0) or 1.0
    return "".join(
        " " if high is None else _BARS[min(len(_BARS) - 1, int(max(0.0, high) / top * len(_BARS)))] for high in highs
    )
