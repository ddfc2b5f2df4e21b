"""Several planes that share endpoints, in one process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import httpx
import pytest

from penstock_common.contracts.gateways import GatewayHeartbeat
from penstock_gateway.proxy.plane import DataPlane
from penstock_gateway.proxy.sharing.cluster import Cluster
from penstock_gateway.proxy.sharing.endpoint import SharedEndpoint
from penstock_gateway.proxy.sharing.membership import owner_of
from penstock_gateway.settings import GatewaySettings
from tests_support import eventually

from .plane import ENDPOINT_ID, TIMER_STEP_S, RunningPlane, changed, key_record, ready, route
from .raw import AUTHORIZATION, HOST, KEY, RawClient
from .replica import Connection, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION
TAKEOVER_S = 3.0
WORK_S = 0.004
SECRET = "a-secret-of-sixteen-or-more"


class SharingPlane(RunningPlane):
    """One of several."""

    dead = False

    @property
    def cluster(self) -> Cluster:
        assert self.plane.cluster is not None
        return self.plane.cluster

    @property
    def shared(self) -> SharedEndpoint:
        assert isinstance(self.endpoint, SharedEndpoint)
        return self.endpoint

    @property
    def owns(self) -> bool:
        return self.cluster.owns(self.endpoint.route.endpoint_id)

    async def die(self) -> None:
        """Vanish without a word: nothing more is told, and every connection breaks."""
        self.dead = True
        # Of a process that is killed all connections break at once: nothing may follow what is cut first.
        self.endpoint.queue.lend(None)
        for task in list(self.plane.context._tasks):
            task.cancel()
        await self.cluster._listener.close(handshake_s=0)
        await self.plane._listener.close(handshake_s=0)
        for client in list(self.plane._clients):
            client.cut()


class Sharing:
    """All of them, with a bus in the place of NATS that can be taken away."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.planes: list[SharingPlane] = []
        self.bus = True
        self.route = route(version=2)
        self._stack = stack

    async def add(
        self, settings: Mapping[str, Any] | None = None, *, owner: bool = False, listens: bool = True
    ) -> SharingPlane:
        """One more; it can be one that becomes the owner. Nothing may run yet if it does not listen first."""
        known = [running.cluster.gateway_id for running in self.planes]
        names = (f"gw-{len(known) + 1}-{number}" for number in range(1000))
        name = next(name for name in names if not owner or owner_of(ENDPOINT_ID, [*known, name]) == name)
        own = GatewaySettings(gateway_port=0, **{"gateway_secret": SECRET, **(settings or {})})
        plane = DataPlane(own, gateway_id=name, timer_step_s=TIMER_STEP_S)
        running = SharingPlane(plane, 0)
        running.port = await plane.listen()
        self._stack.push_async_callback(plane.drain, 0)
        self.planes.append(running)

        async def publish(heartbeat: GatewayHeartbeat) -> None:
            data = heartbeat.model_dump_json().encode()
            for other in self.planes:
                if self.bus and not running.dead and not other.dead and other is not running:
                    other.cluster.hear(data)

        running.cluster.publish = publish
        if not listens:
            running.cluster._membership._joined_s = 0
        plane.directory.put_key(key_record())
        plane.directory.loaded = True
        running.route = self.route
        plane.directory.put_route(self.route)
        return running

    def change_route(self, **changes: Any) -> None:
        self.route = changed(self.route, **{"version": self.route.version + 1, **changes})
        for running in self.planes:
            running.plane.directory.put_route(self.route)

    @property
    def alive(self) -> list[SharingPlane]:
        return [running for running in self.planes if not running.dead and not running.plane.context.draining]

    @property
    def owner(self) -> SharingPlane:
        (found,) = [running for running in self.alive if running.owns]
        return found

    @property
    def others(self) -> list[SharingPlane]:
        return [running for running in self.alive if not running.owns]

    async def settled(self, deadline_s: float = 10) -> None:
        """All know of each other, and the owner may start requests."""

        def agreed() -> bool:
            members = {running.cluster._members for running in self.alive}
            return (
                members == {frozenset(running.cluster.gateway_id for running in self.alive)}
                and self.owner.cluster._may_start
            )

        await eventually(agreed, deadline_s)


class Load:
    """Requests without pause."""

    def __init__(self) -> None:
        self.answered: list[tuple[float, str]] = []
        self.failed: list[str] = []
        self.over = asyncio.Event()
        self.left: set[int] = set()
        """Ports that get no more requests, and whose failures do not count."""
        self._made = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, ports: Sequence[int], each: int = 4) -> None:
        self._tasks += [asyncio.create_task(self._send(port)) for port in ports for _ in range(each)]

    async def stop(self) -> None:
        self.over.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30)

    async def goes_on(self, count: int = 100, deadline_s: float = 15) -> None:
        wanted = len(self.answered) + count
        await eventually(lambda: len(self.answered) >= wanted, deadline_s)

    async def _send(self, port: int) -> None:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=20) as client:
            while not self.over.is_set() and port not in self.left:
                self._made += 1
                target = f"/{self._made}"
                try:
                    answer = await client.post(f"http://127.0.0.1:{port}/e/default/iris{target}", content=b"{}")
                except httpx.HTTPError as error:
                    if port not in self.left:
                        self.failed.append(repr(error))
                    continue
                if answer.status_code == 200 and answer.text == target:
                    self.answered.append((monotonic(), target))
                else:
                    self.failed.append(answer.text)


def exact(load: Load, *replicas: ScriptedReplica) -> None:
    """No slot was used twice, no request ran twice, none was answered twice."""
    assert [replica.working_max for replica in replicas] == [1] * len(replicas)
    ran = [seen.target for replica in replicas for seen in replica.seen]
    assert len(ran) == len(set(ran))
    answered = [target for _, target in load.answered]
    assert len(answered) == len(set(answered))


async def send(stack: AsyncExitStack, running: SharingPlane, target: str, extra: bytes = b"") -> RawClient:
    client = await stack.enter_async_context(running.client())
    await client.send(f"POST {target} HTTP/1.1\r\n".encode() + FIELDS + extra + b"Content-Length: 2\r\n\r\n{}")
    return client


async def briefly(seen: Seen, connection: Connection) -> None:
    await connection.body(seen)
    await asyncio.sleep(WORK_S)
    await connection.answer(seen.target.encode())


MakeSharing = Callable[..., Awaitable[Sharing]]


@asynccontextmanager
async def sharing_planes(
    count: int, *replicas: ScriptedReplica, settings: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Sharing]:
    async with AsyncExitStack() as stack:
        found = Sharing(stack)
        found.change_route(replicas=ready(*replicas), **changes)
        await asyncio.gather(*(found.add(settings, listens=False) for _ in range(count)))
        await found.settled()
        yield found


@pytest.fixture
async def make_sharing() -> AsyncIterator[MakeSharing]:
    async with AsyncExitStack() as stack:

        async def make(count: int, *replicas: ScriptedReplica, **options: Any) -> Sharing:
            return await stack.enter_async_context(sharing_planes(count, *replicas, **options))

        yield make
