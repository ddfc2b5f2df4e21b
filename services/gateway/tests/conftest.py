"""The data plane on the event loop it is made for, in front of replicas whose every byte the test decides."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import uvloop

from .plane import RunningPlane, running_plane
from .replica import ScriptedReplica, scripted_replica


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], uvloop.Loop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def replica() -> AsyncIterator[ScriptedReplica]:
    """A replica that echoes, unless a test says otherwise."""
    async with scripted_replica() as started:
        yield started


@pytest.fixture
async def make_replica() -> AsyncIterator[Callable[[], Awaitable[ScriptedReplica]]]:
    async with AsyncExitStack() as stack:

        async def make() -> ScriptedReplica:
            return await stack.enter_async_context(scripted_replica())

        yield make


@pytest.fixture
async def make_plane() -> AsyncIterator[Callable[..., Awaitable[RunningPlane]]]:
    """`await make_plane(replica, queue_limit=…, settings={…})`: a gateway with one endpoint."""
    async with AsyncExitStack() as stack:

        async def make(*replicas: ScriptedReplica, **options: object) -> RunningPlane:
            return await stack.enter_async_context(running_plane(*replicas, **options))  # type: ignore[arg-type]

        yield make
