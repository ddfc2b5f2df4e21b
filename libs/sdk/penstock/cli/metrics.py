"""`penstock endpoint metrics`: how an endpoint does, as one line for each thing that is measured."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import named
from penstock.cli.words import amount, duration, milliseconds, moment_of, seconds_of, sparkline, timestamp

if TYPE_CHECKING:
    from penstock.models.metrics import Metrics, MetricsPoint

EXAMPLES = """\
Examples:
  penstock endpoint metrics iris
  penstock endpoint metrics iris --since 2d --step 30m
  penstock endpoint metrics iris --since 10m --step 10s --json | jq .total.latency_ms"""
TREND_WIDTH = 60

Value: TypeAlias = float | None
Measure: TypeAlias = tuple[str, Callable[["MetricsPoint"], Value], Callable[[float], str]]


def metrics(
    endpoint: take.Reference,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="From then on: how long ago, such as 2h, or a time; 1h if left out."
        ),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="TIME", help="Length of a step, such as 30s or 1m; chosen if left out."),
    ] = None,
    as_json: take.AsJson = False,
) -> None:
    """Show requests, their times, the queue, tokens and replicas, over time."""
    start = moment_of(since, "--since", datetime.now(UTC)) if since else None
    step_s = round(seconds_of(step, "--step")) if step else None
    with named(endpoint) as found:
        measured = found.metrics(start=start, step_s=step_s)
        if as_json:
            output.document(measured)
            return
        _show(found.full_name, measured)


def _show(name: str, measured: "Metrics") -> None:
    output.line(f"{name} since {timestamp(measured.start)}, in steps of {duration(measured.step_s)}")
    rows = list(rows_of(measured))
    if not rows:
        output.note("Nothing was measured in this time.")
        return
    output.line()
    output.table(("", "TREND", "LAST", "PEAK", "WHOLE"), rows, right=frozenset({"LAST", "PEAK", "WHOLE"}))


def rows_of(measured: "Metrics") -> Iterator[tuple[str, str, str, str, str]]:
    """Name, trend, last, highest and overall value of everything that was measured at all."""
    for name, value_of, words in MEASURES:
        values = [value_of(point) for point in measured.points]
        known = [value for value in values if value is not None]
        whole = value_of(measured.total)
        if any(known) or (known and name in _ALWAYS):
            trend = sparkline(values, TREND_WIDTH)
            yield name, trend, words(known[-1]), words(max(known)), "" if whole is None else words(whole)


def _status(name: str) -> Callable[["MetricsPoint"], Value]:
    return lambda point: point.statuses.get(name, 0)


def _time(name: str, share: str) -> Callable[["MetricsPoint"], Value]:
    def value(point: "MetricsPoint") -> Value:
        times = getattr(point, f"{name}_ms")
        return None if times is None else float(getattr(times, share))

    return value


def _times(label: str, name: str, *shares: str) -> tuple[Measure, ...]:
    return tuple((f"{label} {share}", _time(name, share), milliseconds) for share in shares)


_ALWAYS = frozenset({"Replicas ready", "Replicas desired"})
"""Shown also where they are nothing but 0."""
MEASURES: tuple[Measure, ...] = (
    ("Requests a second", lambda point: point.requests_per_s, amount),
    ("Answers 4xx", _status("4xx"), amount),
    ("Answers 5xx", _status("5xx"), amount),
    ("Clients that left", _status("499"), amount),
    *_times("Latency", "latency", "p50", "p90", "p99"),
    *_times("Queue wait", "queue_wait", "p50", "p99"),
    *_times("First byte", "first_byte", "p50", "p99"),
    *_times("First token", "first_token", "p50", "p99"),
    ("Tokens a second", lambda point: point.completion_tokens_per_s, amount),
    ("In flight", lambda point: point.in_flight, amount),
    ("Queue length", lambda point: point.queue_length, amount),
    ("Replicas ready", lambda point: point.ready_replicas, amount),
    ("Replicas desired", lambda point: point.desired_replicas, amount),
    ("Cold starts", lambda point: point.cold_starts, amount),
)
