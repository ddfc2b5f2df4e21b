"""Use and cost, and what the hosts have to offer."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from penstock_api.domain.problems import NOT_FOUND, invalid_field
from penstock_api.handlers import usage
from penstock_api.handlers.usage import Span
from penstock_api.routes.common import EndpointId, ReadsEndpoints, ReadsUsage, TheApi, errors
from penstock_api.views import usage as views
from penstock_common.contracts.questions import Grouping

router = APIRouter(prefix="/v1", tags=["usage"])
_GROUPINGS: dict[str, Grouping] = {"endpoint": "endpoint", "day": "day", "gpu_type": "gpu_type"}

From = Annotated[
    datetime | None,
    Query(
        alias="from",
        description="Beginning, with a time zone; without it, 30 days before the end.",
        examples=["2026-03-01T00:00:00Z"],
    ),
]
To = Annotated[
    datetime | None,
    Query(alias="to", description="End, with a time zone; without it, now.", examples=["2026-04-01T00:00:00Z"]),
]
GroupBy = Annotated[
    str,
    Query(
        max_length=64,
        description="What rows are grouped by: any of endpoint, day and gpu_type, with commas between.",
        examples=["endpoint,day"],
    ),
]


@router.get("/endpoints/{endpoint_id}/usage", responses=errors(NOT_FOUND), summary="Show an endpoint's usage")
async def show_endpoint_usage(
    api: TheApi,
    caller: ReadsUsage,
    endpoint_id: EndpointId,
    start: From = None,
    end: To = None,
    group_by: GroupBy = "endpoint,day,gpu_type",
) -> views.Usage:
    """Time that its replicas were ready, and what it costs, by the microsecond."""
    return await usage.show_usage(api.desk, caller, Span(start, end), _groups(group_by), endpoint_id)


@router.get("/usage", responses=errors(NOT_FOUND), summary="Show the organization's usage")
async def show_usage(
    api: TheApi,
    caller: ReadsUsage,
    start: From = None,
    end: To = None,
    group_by: GroupBy = "endpoint,day,gpu_type",
    endpoint_id: Annotated[str | None, Query(max_length=64, description="Only this endpoint.")] = None,
) -> views.Usage:
    """Time that replicas were ready, and what it costs, by the microsecond."""
    return await usage.show_usage(api.desk, caller, Span(start, end), _groups(group_by), endpoint_id)


@router.get("/gpus", responses=errors(), summary="List GPU types")
async def list_gpus(api: TheApi, _: ReadsEndpoints) -> views.Gpus:
    """For each type: how many there are and are free, the price, and which counts could start right now."""
    return await usage.show_gpus(api.desk)


def _groups(group_by: str) -> tuple[Grouping, ...]:
    names = [name.strip() for name in group_by.split(",") if name.strip()]
    unknown = [name for name in names if name not in _GROUPINGS]
    if unknown:
        raise invalid_field("group_by", f"{unknown[0]!r} is none of {', '.join(_GROUPINGS)}")
    return tuple(dict.fromkeys(_GROUPINGS[name] for name in names))
