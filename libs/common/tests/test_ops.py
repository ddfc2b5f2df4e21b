from collections.abc import Callable

import httpx
import pytest

from penstock_common.service import Service
from penstock_common.settings import ServiceSettings
from tests_support import Servers, eventually, running

pytestmark = pytest.mark.connected


async def test_a_service_says_that_it_lives_and_whether_it_is_ready(
    make_settings: Callable[..., ServiceSettings], platform_servers: Servers
) -> None:
    service: Service[None] = Service("gateway", make_settings("gateway"))
    client = httpx.AsyncClient()
    async with running(service), client:
        address = f"http://127.0.0.1:{service.ops_port}"
        assert (await client.get(f"{address}/healthz")).status_code == 200
        assert (await client.get(f"{address}/readyz")).json() == {"ready": True, "checks": {"nats": True}}
        assert "penstock_" in (await client.get(f"{address}/metrics")).text
        platform_servers.nats.stop()

        async def not_ready() -> bool:
            return (await client.get(f"{address}/readyz")).status_code == 503

        await eventually(not_ready)
        assert (await client.get(f"{address}/healthz")).status_code == 200
        platform_servers.nats.start()

        async def ready() -> bool:
            return (await client.get(f"{address}/readyz")).status_code == 200

        await eventually(ready)
