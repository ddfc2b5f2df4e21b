"""Creating an endpoint: everything is checked first, and every problem is told at once."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penstock_api.domain import timeline
from penstock_api.domain.access import Caller
from penstock_api.domain.draft import Draft, Room, place_in_body, read_draft
from penstock_api.domain.endpoints import Endpoint
from penstock_api.domain.idempotency import Attempt
from penstock_api.domain.lifecycle import EndpointStatus
from penstock_api.domain.money import Money, hourly_price, missing_price
from penstock_api.domain.problems import BUSY, NO_HOST, Problem, invalid
from penstock_api.handlers.endpoints import Desk
from penstock_api.handlers.once import Answer, Created, Save, once_prepared
from penstock_api.handlers.platform import answer_of
from penstock_api.handlers.presenting import endpoint_view
from penstock_api.store import Store
from penstock_api.views import endpoints as views
from penstock_common.contracts.endpoint import EndpointSpec, PinnedSource, slug_of
from penstock_common.contracts.events import EndpointRequested
from penstock_common.contracts.questions import (
    AskForecast,
    FieldProblem,
    ForecastReply,
    InspectSource,
    SourceInspection,
)
from penstock_common.errors import Unavailable
from penstock_common.ids import ENDPOINT, new_id

T = TypeVar("T")

RETRY_WITHOUT_HOST_S = 5
RETRY_WHEN_BUSY_S = 5
_WORKSPACES_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """A specification that nothing stands against."""

    spec: EndpointSpec
    source: PinnedSource
    forecast: ForecastReply
    price: Money


@dataclass(frozen=True, slots=True)
class Finding(Generic[T]):
    """What one who was asked found: an answer, problems with the body, or that they are away."""

    answer: T | None = None
    problems: tuple[FieldProblem, ...] = ()
    away: Problem | None = None


async def create_endpoint(desk: Desk, caller: Caller, body: object, attempt: Attempt | None) -> Answer:
    """Check `body`, pin its source, and ask the scheduler for it. Raises Problem with all that is wrong."""

    async def prepare() -> Save:
        checked = await _check(desk, caller, body)

        async def save(store: Store) -> Created:
            return await _save(desk, caller, checked, store)

        return save

    return await once_prepared(desk.platform, caller, attempt, prepare)


async def forecast_endpoint(desk: Desk, caller: Caller, body: object) -> views.Forecast:
    """What creating it would do. Raises Problem with all that is wrong."""
    checked = await _check(desk, caller, body)
    return views.Forecast(
        starts_now=checked.forecast.starts_now,
        position=checked.forecast.position,
        reason=checked.forecast.reason,
        price_micros_per_hour=checked.price.micros,
        currency=checked.price.currency,
        source=views.Source.model_validate(checked.source),
        url=desk.addresses.url(checked.spec.workspace, slug_of(checked.spec.name)),
    )


async def _save(desk: Desk, caller: Caller, checked: Checked, store: Store) -> Created:
    workspace = await store.accounts.workspace_kept(caller.organization_id, checked.spec.workspace)
    if workspace is None:
        raise invalid(await _no_workspace(store, caller, checked.spec.workspace))
    now = await store.now()
    endpoint = Endpoint(
        id=new_id(ENDPOINT),
        organization_id=caller.organization_id,
        workspace_id=workspace.id,
        workspace=workspace.slug,
        slug=slug_of(checked.spec.name),
        spec=checked.spec,
        source=checked.source,
        request_version=1,
        status=EndpointStatus(state="queued", wanted="running", reason=checked.forecast.reason),
        created_at=now,
        updated_at=now,
    )
    if not await store.endpoints.add(endpoint):
        raise invalid(_name_taken(endpoint.slug, workspace.slug))
    await store.endpoints.add_event(endpoint.id, timeline.created(now, caller.member))
    await store.emit(
        EndpointRequested(
            endpoint_id=endpoint.id,
            organization_id=endpoint.organization_id,
            version=endpoint.request_version,
            workspace_id=endpoint.workspace_id,
            workspace=endpoint.workspace,
            slug=endpoint.slug,
            spec=endpoint.spec,
            source=endpoint.source,
        )
    )
    return Created(endpoint_view(endpoint, (), checked.price, desk.addresses))


# --- checking -------------------------------------------------------------------------------


async def _check(desk: Desk, caller: Caller, body: object) -> Checked:
    """Ask everyone who may object, at the same time, about all parts of the body that can be read.

    Raises Problem: 422 with every field at fault; 503 when someone who must be asked is away.
    """
    draft = read_draft(body)
    if draft.inspectable is None:
        return await _checked(desk, caller, draft)
    async with desk.turns.of(caller.organization_id):
        return await _checked(desk, caller, draft)


async def _checked(desk: Desk, caller: Caller, draft: Draft) -> Checked:
    if desk.checks.locked():
        raise Problem(BUSY, "Too many endpoints are being created right now.", retry_after_s=RETRY_WHEN_BUSY_S)
    async with desk.checks:
        async with desk.platform.transaction() as store:
            problems = [*draft.problems, *await _name_problems(store, caller, draft)]
        forecast, price, source = await asyncio.gather(
            _if_readable(draft.room, lambda room: _forecast(desk, room)),
            _if_readable(draft.room, lambda room: _price(desk, room)),
            _if_readable(draft.inspectable, lambda question: _inspect(desk, question, draft)),
        )
    findings: tuple[Finding[Any], ...] = (forecast, price, source)
    for finding in findings:
        problems += finding.problems
    if problems:
        raise invalid(*problems)
    for finding in findings:
        if finding.away is not None:
            raise finding.away
    if draft.spec is None or forecast.answer is None or price.answer is None or source.answer is None:
        raise AssertionError("a specification without problems has every answer")
    return Checked(draft.spec, source.answer, forecast.answer, price.answer)


P = TypeVar("P")


async def _if_readable(part: P | None, ask: Callable[[P], Coroutine[Any, Any, Finding[T]]]) -> Finding[T]:
    """Nothing is asked about a part of the body that could not be read."""
    if part is None:
        return Finding()
    try:
        return await ask(part)
    except Problem as away:
        return Finding(away=away)


async def _forecast(desk: Desk, room: Room) -> Finding[ForecastReply]:
    question = AskForecast(gpu=room.gpu, resources=room.resources, replicas=room.replicas)
    reply: ForecastReply = await answer_of(desk.platform, question)
    return Finding(reply, reply.problems)


async def _price(desk: Desk, room: Room) -> Finding[Money]:
    price = hourly_price(await desk.prices.now(), room.gpu, room.resources, room.replicas)
    return Finding(problems=(missing_price(room.gpu),)) if price is None else Finding(price)


async def _inspect(desk: Desk, question: InspectSource, draft: Draft) -> Finding[PinnedSource]:
    try:
        reply: SourceInspection = await desk.platform.ask(question)
    except Unavailable as error:
        raise Problem(
            NO_HOST,
            f"No host is connected that could fetch and check the source ({error.detail}).",
            retry_after_s=RETRY_WITHOUT_HOST_S,
        ) from error
    if reply.source is None and not reply.problems:
        raise Problem(NO_HOST, "A host could not say what the source is.", retry_after_s=RETRY_WITHOUT_HOST_S)
    return Finding(reply.source, tuple(place_in_body(problem, draft.routes) for problem in reply.problems))


async def _name_problems(store: Store, caller: Caller, draft: Draft) -> list[FieldProblem]:
    if draft.workspace is None:
        return []
    workspace = await store.accounts.workspace(caller.organization_id, draft.workspace)
    if workspace is None:
        return [await _no_workspace(store, caller, draft.workspace)]
    if draft.slug is not None and await store.endpoints.name_is_taken(workspace.id, draft.slug):
        return [_name_taken(draft.slug, workspace.slug)]
    return []


async def _no_workspace(store: Store, caller: Caller, slug: str) -> FieldProblem:
    others = await store.accounts.workspaces(caller.organization_id, None, _WORKSPACES_NAMED_MAX)
    known = f"use one of yours ({', '.join(other.slug for other in others)}) or" if others else "first"
    message = f"there is no workspace {slug!r} in your organization: {known} create it with POST /v1/workspaces"
    return FieldProblem(field="workspace", message=message)


def _name_taken(slug: str, workspace: str) -> FieldProblem:
    message = (
        f"the workspace {workspace!r} has an endpoint with this name (its URL would also end in /{slug}): "
        "choose another name, or terminate that endpoint first"
    )
    return FieldProblem(field="name", message=message)
