"""What the routes have in common: the caller, pages, idempotency, and how errors are documented."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock_api.context import Api
from penstock_api.domain import problems
from penstock_api.domain.access import Caller, Scope
from penstock_api.domain.idempotency import Attempt, request_digest
from penstock_api.domain.problems import Kind
from penstock_api.handlers.once import Answer
from penstock_api.handlers.platform import Page

PROBLEM_TYPE = "application/problem+json"
LIMIT_MAX = 200
_bearer = HTTPBearer(
    scheme_name="apiKey", bearerFormat="psk_…", description="An API key of Penstock.", auto_error=False
)


def api_of(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


TheApi = Annotated[Api, Depends(api_of)]


class CallerWith:
    """A dependency: the caller, who must have a scope. OpenAPI says which."""

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope

    async def __call__(
        self, request: Request, api: TheApi, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> Caller:
        caller = await api.authentication.caller(request.headers.get("authorization"))
        api.rate_limit.count(caller.key_id)
        if self.scope is not None:
            caller.require(self.scope)
        return caller


AnyCaller = Annotated[Caller, Depends(CallerWith(None))]
ReadsAccount = Annotated[Caller, Depends(CallerWith("account:read"))]
WritesAccount = Annotated[Caller, Depends(CallerWith("account:write"))]
ReadsEndpoints = Annotated[Caller, Depends(CallerWith("endpoints:read"))]
WritesEndpoints = Annotated[Caller, Depends(CallerWith("endpoints:write"))]
ReadsUsage = Annotated[Caller, Depends(CallerWith("usage:read"))]
PlatformAdmin = Annotated[Caller, Depends(CallerWith("platform:admin"))]


def page(
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most items in the answer.", examples=[50])] = 50,
    cursor: Annotated[
        str | None,
        Query(max_length=128, description="`next_cursor` of the last part; without it, the list begins."),
    ] = None,
) -> Page:
    return Page(limit, cursor)


ThePage = Annotated[Page, Depends(page)]


async def attempt(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern=r"^[\x21-\x7e]{1,255}$",
            description="Any text of your own, new for each new request. The same request sent again with it, "
            "within 24 hours and by the same API key, does nothing and gets the same answer.",
            examples=["5f3c1a52-8a0e-4c0d-9f0b-2f6c0d5b7e11"],
        ),
    ] = None,
) -> Callable[[Caller], Attempt | None]:
    """A dependency: makes the attempt of a caller, if the request has an Idempotency-Key."""
    body = await request.body()

    def of(caller: Caller) -> Attempt | None:
        if idempotency_key is None:
            return None
        digest = request_digest(request.method, request.url.path, request.url.query, body)
        return Attempt(caller.key_id, idempotency_key, digest)

    return of


TheAttempt = Annotated[Callable[[Caller], Attempt | None], Depends(attempt)]


def answered(answer: Answer) -> Response:
    """The response to a creation; its text may be one that was kept."""
    return Response(answer.body, answer.status, media_type="application/json")


EndpointId = Annotated[str, Path(description="Endpoint's id.", examples=["ep_01kc4v5s8mf7q9x2t6w3y1z0ab"])]

Responses = dict[int | str, dict[str, Any]]


def errors(*kinds: Kind, body: bool = False) -> Responses:
    """OpenAPI's words for the problems of a route: these, and those that every route has."""
    always = (
        problems.UNAUTHENTICATED,
        problems.FORBIDDEN,
        problems.INVALID,
        problems.RATE_LIMITED,
        problems.INTERNAL,
        problems.BUSY,
        problems.UNAVAILABLE,
    )
    with_body = (problems.INVALID_JSON, problems.TOO_LARGE) if body else ()
    found: Responses = {}
    for kind in (*always, *with_body, *kinds):
        entry = found.setdefault(kind.status, {"description": "", "content": {}})
        separator = " " if entry["description"] else ""
        entry["description"] += f"{separator}`{kind.code}`: {kind.title}."
        content = entry["content"].setdefault(
            PROBLEM_TYPE, {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
        )
        content["examples"][kind.code] = {"$ref": f"#/components/examples/{kind.code}"}
    return found
