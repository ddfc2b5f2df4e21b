"""Endpoints: create, show, and change what is wanted of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from penstock_api.domain.endpoints import Filter
from penstock_api.domain.problems import CONFLICT, IDEMPOTENCY_MISMATCH, NO_HOST, NOT_FOUND
from penstock_api.handlers import creating, endpoints
from penstock_api.routes.common import (
    EndpointId,
    ReadsEndpoints,
    TheApi,
    TheAttempt,
    ThePage,
    WritesEndpoints,
    answered,
    errors,
)
from penstock_api.routes.schemas import ShapeOf
from penstock_api.views import endpoints as views
from penstock_common.contracts.endpoint import EndpointSpec, EndpointState

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

_EXAMPLE = {
    "name": "New Inference Endpoint",
    "workspace": "default",
    "source": {"kind": "git", "uri": "https://github.com/acme/iris.git", "ref": "main"},
    "routes": [
        {
            "verb": "POST",
            "path": "/predict",
            "file": "predict",
            "function": "predict",
            "positional": True,
            "body": [{"name": "features", "type": "list"}],
        }
    ],
    "gpu": {"type": "RTX 4090", "count": 1},
}


@router.post(
    "",
    status_code=201,
    response_model=views.Endpoint,
    responses={
        200: {"model": views.Forecast, "description": "With `dry_run=true`: what creating it would do."},
        **errors(IDEMPOTENCY_MISMATCH, NO_HOST, body=True),
    },
    summary="Create an endpoint",
)
async def create_endpoint(
    api: TheApi,
    caller: WritesEndpoints,
    attempt: TheAttempt,
    # Not parsed by FastAPI, which would stop at what pydantic alone can find.
    body: Annotated[Any, ShapeOf(EndpointSpec), Body(openapi_examples={"iris": {"value": _EXAMPLE}})],
    dry_run: Annotated[bool, Query(description="Check everything and say what would happen; create nothing.")] = False,
) -> Response:
    """Checks the body and the source, pins the commit and the packages, and starts it or puts it in the queue.

    Everything that is wrong is told at once. Fetching and checking the source can take up to two minutes.
    """
    if dry_run:
        forecast = await creating.forecast_endpoint(api.desk, caller, body)
        return Response(forecast.model_dump_json(), media_type="application/json")
    return answered(await creating.create_endpoint(api.desk, caller, body, attempt(caller)))


@router.get("", responses=errors(), summary="List endpoints")
async def list_endpoints(
    api: TheApi,
    caller: ReadsEndpoints,
    page: ThePage,
    workspace: Annotated[
        str | None, Query(max_length=63, pattern="^[a-z0-9-]+$", description="Only those of this workspace.")
    ] = None,
    slug: Annotated[
        str | None, Query(max_length=63, pattern="^[a-z0-9-]+$", description="Only those with this slug.")
    ] = None,
    state: Annotated[
        EndpointState | None, Query(description="Only those in this state; without it, all but the terminated.")
    ] = None,
) -> views.EndpointPage:
    """The organization's endpoints, newest first."""
    return await endpoints.list_endpoints(api.desk, caller, Filter(workspace, slug, state), page)


@router.get("/{endpoint_id}", responses=errors(NOT_FOUND), summary="Show an endpoint")
async def show_endpoint(api: TheApi, caller: ReadsEndpoints, endpoint_id: EndpointId) -> views.Endpoint:
    """One endpoint by its id; by its name, list with `workspace` and `slug`."""
    return await endpoints.show_endpoint(api.desk, caller, endpoint_id)


@router.post("/{endpoint_id}/stop", status_code=202, responses=errors(NOT_FOUND, CONFLICT), summary="Stop an endpoint")
async def stop_endpoint(api: TheApi, caller: WritesEndpoints, endpoint_id: EndpointId) -> views.Endpoint:
    """Requests in hand are finished, then its replicas end. It costs nothing while stopped."""
    return await endpoints.change_endpoint(api.desk, caller, endpoint_id, "stop")


@router.post(
    "/{endpoint_id}/restart", status_code=202, responses=errors(NOT_FOUND, CONFLICT), summary="Restart an endpoint"
)
async def restart_endpoint(api: TheApi, caller: WritesEndpoints, endpoint_id: EndpointId) -> views.Endpoint:
    """A stopped endpoint starts again, from the same pinned source and packages; one that sleeps wakes.

    One that is starting goes on so. One that runs is refused: stop it first.
    """
    return await endpoints.change_endpoint(api.desk, caller, endpoint_id, "restart")


@router.delete(
    "/{endpoint_id}", status_code=202, responses=errors(NOT_FOUND, CONFLICT), summary="Terminate an endpoint"
)
async def terminate_endpoint(api: TheApi, caller: WritesEndpoints, endpoint_id: EndpointId) -> views.Endpoint:
    """For good: its replicas end, its URL disappears, its name becomes free."""
    return await endpoints.change_endpoint(api.desk, caller, endpoint_id, "terminate")
