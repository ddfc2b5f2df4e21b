"""An endpoint's events and logs, in parts or as a stream."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from penstock_api.context import Api
from penstock_api.domain.access import Caller
from penstock_api.domain.problems import NOT_FOUND, Problem
from penstock_api.handlers import history
from penstock_api.routes.common import EndpointId, ReadsEndpoints, TheApi, ThePage, errors
from penstock_api.routes.event_stream import EventStream
from penstock_api.streams import follow
from penstock_api.views import endpoints as views

EVENT_STREAM = "text/event-stream"
TAIL_MAX = 1_000
router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

Accept = Annotated[
    str | None,
    Header(include_in_schema=False),  # OpenAPI shows it as the media types of the answer
]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="Streams: the last id received; the stream goes on behind it.",
        examples=["17"],
    ),
]


def _stream_answer(what: str, example: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "description": f"A part of the list; or, with `Accept: {EVENT_STREAM}`, {what}. In silence a stream "
            "sends a comment every 15 seconds.",
            "content": {EVENT_STREAM: {"schema": {"type": "string", "description": what}, "example": example}},
        }
    }


@router.get(
    "/{endpoint_id}/events",
    response_model=views.EventPage,
    responses={
        **_stream_answer(
            "all events, oldest first, then each new one as it happens (`event: lifecycle`)",
            'id: 17\nevent: lifecycle\ndata: {"id":17,"at":"2026-03-01T12:00:00Z","type":"endpoint.running",'
            '"phase":"running","message":"1 replica is ready for requests.","replica_id":null}\n\n',
        ),
        **errors(NOT_FOUND),
    },
    summary="Show or follow an endpoint's events",
)
async def list_events(
    request: Request,
    api: TheApi,
    caller: ReadsEndpoints,
    page: ThePage,
    endpoint_id: EndpointId,
    accept: Accept = None,
    last_event_id: LastEventId = None,
) -> Any:
    """What happened to it, oldest first."""
    if not _wants_stream(accept):
        async with api.platform.transaction() as store:
            return await history.list_events(store, caller, endpoint_id, page)
    feed, after = await history.follow_events(api.platform, caller, endpoint_id, last_event_id=last_event_id)
    return _stream(request, api, caller, feed, after)


@router.get(
    "/{endpoint_id}/logs",
    response_model=views.LogPage,
    responses={
        **_stream_answer(
            "the last `tail` lines, oldest first, then each new one as it is printed (`event: log`)",
            'id: 4711\nevent: log\ndata: {"id":4711,"at":"2026-03-01T12:00:00Z",'
            '"replica_id":"rep_01kc4v9t2nf7q9x2t6w3y1z0ab","text":"model loaded in 0.8 s"}\n\n',
        ),
        **errors(NOT_FOUND),
    },
    summary="Show or follow an endpoint's logs",
)
async def list_logs(
    request: Request,
    api: TheApi,
    caller: ReadsEndpoints,
    page: ThePage,
    endpoint_id: EndpointId,
    replica_id: Annotated[str | None, Query(max_length=64, description="Only the lines of this replica.")] = None,
    follow: Annotated[bool, Query(description=f"The same as `Accept: {EVENT_STREAM}`.")] = False,
    tail: Annotated[int, Query(ge=0, le=TAIL_MAX, description="Streams: how many of the last lines come first.")] = 100,
    accept: Accept = None,
    last_event_id: LastEventId = None,
) -> Any:
    """What its replicas printed, newest first."""
    if not follow and not _wants_stream(accept):
        async with api.platform.transaction() as store:
            return await history.list_logs(store, caller, endpoint_id, replica_id=replica_id, page=page)
    feed, after = await history.follow_logs(
        api.platform, caller, endpoint_id, replica_id=replica_id, tail=tail, last_event_id=last_event_id
    )
    return _stream(request, api, caller, feed, after)


def _wants_stream(accept: str | None) -> bool:
    return accept is not None and EVENT_STREAM in accept


def _stream(request: Request, api: Api, caller: Caller, feed: history.Feed, after: int) -> Response:
    async def still_allowed() -> bool:
        try:
            again = await api.authentication.caller(request.headers.get("authorization"))
        except Problem:
            return False
        return "endpoints:read" in again.scopes

    parts = follow(feed, after, api.wakeups, heartbeat_s=api.stream_heartbeat_s, still_allowed=still_allowed)
    return EventStream(parts, lambda: api.places.taken_by(caller.organization_id))
