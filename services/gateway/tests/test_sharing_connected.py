"""Gateway processes that find each other over a real NATS server, and lose each other and it."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from nats.aio.msg import Msg

from penstock_common.contracts.gateways import GATEWAYS, GatewayHeartbeat
from penstock_common.contracts.topology import BUCKETS
from penstock_gateway.app import Gateway
from penstock_gateway.proxy.sharing.membership import LIVE_S, owner_of
from penstock_gateway.settings import GatewaySettings
from tests_support import Servers, eventually, running
from tests_support.servers import free_port

from .plane import ENDPOINT_ID, key_record, ready, route
from .process import Process
from .replica import MakeReplica, ScriptedReplica
from .sharing import SECRET, TAKEOVER_S, Load, briefly, exact

pytestmark = pytest.mark.connected

Make = Callable[..., GatewaySettings]


class Fleet:
    """Processes, each on ports of its own, and what they last said of themselves."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        """By the port they take requests on."""
        self._said: dict[str, tuple[float, GatewayHeartbeat]] = {}
        self._ports: dict[str, int] = {}
        """Address for other gateways → port for requests."""

    async def add(self, stack: AsyncExitStack, servers: Servers, data_dir: Path) -> int:
        port, forward = free_port(), free_port()
        settings = {
            **servers.settings_of("gateway"),
            "gateway_secret": SECRET,
            "forward_port": forward,
            "shutdown_grace_s": 5,
        }
        process = Process(data_dir, port, settings)
        await stack.enter_async_context(process)
        self.processes[port] = process
        self._ports[f"127.0.0.1:{forward}"] = port
        return port

    async def hear(self, message: Msg) -> None:
        said = GatewayHeartbeat.model_validate_json(message.data)
        self._said[said.gateway_id] = (monotonic(), said)

    def live(self) -> dict[str, GatewayHeartbeat]:
        return {key: said for key, (at_s, said) in self._said.items() if monotonic() - at_s < LIVE_S}

    async def agreed(self) -> None:
        def all_know_all() -> bool:
            live = self.live()
            return len(live) == len(self.processes) and all(set(said.members) == set(live) for said in live.values())

        await eventually(all_know_all, 20)

    @property
    def owner(self) -> int:
        """The port of the gateway that owns the endpoint."""
        live = self.live()
        return self._ports[live[owner_of(ENDPOINT_ID, live) or ""].address]


@asynccontextmanager
async def fleet_of(
    count: int, servers: Servers, folder: Path, *replicas: ScriptedReplica
) -> AsyncIterator[tuple[Fleet, AsyncExitStack]]:
    client = await servers.admin_client()
    fleet = Fleet()
    await client.subscribe(GATEWAYS, cb=fleet.hear)
    for record in (route(replicas=ready(*replicas)), key_record()):
        await client.jetstream().publish(
            BUCKETS[record.bucket].subject(record.key()), record.model_dump_json().encode()
        )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        for number in range(count):
            await fleet.add(stack, servers, folder / str(number))
        await fleet.agreed()
        yield fleet, stack


async def replicas_of(make_replica: MakeReplica, count: int) -> list[ScriptedReplica]:
    found = [await make_replica() for _ in range(count)]
    for replica in found:
        replica.handler = briefly
    return found


@pytest.mark.parametrize("nats", ["there", "away"])
async def test_a_killed_owner_is_replaced_within_3_s(
    clean_servers: Servers, tmp_path: Path, make_replica: MakeReplica, nats: str
) -> None:
    replicas = await replicas_of(make_replica, 2)
    load = Load()
    async with fleet_of(3, clean_servers, tmp_path, *replicas) as (fleet, _):
        owner = fleet.owner
        load.start([port for port in fleet.processes if port != owner])
        await load.goes_on()
        if nats == "away":
            clean_servers.nats.stop()
        try:
            await load.goes_on()
            fleet.processes[owner].send(signal.SIGKILL)
            await load.goes_on()
        finally:
            if nats == "away":
                clean_servers.nats.start()
        gap_s = max(later - earlier for (earlier, _), (later, _) in zip(load.answered, load.answered[1:], strict=False))
        assert gap_s < TAKEOVER_S
        await load.goes_on()
        await load.stop()
    exact(load, *replicas)
    # What the dead one had begun, one on each replica, is lost and nothing else.
    assert len(load.failed) <= len(replicas), load.failed
    assert all("replica_lost" in text for text in load.failed)


async def test_an_owner_that_stands_still_and_comes_back_never_makes_two(
    clean_servers: Servers, tmp_path: Path, make_replica: MakeReplica
) -> None:
    replicas = await replicas_of(make_replica, 2)
    load = Load()
    async with fleet_of(2, clean_servers, tmp_path, *replicas) as (fleet, _):
        owner = fleet.owner
        load.start(list(fleet.processes))
        await load.goes_on()
        for _ in range(2):
            fleet.processes[owner].send(signal.SIGSTOP)
            stopped_s = monotonic()
            try:
                await eventually(lambda: len(fleet.live()) == 1, 10)
                await load.goes_on()
                assert load.answered[-1][0] - stopped_s < TAKEOVER_S + 5
            finally:
                fleet.processes[owner].send(signal.SIGCONT)
            await fleet.agreed()
            assert fleet.owner == owner
            await load.goes_on()
        await load.stop()
    exact(load, *replicas)
    assert all("replica_lost" in text for text in load.failed)


async def test_a_rolling_restart_of_all_loses_nothing(
    clean_servers: Servers, tmp_path: Path, make_replica: MakeReplica
) -> None:
    replicas = await replicas_of(make_replica, 2)
    load = Load()
    async with fleet_of(2, clean_servers, tmp_path, *replicas) as (fleet, stack):
        for number, port in enumerate(list(fleet.processes)):
            fresh = await fleet.add(stack, clean_servers, tmp_path / f"new{number}")
            load.start([fresh])
            await load.goes_on()
            assert await fleet.processes.pop(port).stop() == 0
            await fleet.agreed()
            await load.goes_on()
        await load.stop()
    exact(load, *replicas)
    assert load.failed == []


async def test_as_services_they_share_the_endpoints(make_settings: Make, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateways: list[Gateway] = []
        for name in ("one", "two"):
            options: dict[str, Any] = {"gateway_port": 0, "data_dir": tmp_path / name, "drain_idle_s": 0}
            gateway = Gateway(make_settings("gateway", GatewaySettings, gateway_secret=SECRET, **options))
            await stack.enter_async_context(running(gateway.service))
            gateways.append(gateway)

        def owned() -> list[int]:
            return [sum(one.owns(f"ep_{number}") for number in range(100)) for one in gateways]

        await eventually(lambda: sum(owned()) == 100 and min(owned()) > 20)
