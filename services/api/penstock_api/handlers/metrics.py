"""Requests for how an endpoint does, and the keeping of what that is made of."""

from datetime import datetime, timedelta

from penstock_api.domain.access import Caller
from penstock_api.domain.metrics import Counts, Tally, by_class, coarser, series, total_of
from penstock_api.domain.windows import Kept, Resolutions, merge_before, metrics_window
from penstock_api.handlers.endpoints import find_endpoint
from penstock_api.handlers.platform import Platform
from penstock_api.store import Store
from penstock_api.views import metrics as views
from penstock_common.contracts.statistics import quantile_us

PIECE_ROLLUPS = 2_000
"""Rollups that are merged in one transaction."""


async def show_metrics(
    platform: Platform,
    caller: Caller,
    identifier: str,
    *,
    start: datetime | None,
    end: datetime | None,
    step: str | None,
    resolutions: Resolutions,
) -> views.Metrics:
    """Raises Problem for an endpoint that is not the caller's, and for a window that makes no sense."""
    async with platform.transaction() as store:
        endpoint = await find_endpoint(store, caller, identifier)
        now = await store.now()
        window = metrics_window(start, end, step, now, resolutions)
        rollups = await store.rollups.of(endpoint.id, window.start, window.end)
    steps = series(rollups, window)
    return views.Metrics(
        endpoint_id=endpoint.id,
        start=window.start,
        end=window.end,
        step_s=window.step // timedelta(seconds=1),
        points=[_point(at, tally, min(at + window.step, now) - at) for at, tally in steps],
        total=_point(window.start, total_of(tally for _, tally in steps), min(window.end, now) - window.start),
    )


async def merge_old(store: Store, kept: Kept, into: Kept, now: datetime) -> int:
    """Merge a piece of the rollups that have been kept at their step for long enough; returns how many."""
    taken = await store.rollups.take(kept.step_s, merge_before(kept, into.step_s, now), PIECE_ROLLUPS)
    if taken:
        await store.rollups.put(coarser(taken, into.step_s))
    return len(taken)


async def drop_old(store: Store, last: Kept, now: datetime) -> int:
    """Delete a piece of the coarsest rollups that are too old; returns how many."""
    return len(await store.rollups.take(last.step_s, now - timedelta(seconds=last.for_s), PIECE_ROLLUPS))


def _point(at: datetime, tally: Tally, covered: timedelta) -> views.MetricsPoint:
    """`covered` is how much of the step has passed."""
    seconds = max(1.0, covered.total_seconds())
    requests = sum(tally.statuses.values())
    _, ready, desired = tally.replicas or (None, None, None)
    measured = tally.measured_us > 0
    return views.MetricsPoint(
        at=at,
        requests=requests,
        requests_per_s=round(requests / seconds, 3),
        statuses=by_class(tally.statuses),
        latency_ms=_quantiles(tally.latency),
        queue_wait_ms=_quantiles(tally.queue_wait),
        first_byte_ms=_quantiles(tally.first_byte),
        first_token_ms=_quantiles(tally.first_token),
        prompt_tokens_per_s=round(tally.prompt_tokens / seconds, 3),
        completion_tokens_per_s=round(tally.completion_tokens / seconds, 3),
        in_flight=round(tally.in_flight_us / tally.measured_us, 3) if measured else None,
        in_flight_max=tally.in_flight_max if measured else None,
        queue_length=round(tally.queued_us / tally.measured_us, 3) if measured else None,
        queue_length_max=tally.queued_max if measured else None,
        ready_replicas=ready,
        desired_replicas=desired,
        cold_starts=tally.cold_starts,
    )


def _quantiles(counts: Counts) -> views.Quantiles | None:
    p50, p90, p99 = (quantile_us(counts, share) for share in (0.5, 0.9, 0.99))
    if p50 is None or p90 is None or p99 is None:
        return None
    return views.Quantiles(p50=p50 / 1000, p90=p90 / 1000, p99=p99 / 1000)
