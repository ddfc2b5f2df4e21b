"""The gateway as a service on a real NATS server: its watches, its snapshot, and life without them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from penstock_common.contracts.base import Record
from penstock_common.contracts.topology import BUCKETS
from penstock_gateway.app import Gateway
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.snapshots import load
from tests_support import Servers, eventually, running

from .plane import key_record, ready, route
from .raw import KEY
from .replica import ScriptedReplica

pytestmark = pytest.mark.connected

Make = Callable[..., GatewaySettings]


class Buckets:
    """Writes records as their owners would."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def put(self, record: Record) -> None:
        subject = BUCKETS[record.bucket].subject(record.key())
        await self._js.publish(subject, record.model_dump_json().encode())

    async def delete(self, record: Record) -> None:
        subject = BUCKETS[record.bucket].subject(record.key())
        await self._js.publish(subject, b"", headers={"KV-Operation": "DEL"})


@pytest.fixture
async def buckets(clean_servers: Servers) -> AsyncIterator[Buckets]:
    client = await clean_servers.admin_client()
    yield Buckets(client.jetstream())
    await client.close()


@asynccontextmanager
async def serving(settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    gateway = Gateway(settings)
    async with running(gateway.service):
        base = f"http://127.0.0.1:{gateway.port}"
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=base, headers=headers) as client:
            yield gateway, client


def settings_of(make_settings: Make, tmp_path: Path, **overrides: Any) -> GatewaySettings:
    return make_settings("gateway", GatewaySettings, gateway_port=0, data_dir=tmp_path, drain_idle_s=0, **overrides)


async def status_of(client: httpx.AsyncClient) -> int:
    return (await client.post("/e/default/iris/x", json={})).status_code


async def test_routes_and_keys_are_in_force_within_a_second_of_being_written(
    make_settings: Make, buckets: Buckets, replica: ScriptedReplica, tmp_path: Path
) -> None:
    async with serving(settings_of(make_settings, tmp_path)) as (gateway, client):

        async def becomes(status: int) -> None:
            async def answers() -> bool:
                return await status_of(client) == status

            await eventually(answers, deadline_s=1)

        await eventually(lambda: gateway.plane.directory.loaded)
        assert await status_of(client) == 404
        await buckets.put(route(replicas=ready(replica)))
        await becomes(401)
        await buckets.put(key_record())
        await becomes(200)
        await buckets.delete(key_record())
        await becomes(401)
        await buckets.put(key_record())
        await buckets.put(route(version=2, state="stopped", reason="because"))
        await becomes(503)
        await buckets.delete(route())
        await becomes(404)


async def test_a_restart_serves_from_disk_and_then_follows_the_buckets(
    make_settings: Make, buckets: Buckets, replica: ScriptedReplica, tmp_path: Path
) -> None:
    settings = settings_of(make_settings, tmp_path)
    file = tmp_path / "gateway" / "snapshot.json"
    await buckets.put(route(replicas=ready(replica)))
    await buckets.put(key_record())
    async with serving(settings) as (gateway, client):
        await eventually(lambda: len(gateway.plane.directory.keys) and gateway.plane.directory.names)
        assert await status_of(client) == 200
    saved = load(file)
    assert saved is not None
    assert (len(saved.routes), len(saved.api_keys)) == (1, 1)
    await buckets.delete(key_record())
    async with serving(settings) as (gateway, client):
        await eventually(lambda: len(gateway.plane.directory.keys) == 0)
        assert await status_of(client) == 401
        assert gateway.plane.directory.names


async def test_the_loss_of_nats_is_not_noticed_by_callers(
    make_settings: Make, buckets: Buckets, replica: ScriptedReplica, tmp_path: Path, clean_servers: Servers
) -> None:
    await buckets.put(route(replicas=ready(replica)))
    await buckets.put(key_record())
    async with serving(settings_of(make_settings, tmp_path)) as (gateway, client):
        await eventually(lambda: len(gateway.plane.directory.keys) and gateway.plane.directory.names)
        # From this thread: the server ends with the thread that started it.
        clean_servers.nats.stop()
        try:
            for _ in range(20):
                assert await status_of(client) == 200
        finally:
            clean_servers.nats.start()
        await buckets.put(route(version=2, state="stopped"))

        async def stopped() -> bool:
            return await status_of(client) == 503

        await eventually(stopped)


async def test_metrics_are_served_on_the_operators_port(make_settings: Make, tmp_path: Path) -> None:
    async with serving(settings_of(make_settings, tmp_path)) as (gateway, _), httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{gateway.service.ops_port}/metrics")
        assert "penstock_gateway_connections" in answer.text
