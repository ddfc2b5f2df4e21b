"""Requests about use, GPUs and prices: the answers come from billing and the scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock_api.domain.access import Caller
from penstock_api.domain.money import price_of
from penstock_api.domain.problems import invalid_field
from penstock_api.domain.windows import utc
from penstock_api.handlers.endpoints import Desk, find_endpoint
from penstock_api.handlers.platform import answer_of
from penstock_api.views import usage as views
from penstock_common.contracts.questions import (
    CPU_TYPE,
    AskCapacity,
    AskUsage,
    CapacityReply,
    GpuCapacity,
    Grouping,
    Price,
    UsageReply,
    UsageRow,
)

COUNTS = (1, 2, 3, 4)
SPAN_DEFAULT = timedelta(days=30)
SPAN_MAX = timedelta(days=366)
_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time as the user gave it; what is left out is the last 30 days."""

    start: datetime | None
    end: datetime | None


async def show_usage(
    desk: Desk, caller: Caller, span: Span, group_by: tuple[Grouping, ...], endpoint_id: str | None
) -> views.Usage:
    async with desk.platform.transaction() as store:
        if endpoint_id is not None:
            endpoint_id = (await find_endpoint(store, caller, endpoint_id)).id
        now = await store.now()
    start, end = _checked(span, now)
    question = AskUsage(
        organization_id=caller.organization_id, endpoint_id=endpoint_id, start=start, end=end, group_by=group_by
    )
    reply: UsageReply = await answer_of(desk.platform, question)
    return views.Usage(
        rows=[_row(row) for row in reply.rows],
        total_cost_micros=reply.total_cost_micros,
        currency=reply.currency,
        as_of=reply.as_of,
        running_replicas=reply.running_replicas,
    )


async def show_gpus(desk: Desk) -> views.Gpus:
    reply: CapacityReply = await answer_of(desk.platform, AskCapacity())
    prices = await desk.prices.now_or_none()
    return views.Gpus(
        gpus=[_capacity(gpu, gpu.type, prices) for gpu in reply.gpus], cpu=_capacity(reply.cpu, CPU_TYPE, prices)
    )


def _checked(span: Span, now: datetime) -> tuple[datetime, datetime]:
    end = utc("to", span.end, now)
    start = utc("from", span.start, end - SPAN_DEFAULT)
    if start >= end:
        raise invalid_field("from", "must be earlier than to")
    if end - start > SPAN_MAX:
        raise invalid_field("from", f"must be at most {SPAN_MAX.days} days before to: ask for the parts one by one")
    return start, end


def _row(row: UsageRow) -> views.UsageRow:
    return views.UsageRow(
        endpoint_id=row.endpoint_id,
        day=row.day,
        gpu_type=row.gpu_type,
        replica_s=row.replica_us / _MICROS,
        gpu_s=row.gpu_us / _MICROS,
        cost_micros=row.cost_micros,
    )


def _capacity(capacity: GpuCapacity, gpu_type: str, prices: Mapping[str, Price] | None) -> views.Capacity:
    price = None if prices is None else price_of(prices, gpu_type)
    return views.Capacity(
        type=capacity.type,
        memory_gb=capacity.memory_gb,
        total=capacity.total,
        free=capacity.free,
        price_micros_per_hour=None if price is None else price.micros_per_hour,
        currency=None if price is None else price.currency,
        can_start={str(count): count in capacity.startable_counts for count in COUNTS},
    )
