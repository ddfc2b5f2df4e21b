"""What the gateway says when it does not serve a request, and when it does not: pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from penstock_common.contracts.endpoint import EndpointState
from penstock_common.contracts.records import Route

SERVING: frozenset[EndpointState] = frozenset({"queued", "starting", "running", "idle"})
"""States in which requests are taken: they wait where no replica is ready yet."""
AWAKE: frozenset[EndpointState] = frozenset({"running", "idle"})
"""States in which `GET /ping` is 200."""

STARTING_RETRY_AFTER_S = 5
"""Said while an endpoint starts, when there is no service rate to estimate from."""
RETRY_AFTER_S_MAX = 3600

Why = Literal["queue_full", "queue_timeout"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the gateway's own, rendered as problem+json. `members` are further JSON members."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None
    members: Mapping[str, object] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """The whole problem as JSON, where it is said in another's words."""


class BadRequest(Exception):
    """A request that is refused because of how it is written; the connection is closed after it."""

    def __init__(self, detail: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(detail)
        self.refusal = Refusal(status, code, detail)


class BadResponse(Exception):
    """A replica's answer that cannot be passed on."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue as the caller who is refused sees it."""

    waiting: int
    limit: int
    timeout_s: float
    replicas: int
    slots: int
    ejected: int
    service_s: float | None
    """Mean time that a request takes on a replica; None before the first was answered."""


def retry_after_s(view: QueueView) -> int | None:
    """Whole seconds until the queue as it stands is worked off at the measured service rate."""
    if view.slots == 0 or view.service_s is None:
        return None
    estimate = math.ceil((view.waiting + 1) * view.service_s / view.slots)
    return max(1, min(estimate, RETRY_AFTER_S_MAX))


def overloaded(route: Route, view: QueueView, why: Why) -> Refusal:
    """503 for a request that could not wait, or waited too long."""
    if why == "queue_full":
        what = f"{view.waiting} requests already wait and no more than {view.limit} may"
    else:
        what = f"no replica became free within {view.timeout_s:g} s"
    return Refusal(
        503,
        "overloaded",
        f"{what}; {_capacity(route, view)}. Try again after the time in Retry-After, with growing waits.",
        retry_after_s(view) or (STARTING_RETRY_AFTER_S if view.slots == 0 else 1),
        {
            "reason": why,
            "state": route.state,
            "queue_length": view.waiting,
            "queue_limit": view.limit,
            "replicas": view.replicas,
        },
    )


def not_started(route: Route, view: QueueView, waited_s: float) -> Refusal:
    """503 for a request that waited for a first replica as long as it may."""
    shortage = "" if route.public else route.shortage
    missing = f": {shortage}" if shortage else ""
    return Refusal(
        503,
        "not_started",
        f"no replica became ready within {waited_s:g} s; the endpoint is {route.state}{_because(route)}{missing}. "
        "Try again later, and see the endpoint's log and events for what holds its start up.",
        STARTING_RETRY_AFTER_S,
        {
            "reason": "start_timeout",
            "state": route.state,
            "queue_length": view.waiting,
            "queue_limit": view.limit,
            "replicas": view.replicas,
        },
    )


def _capacity(route: Route, view: QueueView) -> str:
    if view.replicas == 0:
        return f"the endpoint is {route.state}{_because(route)} and has no replica yet"
    if view.ejected == view.replicas:
        return "no replica accepts connections at the moment"
    noun = "replica works" if view.replicas == 1 else "replicas work"
    return f"{view.replicas} {noun} on at most {view.slots} requests at a time"


def not_running(route: Route) -> Refusal:
    """503 for an endpoint whose state takes no requests."""
    return Refusal(
        503,
        "not_running",
        f"the endpoint is {route.state}{_because(route)}. {_MENDS.get(route.state, 'Wait until it runs.')}",
        members={"state": route.state, "reason": _reason(route)},
    )


def ping_refused(route: Route) -> Refusal:
    """503 of `GET /ping` for an endpoint that is neither running nor idle."""
    refusal = not_running(route)
    if route.state in SERVING:
        return Refusal(503, refusal.code, refusal.detail, STARTING_RETRY_AFTER_S, refusal.members)
    return refusal


def _because(route: Route) -> str:
    reason = _reason(route)
    return f" ({reason})" if reason else ""


def _reason(route: Route) -> str:
    """Why the endpoint is in its state; strangers may call a public one, and it can quote a log."""
    return "" if route.public else route.reason


_MENDS: Mapping[str, str] = {
    "stopping": "Restart it once it has stopped.",
    "stopped": "Restart it with `penstock endpoint restart`.",
    "failed": "A failed endpoint cannot run again: terminate it and create a new one.",
    "terminating": "It is being removed.",
    "terminated": "It was removed.",
}


def not_found(domain: str) -> Refusal:
    """404: also for an endpoint of another organization, which the caller may not know of."""
    return Refusal(
        404,
        "not_found",
        "there is no such endpoint, or the API key is of another organization. Endpoints are at "
        f"/e/<workspace>/<endpoint>/… and at http://<endpoint>.<workspace>.{domain}/…",
    )


NOT_CURRENT = Refusal(
    503,
    "starting_up",
    "the gateway does not know this endpoint or API key, and is still fetching those made last: try again",
    retry_after_s=1,
)
"""Said instead of 404 or 401, which clients take as final, while routes and keys may be out of date."""
INVALID_PRIORITY = Refusal(
    400,
    "invalid_priority",
    "the header X-Penstock-Priority must be high, normal or low, and be sent once: correct it or leave it out",
    members={"errors": [{"field": "X-Penstock-Priority", "message": "must be high, normal or low, and be sent once"}]},
)
NO_KEY = Refusal(
    401,
    "no_api_key",
    "this endpoint needs an API key: send the header `Authorization: Bearer psk_…`",
    headers=(("WWW-Authenticate", 'Bearer realm="penstock"'),),
)
INVALID_KEY = Refusal(
    401,
    "invalid_api_key",
    "the API key is unknown, revoked or expired: send a valid one as `Authorization: Bearer psk_…`",
    headers=(("WWW-Authenticate", 'Bearer realm="penstock", error="invalid_token"'),),
)
NO_SCOPE = Refusal(
    403, "missing_scope", "the API key lacks the scope endpoints:invoke: use a key that has it, or add it"
)
TOO_MANY_CONNECTIONS = Refusal(
    503, "too_many_connections", "the gateway has as many connections as it may: try again", retry_after_s=1
)
HEAD_TOO_LARGE = Refusal(431, "head_too_large", "the request line and headers are longer than the gateway takes")
HEAD_TIMEOUT = Refusal(408, "request_timeout", "the request line and headers did not arrive in time")
BODY_TIMEOUT = Refusal(
    408, "request_timeout", "the request body stopped arriving before it was complete, or came too slowly"
)
BODY_TOO_LARGE = Refusal(413, "body_too_large", "the request body is longer than the gateway takes")
REPLICA_TIMEOUT = Refusal(504, "replica_timeout", "the replica did not answer in time; the request may have run")
REPLICA_LOST = Refusal(
    502,
    "replica_lost",
    "the replica closed the connection before it answered. The request may have run, so it was not repeated: "
    "repeat it if that does no harm, and look into the endpoint's log",
)
REPLICA_MALFORMED = Refusal(502, "replica_malformed", "the replica's answer is not valid HTTP: see the endpoint's log")
