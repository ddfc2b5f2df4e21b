"""Composition root: wires the watches and the data plane."""

import gc
import logging
import resource

from prometheus_client import REGISTRY

from penstock_common.contracts.records import ApiKeyRecord, Route
from penstock_common.service import Service
from penstock_gateway import handlers, snapshots
from penstock_gateway.metrics import GatewayCollector
from penstock_gateway.proxy.plane import DataPlane
from penstock_gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

DRAIN_MARGIN_S = 0.5
"""Left of the stop's grace for saving the snapshot."""
GARBAGE_THRESHOLD = 50_000


class Gateway:
    """The gateway as a service: serving begins before any server is reached and outlives them all."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.port = 0
        self.service: Service[None] = Service("gateway", settings)
        self._settings = settings
        self._plane: DataPlane | None = None
        self._keeper: snapshots.SnapshotKeeper | None = None
        self._collector: GatewayCollector | None = None
        self._routes = self.service.watch(Route, self._route_changed)
        self._keys = self.service.watch(ApiKeyRecord, self._key_changed)
        self.service.on_start(self._start)
        self.service.on_stop(self._stop)
        self.service.background("catch up", self._catch_up)

    @property
    def plane(self) -> DataPlane:
        """The data plane. Raises RuntimeError before the service has started."""
        if self._plane is None:
            raise RuntimeError("the gateway has not started")
        return self._plane

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        await self.service.run()

    async def _start(self) -> None:
        _prepare_process()
        settings = self._settings
        plane = self._plane = DataPlane(settings)
        if settings.data_dir is not None:
            path = settings.data_dir / "gateway" / "snapshot.json"
            saved = snapshots.load(path)
            if saved is not None:
                handlers.restored(plane.directory, saved)
            self._keeper = snapshots.SnapshotKeeper(path, lambda: handlers.worth_saving(plane.directory))
            self.service.background("snapshot", self._keeper.run)
        self._collector = GatewayCollector(plane, endpoints_max=settings.metrics_endpoints_max)
        REGISTRY.register(self._collector)
        self.port = await plane.listen()
        log.info("listening", extra={"host": settings.gateway_host, "port": self.port})

    async def _stop(self) -> None:
        if self._plane is not None:
            await self._plane.drain(max(0.0, self._settings.shutdown_grace_s - DRAIN_MARGIN_S))
        if self._collector is not None:
            REGISTRY.unregister(self._collector)
        if self._keeper is not None:
            await self._keeper.flush()

    def _route_changed(self, endpoint_id: str, route: Route | None) -> None:
        handlers.route_changed(self.plane.directory, endpoint_id, route)
        self._mark()

    def _key_changed(self, sha256: str, record: ApiKeyRecord | None) -> None:
        handlers.api_key_changed(self.plane.directory, sha256, record)
        self._mark()

    async def _catch_up(self) -> None:
        await self._routes.ready.wait()
        await self._keys.ready.wait()
        handlers.caught_up(self.plane.directory, self._routes.snapshot, self._keys.snapshot)
        self._mark()

    def _mark(self) -> None:
        if self._keeper is not None:
            self._keeper.mark()


def _prepare_process() -> None:
    """As many open files as we may have, and fewer pauses for garbage: requests leave hardly any cycles."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)
