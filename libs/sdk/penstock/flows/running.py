"""What one endpoint is asked once it exists: to predict, and to tell its story."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.context import EVENT_STREAM, JSON, Context, Query
from penstock.effects import Emit, Failure, Request, Response, Steps, Stream, read
from penstock.errors import Unreachable
from penstock.exchange import STREAM_SILENCE_S, call, fetch, items_of, opened, pages
from penstock.exchange import follow as follow_stream
from penstock.flows import endpoints
from penstock.flows.capacity import Moment, moment, usage_of
from penstock.models.capacity import Usage
from penstock.models.endpoint import EndpointData, LifecycleEvent, LogLine
from penstock.models.metrics import Metrics
from penstock.parts import PartDecoder, decode_answer


@dataclass(frozen=True, slots=True)
class Here:
    """One endpoint, and the settings of the client that holds it."""

    ctx: Context
    endpoint: EndpointData

    @property
    def path(self) -> str:
        return f"/v1/endpoints/{self.endpoint.id}"


def refresh(here: Here) -> Steps[EndpointData]:
    """Ask the API how the endpoint is now, and bring this object up to date."""
    return (yield from fetch(here.ctx, here.ctx.api("GET", here.path), EndpointData))


def stop(here: Here) -> Steps[EndpointData]:
    """Stop it: its cost ends, and it can be restarted. Returns at once, while it is stopping."""
    return endpoints.stop(here.ctx, here.endpoint)


def restart(here: Here) -> Steps[EndpointData]:
    """Start it again after a stop, from the same source. Returns at once, while it is queued."""
    return endpoints.restart(here.ctx, here.endpoint)


def terminate(here: Here) -> Steps[EndpointData]:
    """End it for good and remove all its data. Returns at once, while it is terminating."""
    return endpoints.terminate(here.ctx, here.endpoint)


# --- through the gateway ----------------------------------------------------------------------


def predict(here: Here, path: str, /, **body: Any) -> Steps[Any]:
    """Call the route at `path` with these fields as its JSON body; returns the decoded answer.

    JSON comes back as Python values, text as str, anything else as bytes. A 503 is tried again with
    a growing wait, as the client's retry policy says. Raises InvalidRequest (its `errors` name each
    wrong field), ModelError when the model's code raised, Overloaded, NotFound, Unreachable…
    """
    response = yield from call(here.ctx, _prediction(here, path, body))
    return decode_answer(response)


def stream(here: Here, path: str, /, **body: Any) -> Stream[Any]:
    """The same for a route that streams: each part as it arrives.

    Parts of server-sent events and of JSON lines are decoded; those of text are str, others bytes.
    """
    request = _prediction(here, path, body)
    # As events a stream can say in its middle that the model failed, and how.
    request = replace(request, headers={**request.headers, "Accept": f"{EVENT_STREAM}, */*;q=0.9"})
    response = yield from opened(here.ctx, request)
    decoder = PartDecoder(response.media_type)
    while True:
        chunk = yield from read()
        if isinstance(chunk, Failure):
            raise Unreachable(f"The answer of {request.url} broke off ({chunk.message}).", "")
        for part in decoder.feed(chunk):
            yield Emit(part)
        if not chunk:
            return


def request(
    here: Here,
    method: str,
    path: str,
    *,
    json: object = None,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    query: Query | None = None,
) -> Steps[Response]:
    """Any request to the endpoint: an answer below 400 is returned whole, others are raised.

    A POST whose answer was lost is repeated only when `headers` hold an Idempotency-Key.
    """
    own = dict(headers or {})
    if json is not None:
        content = _encoded(json)
        own.setdefault("Content-Type", JSON)
    return (yield from call(here.ctx, _to_endpoint(here, method, path, own, query, content)))


def _prediction(here: Here, path: str, body: Mapping[str, Any]) -> Request:
    """A route declared as GET takes no body; all others are POSTs."""
    routes = here.endpoint.spec.routes
    if not body and any(route.path == path and route.verb == "GET" for route in routes):
        return _to_endpoint(here, "GET", path, {}, None, None)
    return _to_endpoint(here, "POST", path, {"Content-Type": JSON}, None, _encoded(body))


def _to_endpoint(
    here: Here, method: str, path: str, headers: Mapping[str, str], query: Query | None, content: bytes | None
) -> Request:
    url = here.endpoint.url.rstrip("/") + "/" + path.lstrip("/")
    with_key = not here.endpoint.spec.public
    return here.ctx.endpoint(method, url, with_key=with_key, headers=headers, query=query, content=content)


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# --- its story --------------------------------------------------------------------------------


def events(here: Here, *, follow: bool = False) -> Stream[LifecycleEvent]:
    """Its history, oldest first; with `follow`, then each event as it happens, until it is terminated."""
    path = f"{here.path}/events"
    if not follow:
        return pages(here.ctx, path, LifecycleEvent)
    return follow_stream(
        here.ctx,
        here.ctx.api_stream(path, timeout_s=STREAM_SILENCE_S),
        items_of("lifecycle", LifecycleEvent),
        until=lambda event: event.phase == "terminated",
    )


def logs(
    here: Here, *, follow: bool = False, tail: int = 100, limit: int | None = None, replica_id: str | None = None
) -> Stream[LogLine]:
    """What its replicas printed.

    Without `follow`: newest first, at most `limit` lines. With it: the last `tail` lines oldest
    (1000 at most) first, then each line as it is printed, for ever; broken connections are mended
    on the way.
    """
    path = f"{here.path}/logs"
    if not follow:
        return pages(here.ctx, path, LogLine, query={"replica_id": replica_id}, limit=limit)
    query: Query = {"tail": tail, "replica_id": replica_id}
    request = here.ctx.api_stream(path, query=query, timeout_s=STREAM_SILENCE_S)
    return follow_stream(here.ctx, request, items_of("log", LogLine))


def usage(here: Here, *, start: Moment | None = None, end: Moment | None = None) -> Steps[Usage]:
    """What this endpoint used and cost in `[start, end)`, by day and GPU type."""
    return (yield from usage_of(here.ctx, f"{here.path}/usage", start=start, end=end))


def metrics(
    here: Here, *, start: Moment | None = None, end: Moment | None = None, step_s: int | None = None
) -> Steps[Metrics]:
    """How this endpoint did in `[start, end)`, by steps of `step_s` seconds: requests, their times, replicas…

    Without any: the last hour. The finest step is 10 s, kept for two hours; minutes are kept for two
    days, hours for ninety. Raises InvalidRequest, which names what to ask instead.
    """
    query: Query = {"from": moment(start), "to": moment(end), "step": None if step_s is None else f"{step_s}s"}
    return (yield from fetch(here.ctx, here.ctx.api("GET", f"{here.path}/metrics", query=query), Metrics))
