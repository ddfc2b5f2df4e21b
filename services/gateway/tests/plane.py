"""A running data plane with one endpoint, `iris` in the workspace `default`."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

from penstock_common.contracts.endpoint import Scaling
from penstock_common.contracts.records import ApiKeyRecord, Route, RouteReplica
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.plane import DataPlane
from penstock_gateway.settings import GatewaySettings

from .raw import KEY, RawClient, raw_client
from .replica import ScriptedReplica

ORGANIZATION = "org_1"
ENDPOINT_ID = "ep_1"
TIMER_STEP_S = 0.02


def route(**changes: Any) -> Route:
    fields: dict[str, Any] = {
        "endpoint_id": ENDPOINT_ID,
        "organization_id": ORGANIZATION,
        "workspace": "default",
        "endpoint": "iris",
        "state": "running",
        "public": False,
        "replicas": (),
        "version": 1,
    }
    return changed(Route(**fields, scaling=Scaling(queue_limit=100, queue_timeout_s=30)), **changes)


def changed(one: Route, **changes: Any) -> Route:
    """Fields of the route, and of its scaling, by name."""
    scaling = {name: changes.pop(name) for name in set(changes) & set(Scaling.model_fields)}
    return Route(**{**dict(one), **changes, "scaling": one.scaling.model_copy(update=scaling)})


def ready(*replicas: ScriptedReplica) -> tuple[RouteReplica, ...]:
    return tuple(RouteReplica(replica_id=f"rep_{replica.port}", address=replica.address) for replica in replicas)


def key_record(
    text: str = KEY,
    *,
    organization_id: str = ORGANIZATION,
    scopes: tuple[str, ...] = ("endpoints:invoke",),
    expires_at: datetime | None = None,
) -> ApiKeyRecord:
    return ApiKeyRecord(
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        key_id="key_1",
        organization_id=organization_id,
        scopes=scopes,
        expires_at=expires_at,
    )


class RunningPlane:
    """The plane, its port, and its one endpoint."""

    def __init__(self, plane: DataPlane, port: int) -> None:
        self.plane = plane
        self.port = port
        self.route = route()

    @property
    def endpoint(self) -> Endpoint:
        return self.plane.directory.endpoints[ENDPOINT_ID]

    def change_route(self, **changes: Any) -> None:
        self.route = changed(self.route, **{"version": self.route.version + 1, **changes})
        self.plane.directory.put_route(self.route)

    def client(self) -> AbstractAsyncContextManager[RawClient]:
        return raw_client(self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/e/default/iris"


@asynccontextmanager
async def running_plane(
    *replicas: ScriptedReplica, settings: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[RunningPlane]:
    plane = DataPlane(GatewaySettings(gateway_port=0, **(settings or {})), timer_step_s=TIMER_STEP_S)
    running = RunningPlane(plane, await plane.listen())
    plane.directory.put_key(key_record())
    plane.directory.loaded = True
    running.change_route(replicas=ready(*replicas), **changes)
    try:
        yield running
    finally:
        await plane.drain(0)


class MakePlane(Protocol):
    """The fixture `make_plane`."""

    async def __call__(
        self, *replicas: ScriptedReplica, settings: Mapping[str, Any] | None = None, **changes: Any
    ) -> RunningPlane: ...
