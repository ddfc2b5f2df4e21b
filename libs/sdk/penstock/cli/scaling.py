"""How many replicas run: the options of `penstock endpoint create`, and the words of `show` and `list`."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from penstock.cli.exits import UsageProblem
from penstock.cli.words import duration, plural, seconds_of

if TYPE_CHECKING:
    from penstock.models.endpoint import EndpointData, Scaling, ScheduledMinimum

_EXAMPLE = "--schedule '0 8 * * 1-5;0 18 * * 1-5;Europe/Berlin;2'"


def scaling_of(
    *,
    replicas: int | None,
    min_replicas: int | None,
    max_replicas: int | None,
    idle_timeout: str | None,
    scale_down_delay: str | None,
    queue_wait_target: str | None,
    schedule: Sequence[str] | None,
    queue_timeout: str | None,
) -> dict[str, Any]:
    """Options of `endpoints.create`. Raises UsageProblem, which names the option."""
    if replicas is not None and (min_replicas is not None or max_replicas is not None):
        raise UsageProblem(
            "--replicas sets both --min-replicas and --max-replicas.",
            "Leave --replicas out where you give one of those.",
        )
    return {
        "replicas": replicas,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "idle_timeout_s": _whole_seconds(idle_timeout, "--idle-timeout"),
        "scale_down_delay_s": _whole_seconds(scale_down_delay, "--scale-down-delay"),
        "queue_wait_target_s": seconds_of(queue_wait_target, "--queue-wait-target") if queue_wait_target else None,
        "schedule": [window_of(text, f"--schedule {number}") for number, text in enumerate(schedule or (), 1)] or None,
        "queue_timeout_s": _whole_seconds(queue_timeout, "--queue-timeout"),
    }


def window_of(text: str, where: str) -> dict[str, Any]:
    """`START;END;ZONE;REPLICAS` or, in UTC, `START;END;REPLICAS`. Raises UsageProblem."""
    parts = [part.strip() for part in text.split(";")]
    if len(parts) not in (3, 4) or not all(parts):
        raise UsageProblem(
            f"{where}: {text!r} is not START;END;ZONE;REPLICAS (START and END as cron lines).",
            f"For example {_EXAMPLE}",
        )
    start, end, *zone, replicas = parts
    if not replicas.isascii() or not replicas.isdigit():
        raise UsageProblem(f"{where}: {replicas!r} is not a number of replicas.", f"For example {_EXAMPLE}")
    window = {"start": start, "end": end, "min_replicas": int(replicas)}
    return {**window, "time_zone": zone[0]} if zone else window


def _whole_seconds(text: str | None, option: str) -> int | None:
    return round(seconds_of(text, option)) if text else None


# --- words ------------------------------------------------------------------------------------


def counts(endpoint: "EndpointData") -> str:
    """`1/2`: replicas that are ready, and that are desired."""
    return f"{endpoint.ready_replicas}/{endpoint.desired_replicas}"


def limits(scaling: "Scaling | None") -> str:
    """`0–4`, or `2` where it is always as many."""
    if scaling is None:
        return ""
    least, most = scaling.min_replicas, scaling.max_replicas
    return str(least) if least == most else f"{least}–{most}"


def described(endpoint: "EndpointData") -> str:
    """`1 of 2 ready (0–4)`."""
    within = limits(endpoint.spec.scaling)
    return f"{endpoint.ready_replicas} of {endpoint.desired_replicas} ready{f' ({within})' if within else ''}"


def asleep(endpoint: "EndpointData", now: datetime) -> str:
    """For how long, and what ends it; empty for one that is awake."""
    if endpoint.state != "idle":
        return ""
    slept = (now - endpoint.idle_since).total_seconds() if endpoint.idle_since else None
    return f"{'' if slept is None else f'for {duration(max(0.0, slept))}; '}a request wakes it"


def window(one: "ScheduledMinimum") -> str:
    """A window of time with a higher minimum."""
    return f"{plural(one.min_replicas, 'replica')} at least from {one.start!r} to {one.end!r}, {one.time_zone}"


def cost(price: str, scaling: "Scaling | None") -> str:
    """What the price is for: `price` is that of the least that runs at all."""
    least, most = (scaling.min_replicas, scaling.max_replicas) if scaling else (1, 1)
    if not price:
        return ""
    if least == most:
        return f"{price} an hour while it runs"
    running = f"{price} an hour for {plural(max(1, least), 'replica')} while it runs, and at most {most} run"
    return running if least else f"{running}; nothing while it sleeps"
