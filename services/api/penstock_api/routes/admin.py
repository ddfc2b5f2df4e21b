"""For who runs the platform."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from penstock_api.domain.problems import CONFLICT, NOT_FOUND
from penstock_api.handlers import admin
from penstock_api.routes.common import LIMIT_MAX, PlatformAdmin, TheApi, errors
from penstock_api.views import admin as views

router = APIRouter(prefix="/v1/admin", tags=["admin"])

Sequence = Annotated[int, Path(ge=1, le=2**53, description="Number of the dead letter.", examples=[3])]


@router.get("/hosts", responses=errors(), summary="List hosts")
async def list_hosts(api: TheApi, _: PlatformAdmin) -> views.Hosts:
    """Every machine that runs replicas, or did."""
    return await admin.list_hosts(api.platform)


@router.get("/dead", responses=errors(), summary="List dead letters")
async def list_dead_letters(
    api: TheApi,
    _: PlatformAdmin,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most letters in the answer.")] = 50,
    before: Annotated[
        int | None,
        Query(ge=1, le=2**53, description="Only letters with lower numbers: `next_before` of the last part."),
    ] = None,
) -> views.DeadLetters:
    """Messages that a consumer gave up on, newest first."""
    return await admin.list_dead(api.dead_letters, before, limit)


@router.post("/dead/{sequence}/retry", responses=errors(NOT_FOUND, CONFLICT), summary="Send a dead letter again")
async def retry_dead_letter(api: TheApi, _: PlatformAdmin, sequence: Sequence) -> views.DeadLetter:
    """On its original subject and under its own id, so that consumers that handled it skip it."""
    return await admin.retry_dead(api.dead_letters, sequence)


@router.delete("/dead/{sequence}", status_code=204, responses=errors(NOT_FOUND), summary="Drop a dead letter")
async def delete_dead_letter(api: TheApi, _: PlatformAdmin, sequence: Sequence) -> None:
    """It will never be handled."""
    await admin.delete_dead(api.dead_letters, sequence)


@router.post("/replay", responses=errors(body=True), summary="Publish facts again")
async def replay(api: TheApi, _: PlatformAdmin, body: views.ReplayRequest) -> views.Replay:
    """Restores streams and buckets that lost data. Consumers skip what they have handled."""
    return await admin.replay(api.platform, body)


@router.get("/prices", responses=errors(), summary="List prices")
async def list_prices(api: TheApi, _: PlatformAdmin) -> views.Prices:
    """The prices in force, and those that will be."""
    return await admin.list_prices(api.platform)


@router.put("/prices", responses=errors(body=True), summary="Set a price")
async def set_price(api: TheApi, _: PlatformAdmin, body: views.NewPrice) -> views.Prices:
    """From a date on; what was metered before keeps its price. The same price again changes nothing."""
    return await admin.set_price(api.desk, body)
