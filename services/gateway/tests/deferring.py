"""A data plane that takes asynchronous requests, kept on a real NATS server as the gateway's own user."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from penstock_common.contracts.permissions import inbox_prefix
from penstock_common.contracts.topology import INFERENCE_DATA, INFERENCES
from penstock_gateway.deferred.service import Deferred
from penstock_gateway.deferred.settings import DeferredSettings
from tests_support import Servers, eventually

from .plane import RunningPlane, running_plane
from .raw import Answer, RawClient
from .replica import Connection, ScriptedReplica, Seen

ASYNC = b"Prefer: respond-async\r\n"
SECRET = "a secret of at least thirty-two characters"


class Gateway:
    """One gateway: its plane with one endpoint, its own connection to NATS, and what it keeps."""

    def __init__(self, running: RunningPlane, deferred: Deferred, client: Client) -> None:
        self.running = running
        self.deferred = deferred
        self.nats = client
        self._task = asyncio.ensure_future(deferred.run())
        self.gone = False

    @property
    def board(self) -> Any:
        return self.deferred.board

    async def crash(self) -> None:
        """Vanish: nothing more is written, and whatever was open breaks."""
        self.gone = True
        await self.nats.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for _, task in list(self.deferred._runner._attempts.values()):
            task.cancel()
        await self.running.plane.drain(0)

    async def stop(self, limit_s: float = 5) -> None:
        """Stop as a service does."""
        if not self.gone:
            self.gone = True
            await self.deferred.stop(limit_s)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self.running.plane.drain(0)
            await self.nats.close()


MakeGateway = Callable[..., Awaitable[Gateway]]
"""`await make_gateway(replica, queue_limit=…, deferred={"deferred_retention_s": 1})`."""


@asynccontextmanager
async def gateways(servers: Servers) -> AsyncIterator[MakeGateway]:
    async with AsyncExitStack() as stack:
        made: list[Gateway] = []

        async def make(*replicas: ScriptedReplica, deferred: dict[str, Any] | None = None, **options: Any) -> Gateway:
            running = await stack.enter_async_context(running_plane(*replicas, **options))
            client = await nats.connect(
                servers.nats.url,
                user="gateway",
                password=servers.passwords["gateway"],
                inbox_prefix=inbox_prefix("gateway").encode(),
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,
            )
            js = client.jetstream(timeout=2)
            settings = {"deferred_lost_after_s": 1.5, "webhook_secret": SECRET, **(deferred or {})}
            service = Deferred(running.plane.directory, lambda: js, DeferredSettings(**settings))
            running.plane.door = service.door
            gateway = Gateway(running, service, client)
            made.append(gateway)
            await eventually(lambda: service.board.complete)
            return gateway

        try:
            yield make
        finally:
            for gateway in made:
                await gateway.stop(0)


# --- replicas and callers ----------------------------------------------------------------------------------


async def start(client: RawClient, target: str = "/run", headers: bytes = b"", body: bytes = b"{}") -> str:
    """Send an asynchronous request that is taken; the path of its status."""
    answer = await client.request("POST", target, ASYNC + headers, body)
    assert answer.status == 202, answer
    return answer.one("Location")


async def status(client: RawClient, path: str) -> dict[str, Any]:
    answer = await client.request("GET", path)
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


async def reaches(client: RawClient, path: str, *states: str, deadline_s: float = 10) -> dict[str, Any]:
    """The status once it is one of `states`."""

    async def there() -> dict[str, Any] | None:
        said = await status(client, path)
        return said if said["state"] in states else None

    found: dict[str, Any] = await eventually(there, deadline_s)
    return found


async def result(client: RawClient, path: str) -> Answer:
    await reaches(client, path, "succeeded", "failed", "cancelled")
    return await client.request("GET", f"{path}/result")


def seen_body(answer: Answer) -> str:
    """The body that an echoing replica saw."""
    found: str = json.loads(answer.body)["body"]
    return found


async def messages_kept(servers: Servers) -> tuple[dict[str, int], dict[str, int]]:
    """Subjects of both streams, with what they hold."""
    client = await servers.admin_client()
    try:
        js = client.jetstream()
        infos = [await js.stream_info(spec.name, subjects_filter=">") for spec in (INFERENCES, INFERENCE_DATA)]
        records, data = (dict(info.state.subjects or {}) for info in infos)
        return records, data
    finally:
        await client.close()


@pytest.fixture
async def make_gateway(clean_servers: Servers) -> AsyncIterator[MakeGateway]:
    async with gateways(clean_servers) as make:
        yield make


async def works_until_cancelled(seen: Seen, connection: Connection) -> None:
    await connection.body(seen)
    assert await connection.reader.read() == b""
    connection.writer.close()
