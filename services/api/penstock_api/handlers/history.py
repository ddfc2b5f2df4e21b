"""Requests for what happened to an endpoint and what its replicas printed, in parts or as it comes."""

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_api.domain import cursors
from penstock_api.domain.access import Caller
from penstock_api.domain.problems import invalid_field
from penstock_api.handlers.endpoints import find_endpoint
from penstock_api.handlers.platform import Page, Platform
from penstock_api.store import Store
from penstock_api.views import endpoints as views
from penstock_common.ids import REPLICA, is_id

STREAM_PART = 500
"""Most items that a stream reads at once."""
_EVENTS = "events"
_LOGS = "logs"


async def list_events(store: Store, caller: Caller, endpoint_id: str, page: Page) -> views.EventPage:
    after = 0 if page.cursor is None else cursors.read_row(_EVENTS, page.cursor)
    endpoint = await find_endpoint(store, caller, endpoint_id)
    found = await store.endpoints.events(endpoint.id, after, page.limit + 1)
    shown = found[: page.limit]
    return views.EventPage(
        items=[views.Event.model_validate(event) for event in shown],
        next_cursor=cursors.after_row(_EVENTS, shown[-1].id) if len(found) > page.limit else None,
    )


async def list_logs(
    store: Store, caller: Caller, endpoint_id: str, *, replica_id: str | None, page: Page
) -> views.LogPage:
    before = None if page.cursor is None else cursors.read_row(_LOGS, page.cursor)
    endpoint = await find_endpoint(store, caller, endpoint_id)
    found = await store.logs.newest(
        endpoint.id, replica_id=_checked_replica(replica_id), before=before, limit=page.limit + 1
    )
    shown = found[: page.limit]
    return views.LogPage(
        items=[views.LogLine.model_validate(line) for line in shown],
        next_cursor=cursors.after_row(_LOGS, shown[-1].id) if len(found) > page.limit else None,
    )


@dataclass(frozen=True, slots=True)
class EventFeed:
    """An endpoint's events from behind one of them on, for a stream."""

    platform: Platform
    endpoint_id: str
    event_name: str = "lifecycle"

    @property
    def topic(self) -> str:
        """What the stream is woken by."""
        return f"events:{self.endpoint_id}"

    async def after(self, last_id: int) -> Sequence[views.Event]:
        """The next events, oldest first; at most STREAM_PART."""
        async with self.platform.transaction() as store:
            events = await store.endpoints.events(self.endpoint_id, last_id, STREAM_PART)
        return [views.Event.model_validate(event) for event in events]


@dataclass(frozen=True, slots=True)
class LogFeed:
    """An endpoint's log lines from behind one of them on, for a stream."""

    platform: Platform
    endpoint_id: str
    replica_id: str | None
    event_name: str = "log"

    @property
    def topic(self) -> str:
        """What the stream is woken by."""
        return f"logs:{self.endpoint_id}"

    async def after(self, last_id: int) -> Sequence[views.LogLine]:
        """The next lines, oldest first; at most STREAM_PART."""
        async with self.platform.transaction() as store:
            lines = await store.logs.after(
                self.endpoint_id, replica_id=self.replica_id, after=last_id, limit=STREAM_PART
            )
        return [views.LogLine.model_validate(line) for line in lines]


Feed = EventFeed | LogFeed


async def follow_events(
    platform: Platform, caller: Caller, endpoint_id: str, *, last_event_id: str | None
) -> tuple[EventFeed, int]:
    """The feed, and the event behind which it begins: the first, or where the client broke off."""
    async with platform.transaction() as store:
        endpoint = await find_endpoint(store, caller, endpoint_id)
    return EventFeed(platform, endpoint.id), _position(last_event_id) or 0


async def follow_logs(
    platform: Platform,
    caller: Caller,
    endpoint_id: str,
    *,
    replica_id: str | None,
    tail: int,
    last_event_id: str | None,
) -> tuple[LogFeed, int]:
    """The feed, and the line behind which it begins: `tail` lines back, or where the client broke off."""
    replica_id = _checked_replica(replica_id)
    async with platform.transaction() as store:
        endpoint = await find_endpoint(store, caller, endpoint_id)
        feed = LogFeed(platform, endpoint.id, replica_id)
        position = _position(last_event_id)
        if position is not None:
            return feed, position
        lines = await store.logs.newest(endpoint.id, replica_id=replica_id, before=None, limit=tail + 1)
    # One line more than wanted: the feed begins behind it.
    return feed, lines[tail].id if len(lines) > tail else 0


def _position(last_event_id: str | None) -> int | None:
    if last_event_id is None or last_event_id == "":
        return None
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 18:
        raise invalid_field("Last-Event-ID", "is not the id of an event of this stream: leave it out to begin anew")
    return int(last_event_id)


def _checked_replica(replica_id: str | None) -> str | None:
    if replica_id is not None and not is_id(REPLICA, replica_id):
        raise invalid_field("replica_id", "is not the id of a replica, such as rep_01kc…")
    return replica_id
