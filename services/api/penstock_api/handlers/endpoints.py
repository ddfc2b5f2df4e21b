"""Requests about endpoints that exist: show them, and change what is wanted of them."""

import asyncio
from dataclasses import dataclass, replace

from penstock_api.domain import cursors, timeline
from penstock_api.domain.access import Caller
from penstock_api.domain.connection import Addresses
from penstock_api.domain.endpoints import Endpoint, Filter
from penstock_api.domain.lifecycle import Action, ReplicaStatus, after_request, must_ask
from penstock_api.domain.money import price_of_spec
from penstock_api.domain.problems import not_found
from penstock_api.handlers.platform import Page, Platform
from penstock_api.handlers.presenting import endpoint_view
from penstock_api.handlers.prices import PriceBoard
from penstock_api.handlers.turns import Turns
from penstock_api.store import Store
from penstock_api.views import endpoints as views
from penstock_common.contracts.events import (
    EndpointRequest,
    EndpointRestartRequested,
    EndpointStopRequested,
    EndpointTerminateRequested,
)
from penstock_common.ids import ENDPOINT, is_id

_REQUESTS: dict[Action, type[EndpointRequest]] = {
    "stop": EndpointStopRequested,
    "restart": EndpointRestartRequested,
    "terminate": EndpointTerminateRequested,
}


@dataclass(frozen=True, slots=True)
class Desk:
    """What every request about endpoints needs."""

    platform: Platform
    prices: PriceBoard
    addresses: Addresses
    checks: asyncio.Semaphore
    """Bounds the creations that are being checked at the same time."""
    turns: Turns
    """Of these, bounds those of one organization that have a source to inspect."""


async def list_endpoints(desk: Desk, caller: Caller, wanted: Filter, page: Page) -> views.EndpointPage:
    after = None if page.cursor is None else cursors.read_id(ENDPOINT, page.cursor)
    async with desk.platform.transaction() as store:
        found = await store.endpoints.page(caller.organization_id, wanted, after, page.limit + 1)
        shown = found[: page.limit]
        replicas = await store.endpoints.replicas([endpoint.id for endpoint in shown])
    prices = await desk.prices.now_or_none() if shown else None
    return views.EndpointPage(
        items=[
            endpoint_view(endpoint, replicas, price_of_spec(prices, endpoint.spec), desk.addresses)
            for endpoint in shown
        ],
        next_cursor=cursors.after_id(ENDPOINT, shown[-1].id) if len(found) > page.limit else None,
    )


async def show_endpoint(desk: Desk, caller: Caller, identifier: str) -> views.Endpoint:
    async with desk.platform.transaction() as store:
        endpoint = await find_endpoint(store, caller, identifier)
        replicas = await store.endpoints.replicas([endpoint.id])
    return await _priced_view(desk, endpoint, replicas)


async def change_endpoint(desk: Desk, caller: Caller, identifier: str, action: Action) -> views.Endpoint:
    """Stop, restart or terminate. What was asked before is not asked again."""
    async with desk.platform.transaction() as store:
        endpoint = await store.endpoints.one_to_change(caller.organization_id, _checked(identifier))
        if endpoint is None:
            raise not_found("endpoint", identifier)
        if must_ask(action, endpoint.status.state, endpoint.status.wanted):
            endpoint = await _ask_for(store, caller, endpoint, action)
        replicas = await store.endpoints.replicas([endpoint.id])
    return await _priced_view(desk, endpoint, replicas)


async def find_endpoint(store: Store, caller: Caller, identifier: str) -> Endpoint:
    """Raises Problem unless it is one of the caller's organization."""
    endpoint = await store.endpoints.one(caller.organization_id, _checked(identifier))
    if endpoint is None:
        raise not_found("endpoint", identifier)
    return endpoint


async def _priced_view(desk: Desk, endpoint: Endpoint, replicas: list[ReplicaStatus]) -> views.Endpoint:
    price = price_of_spec(await desk.prices.now_or_none(), endpoint.spec)
    return endpoint_view(endpoint, replicas, price, desk.addresses)


async def _ask_for(store: Store, caller: Caller, endpoint: Endpoint, action: Action) -> Endpoint:
    now = await store.now()
    changed = replace(
        endpoint,
        status=after_request(action, endpoint.status),
        request_version=endpoint.request_version + 1,
        updated_at=now,
    )
    await store.endpoints.save_request(changed.id, changed.status, changed.request_version)
    await store.endpoints.add_event(changed.id, timeline.requested(action, now, caller.member))
    await store.emit(
        _REQUESTS[action](
            endpoint_id=changed.id, organization_id=changed.organization_id, version=changed.request_version
        )
    )
    return changed


def _checked(identifier: str) -> str:
    if not is_id(ENDPOINT, identifier):
        raise not_found("endpoint", identifier)
    return identifier
