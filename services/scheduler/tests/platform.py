"""The scheduler's neighbours on real servers: an API that only asks, and hosts that obey."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from penstock_common.contracts.endpoint import EndpointSpec
from penstock_common.contracts.events import (
    EndpointRequest,
    EndpointRestartRequested,
    EndpointStopRequested,
    EndpointTerminateRequested,
    ReplicaPhase,
    ReplicaReported,
)
from penstock_common.contracts.heartbeat import Heartbeat, Inventory
from penstock_common.contracts.questions import ScaleReply
from penstock_common.contracts.records import Assignment, Route
from penstock_common.contracts.topology import heartbeat_subject
from penstock_common.delivery.outbox import Outbox
from penstock_common.delivery.publish import publish_message
from penstock_common.service import Service
from penstock_common.settings import ServiceSettings
from penstock_scheduler.app import build
from penstock_scheduler.domain import RequestKind
from penstock_scheduler.settings import SchedulerSettings
from penstock_scheduler.store import Store
from tests_support import eventually, running

from .builders import inventory, requested, scaling_wish

MakeSettings = Callable[..., Any]
BEAT_S = 0.2
REQUESTS: dict[RequestKind, type[EndpointRequest]] = {
    "stop": EndpointStopRequested,
    "restart": EndpointRestartRequested,
    "terminate": EndpointTerminateRequested,
}


class RealHost:
    """A provisioner whose replicas are ready at once, and stop when told."""

    def __init__(self, settings: ServiceSettings, host_id: str, parts: Inventory | None = None) -> None:
        self.host_id = host_id
        self.parts = parts or inventory(host_id=host_id)
        self.service: Service[None] = Service("provisioner", settings)
        self.reports: dict[str, ReplicaReported] = {}
        self.ran_together = 0
        """Most replicas that ran at the same time."""
        self.silent = False
        self._changes: asyncio.Queue[tuple[str, Assignment | None]] = asyncio.Queue()
        self.service.watch(Assignment, lambda key, record: self._changes.put_nowait((key, record)), keys=f"{host_id}.>")
        self.service.background("obey", self._obey)
        self.service.background("beat", self._beat)

    @property
    def running(self) -> list[ReplicaReported]:
        return [said for said in self.reports.values() if said.phase not in ("failed", "stopped")]

    async def _obey(self) -> None:
        while True:
            key, record = await self._changes.get()
            replica_id = key.rpartition(".")[2]
            if record is not None and replica_id not in self.reports:
                await self.report(self._first(record, "starting"))
                await self.say(replica_id, "ready", address="127.0.0.1:9000")
            elif record is None and replica_id in {said.replica_id for said in self.running}:
                await self.say(replica_id, "stopped", cause="stopped")

    def _first(self, record: Assignment, phase: ReplicaPhase) -> ReplicaReported:
        return ReplicaReported(
            host_id=self.host_id,
            replica_id=record.replica_id,
            endpoint_id=record.endpoint_id,
            generation=record.generation,
            sequence=1,
            phase=phase,
        )

    async def say(self, replica_id: str, phase: ReplicaPhase, **fields: Any) -> None:
        last = self.reports[replica_id]
        changes = {"sequence": last.sequence + 1, "phase": phase, **fields}
        await self.report(last.model_copy(update=changes))

    async def report(self, said: ReplicaReported) -> None:
        self.reports[said.replica_id] = said
        self.ran_together = max(self.ran_together, len(self.running))
        if not self.silent:
            await publish_message(
                self.service.js,
                said.message_type,
                said,
                message_id=f"{said.replica_id}.{said.sequence}",
                source="provisioner",
            )

    async def _beat(self) -> None:
        while True:
            if not self.silent:
                await self.beat()
            await asyncio.sleep(BEAT_S)

    async def beat(self, **fields: Any) -> None:
        message = Heartbeat(
            **{
                "host_id": self.host_id,
                "boot_id": "boot-1",
                "driver": "process",
                "inventory": self.parts,
                "reports": tuple(self.reports.values()),
                **fields,
            }
        )
        await self.service.nats.publish(heartbeat_subject(self.host_id), message.model_dump_json().encode())


class Gateway:
    """What an autoscaler sees and says."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.service: Service[None] = Service("gateway", settings)
        self._routes = self.service.watch(Route, lambda key, record: None)

    @property
    def routes(self) -> dict[str, Route]:
        return self._routes.snapshot

    async def scale(self, endpoint_id: str, replicas: int, **fields: Any) -> ScaleReply:
        """The answer to a wish made from the route as it is known here."""
        reply: ScaleReply = await self.service.ask(scaling_wish(self.routes[endpoint_id], replicas, **fields))
        return reply

    async def scale_until(self, endpoint_id: str, replicas: int, done: Callable[[Route], object]) -> Route:
        """Wish the same again, as an autoscaler does, until the route is as it should be."""

        async def probe() -> bool:
            await self.scale(endpoint_id, replicas)
            return bool(done(self.routes[endpoint_id]))

        await eventually(probe)
        return self.routes[endpoint_id]


