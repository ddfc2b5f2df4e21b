"""Waiting until an endpoint is where its user wants it, telling each step as it happens."""

import math
import sys
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from penstock.context import Context
from penstock.effects import Emit, Failure, Sleep, Steps, Stream, Transfer
from penstock.errors import EndpointFailed, NotFound, TimedOut, WrongState
from penstock.exchange import Listened, delay_after, items_of, listen, select
from penstock.flows.running import Here, events, refresh
from penstock.models.endpoint import EndpointData, LifecycleEvent

Goal: TypeAlias = Literal["running", "idle", "stopped", "terminated"]

_LOST: dict[Goal, frozenset[str]] = {
    "running": frozenset({"stopping", "stopped", "terminating", "terminated"}),
    "idle": frozenset({"stopping", "stopped", "terminating", "terminated"}),
    "stopped": frozenset({"terminating", "terminated"}),
    "terminated": frozenset(),
}
_TURNING_PHASES = frozenset({"running", "idle", "stopping", "stopped", "failed", "terminating", "terminated"})
_LOOK_AGAIN_S = 10.0
"""While waiting, the endpoint itself is looked at after each silence of this length."""
_LAST_LOOK_S = 2.0
"""What the look at the very end may take."""
_AWAY_S = 60.0
"""How long the API may be away in a row where the waiting has no end of its own."""
_AWAY_DELAY_S_MAX = 2.0
"""Longest wait before asking an API again that is away: its return should not be missed for long."""


def wait(
    here: Here,
    until: Goal,
    *,
    or_idle: bool = False,
    timeout_s: float | None = None,
    after_event_id: int = 0,
) -> Generator[Transfer | Emit[LifecycleEvent], Any, EndpointData]:
    """Emits each event later than `after_event_id`; returns the endpoint once it is where it should be.

    With `or_idle` one that sleeps is as good as running: the next request wakes it.
    An API that is away, for an update say, is waited for too: until `timeout_s`, or for a minute.
    Raises EndpointFailed, WrongState when the goal can no longer be reached, and TimedOut.
    """
    ctx = here.ctx
    deadline_s = None if timeout_s is None else ctx.monotonic() + timeout_s
    goals = frozenset({until, "idle"} if or_idle and until == "running" else {until})
    seen, failures, failing_since_s = after_event_id, 0, ctx.monotonic()
    while True:
        endpoint = yield from _look(here, until, _left_s(ctx, deadline_s))
        if is_settled(endpoint, until, goals):
            yield from _missed(here, seen)
            return judged(endpoint, until, goals)
        left_s = _left_s(ctx, deadline_s)
        if left_s <= 0:
            raise _too_late(endpoint, until, timeout_s or 0.0)
        request = ctx.api_stream(f"{here.path}/events", timeout_s=min(left_s, _LOOK_AGAIN_S))
        listened = yield from listen(
            ctx,
            request,
            items_of("lifecycle", LifecycleEvent),
            last_id=str(seen) if seen else "",
            until=lambda event: event.phase in _TURNING_PHASES or _left_s(ctx, deadline_s) <= 0,
        )
        seen = int(listened.last_id or 0)
        if listened.heard or listened.matched or _was_silent(listened):
            failures, failing_since_s = 0, ctx.monotonic()
        else:
            failures += 1
            failing_s = ctx.monotonic() - failing_since_s
            patient = _patient(ctx, _left_s(ctx, deadline_s), failing_s)
            delay_s = delay_after(patient, request, listened, failures, failing_s)
            yield Sleep(min(delay_s, max(0.0, _left_s(ctx, deadline_s))))


def _look(here: Here, until: Goal, left_s: float) -> Steps[EndpointData]:
    """The endpoint as it is now; asked with no more patience than there is time left."""
    ctx = here.ctx
    hurried = replace(_patient(ctx, left_s), timeout_s=min(ctx.timeout_s, max(left_s, _LAST_LOOK_S)))
    try:
        return (yield from refresh(replace(here, ctx=hurried)))
    except NotFound:
        if until != "terminated":
            raise
        return here.endpoint.model_copy(update={"state": "terminated"})


def _patient(ctx: Context, left_s: float, failing_s: float = 0.0) -> Context:
    """Settings by which nothing but time ends the attempts to reach the API, which fail for `failing_s` already."""
    away_s = failing_s + max(left_s, 0.0) if math.isfinite(left_s) else _AWAY_S
    longest_s = min(ctx.retry.longest_delay_s, _AWAY_DELAY_S_MAX)
    retry = replace(ctx.retry, attempts=sys.maxsize, longest_delay_s=longest_s, total_s=away_s, connect_s=away_s)
    return replace(ctx, retry=retry)


def _left_s(ctx: Context, deadline_s: float | None) -> float:
    return float("inf") if deadline_s is None else deadline_s - ctx.monotonic()


def _was_silent(listened: Listened) -> bool:
    return isinstance(listened.outcome, Failure) and listened.outcome.sent and listened.outcome.timed_out


def is_settled(endpoint: EndpointData, until: Goal, goals: frozenset[str]) -> bool:
    """Whether waiting longer could change nothing."""
    if endpoint.state == "failed":
        return until != "terminated"
    return endpoint.state in goals | _LOST[until]


def judged(endpoint: EndpointData, until: Goal, goals: frozenset[str]) -> EndpointData:
    """The endpoint, when it is where it should be. Raises EndpointFailed or WrongState otherwise."""
    if endpoint.state in goals:
        return endpoint
    if endpoint.state == "failed":
        raise EndpointFailed(endpoint)
    reason = f": {endpoint.reason}" if endpoint.reason else ""
    raise WrongState(
        f"Endpoint {endpoint.full_name} is {endpoint.state} and so will not be {until}{reason}",
        "Somebody else asked for that; `penstock endpoint events` shows when.",
    )


def _missed(here: Here, seen: int) -> Stream[LifecycleEvent]:
    """Events that the stream had no time to tell."""
    try:
        yield from select(events(here), lambda event: event.id > seen)
    except NotFound:
        return  # a terminated endpoint may be gone, and its history with it


def _too_late(endpoint: EndpointData, until: Goal, timeout_s: float) -> TimedOut:
    where = f" at position {endpoint.position}" if endpoint.state == "queued" and endpoint.position else ""
    why = f": {endpoint.reason}" if endpoint.reason else ""
    asleep = endpoint.state == "idle" and until == "running"
    hint = "A request wakes it: call it, or take one that sleeps for running with or_idle=True."
    return TimedOut(
        f"Endpoint {endpoint.full_name} is not {until} after {timeout_s:g} s; it is {endpoint.state}{where}{why}",
        hint if asleep else "It goes on without you: wait again, or follow it with `penstock endpoint events -f`.",
    )
