"""How an endpoint does."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from penstock_api.domain.problems import NOT_FOUND
from penstock_api.handlers import metrics
from penstock_api.routes.common import EndpointId, ReadsEndpoints, TheApi, errors
from penstock_api.views import metrics as views

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


@router.get("/{endpoint_id}/metrics", responses=errors(NOT_FOUND), summary="Show an endpoint's metrics")
async def show_metrics(
    api: TheApi,
    caller: ReadsEndpoints,
    endpoint_id: EndpointId,
    start: Annotated[
        datetime | None,
        Query(
            alias="from",
            description="Beginning, with a time zone; without it, an hour before the end.",
            examples=["2026-03-01T12:00:00Z"],
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        Query(alias="to", description="End, with a time zone; without it, now.", examples=["2026-03-01T13:00:00Z"]),
    ] = None,
    step: Annotated[
        str | None,
        Query(
            max_length=16,
            description="Length of a step, such as 30s, 5m or 1h: a multiple of 10 seconds. Without it, one that "
            "gives at most 120 points. The finest steps are kept for two hours, minutes for two days, hours for "
            "ninety days.",
            examples=["1m"],
        ),
    ] = None,
) -> views.Metrics:
    """Requests, their times, their queue, tokens and replicas, by steps of time, and in all.

    What the gateway measures shows here a few seconds later. Steps are aligned to the clock, in UTC.
    """
    return await metrics.show_metrics(
        api.platform, caller, endpoint_id, start=start, end=end, step=step, resolutions=api.resolutions
    )