class Buckets:
    """Both buckets, as their readers see them."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.service: Service[None] = Service("scheduler", settings)
        self._assignments = self.service.watch(Assignment, lambda key, record: None)
        self._routes = self.service.watch(Route, lambda key, record: None)

    @property
    def assignments(self) -> dict[str, Assignment]:
        return self._assignments.snapshot

    @property
    def routes(self) -> dict[str, Route]:
        return self._routes.snapshot


class Platform:
    """Starts schedulers and hosts, asks as the API does, and looks at what came of it."""

    def __init__(self, make_settings: MakeSettings, stack: AsyncExitStack) -> None:
        self.make_settings = make_settings
        self._stack = stack
        self.api: Service[Outbox] = Service("api", make_settings("api"), make_store=lambda _, outbox: outbox)
        self._versions: dict[str, int] = {}

    async def scheduler(self, **overrides: Any) -> Service[Store]:
        service = build(self.make_settings("scheduler", SchedulerSettings, **{"drain_s": 0, **overrides}))
        return await self._stack.enter_async_context(running(service))

    async def host(self, host_id: str = "host-a", parts: Inventory | None = None) -> RealHost:
        found = RealHost(self.make_settings("provisioner"), host_id, parts)
        await self._stack.enter_async_context(running(found.service))
        return found

    async def gateway(self) -> Gateway:
        found = Gateway(self.make_settings("gateway"))
        await self._stack.enter_async_context(running(found.service))
        return found

    async def buckets(self) -> Buckets:
        found = Buckets(self.make_settings("scheduler"))
        await self._stack.enter_async_context(running(found.service))
        return found

    async def create(self, *endpoint_ids: str, spec: EndpointSpec | None = None) -> None:
        async with self.api.transaction() as outbox:
            for endpoint_id in endpoint_ids:
                self._versions[endpoint_id] = 1
                await outbox.emit(requested(endpoint_id, spec))

    async def ask(self, kind: RequestKind, endpoint_id: str) -> None:
        self._versions[endpoint_id] += 1
        async with self.api.transaction() as outbox:
            await outbox.emit(
                REQUESTS[kind](endpoint_id=endpoint_id, organization_id="org_a", version=self._versions[endpoint_id])
            )


async def states(service: Service[Store]) -> dict[str, str]:
    """Endpoint → its state, in the scheduler's tables."""
    rows = await service.pool.fetch("select endpoint_id, state from endpoints")
    return {row["endpoint_id"]: row["state"] for row in rows}


async def all_are(service: Service[Store], state: str, count: int) -> None:
    """Wait until there are so many endpoints, all in this state."""

    async def probe() -> bool:
        found = await states(service)
        assert list(found.values()) == [state] * count, found
        return True

    await eventually(probe, deadline_s=30)


async def live_replicas(service: Service[Store]) -> dict[str, str]:
    """Live replica → its host."""
    rows = await service.pool.fetch("select replica_id, host_id from replicas where ended_at is null")
    return {row["replica_id"]: row["host_id"] for row in rows}


@asynccontextmanager
async def platform(make_settings: MakeSettings) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        found = Platform(make_settings, stack)
        await stack.enter_async_context(running(found.api))
        yield found
