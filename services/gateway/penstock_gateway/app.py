"""Composition root: wires the watches and the data plane."""

import asyncio
import gc
import logging
import resource
import secrets
from datetime import UTC, datetime

from nats.aio.msg import Msg
from prometheus_client import REGISTRY

from penstock_common.contracts.gateways import GATEWAYS, GatewayHeartbeat, gateway_subject
from penstock_common.contracts.questions import ScaleEndpoint, ScaleReply
from penstock_common.contracts.records import ApiKeyRecord, Route
from penstock_common.contracts.statistics import EndpointStatistics, statistics_subject
from penstock_common.service import Service
from penstock_gateway import handlers, snapshots
from penstock_gateway.autoscaler import Autoscaler
from penstock_gateway.deferred.service import Deferred
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.metrics import GatewayCollector
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.plane import DataPlane
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.statistics import Statistics

log = logging.getLogger(__name__)

DRAIN_MARGIN_S = 0.5
"""Left of the stop's grace for saving the snapshot."""
LAST_WRITES_S = 2.0
"""Left of that for what becomes of inferences that are cut off."""
TELL_EVERY_S = 1.0
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
        self._deferred: Deferred | None = None
        self._gateway_id = f"gw-{secrets.token_hex(4)}"
        self._autoscaler = Autoscaler(self._scale, owns=self.owns)
        self._statistics = Statistics(self._gateway_id, self._publish, owns=self.owns)
        self._routes = self.service.watch(Route, self._route_changed)
        self._keys = self.service.watch(ApiKeyRecord, self._key_changed)
        self.service.on_start(self._start)
        self.service.on_stop(self._stop)
        self.service.background("catch up", self._catch_up)
        self.service.background("autoscaler", self._autoscaler.run)
        self.service.background("statistics", self._tell)
        if settings.gateway_secret is not None:
            self.service.background("gateways", self._hear_gateways)

    @property
    def plane(self) -> DataPlane:
        """The data plane. Raises RuntimeError before the service has started."""
        if self._plane is None:
            raise RuntimeError("the gateway has not started")
        return self._plane

    def owns(self, endpoint_id: str) -> bool:
        """Whether this gateway is the one that has the endpoint's queue."""
        cluster = self.plane.cluster
        return cluster is None or cluster.owns(endpoint_id)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        await self.service.run()

    async def _start(self) -> None:
        _prepare_process()
        settings = self._settings
        plane = self._plane = DataPlane(settings, gateway_id=self._gateway_id)
        plane.directory.is_current = lambda: self._routes.current and self._keys.current
        plane.context.pressed = self._pressed
        plane.context.on_route = self._autoscaler.route_changed
        plane.context.on_removed = self._autoscaler.removed
        self._deferred = Deferred(
            plane.directory,
            lambda: self.service.js,
            DeferredSettings(),
            owns=self.owns,
            gateway_id=self._gateway_id,
        )
        plane.door = self._deferred.door
        self.service.background("inferences", self._deferred.run)
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
        limit_s = max(0.0, self._settings.shutdown_grace_s - DRAIN_MARGIN_S)
        if self._deferred is not None and self._plane is not None:
            await asyncio.gather(self._plane.drain(limit_s), self._deferred.stop(max(0.0, limit_s - LAST_WRITES_S)))
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

    def _pressed(self, endpoint: Endpoint) -> None:
        if not endpoint.queue.replicas:
            endpoint.stats.cold_starts += 1
        self._autoscaler.pressed(endpoint)

    async def _scale(self, question: ScaleEndpoint) -> ScaleReply:
        reply: ScaleReply = await self.service.ask(question)
        return reply

    async def _tell(self) -> None:
        before = datetime.now(UTC)
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            now = datetime.now(UTC)
            endpoints = self.plane.directory.endpoints.values()
            await self._statistics.tell(endpoints, now, (now - before).total_seconds())
            before = now

    async def _publish(self, message: EndpointStatistics) -> None:
        if self.service.nats.is_connected:
            await self.service.nats.publish(statistics_subject(message.endpoint_id), message.model_dump_json().encode())

    async def _hear_gateways(self) -> None:
        """The client keeps the subscription through every reconnection."""
        cluster = self.plane.cluster
        if cluster is None:
            return

        async def publish(heartbeat: GatewayHeartbeat) -> None:
            if self.service.nats.is_connected:
                subject = gateway_subject(heartbeat.gateway_id)
                await self.service.nats.publish(subject, heartbeat.model_dump_json().encode())

        async def receive(message: Msg) -> None:
            cluster.hear(message.data)

        await self.service.nats.subscribe(GATEWAYS, cb=receive)
        # Heard before told: who knows of us can count on it that we know of them.
        cluster.publish = publish
        cluster.join()

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
