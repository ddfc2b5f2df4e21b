"""One platform for all fault tests, and what every one of them checks in the end."""

from collections.abc import AsyncIterator, Iterator

import pytest

from penstock import AsyncPenstock
from tests_support.oracle import Witness
from tests_support.platform import Platform, platform
from tests_support.scene import Scene


@pytest.fixture(scope="session")
def running_platform() -> Iterator[Platform]:
    with platform(simulate_gpus="RTX 4090=4") as made:
        yield made


async def _leave_nothing(client: AsyncPenstock) -> None:
    """A test that failed half way holds GPUs, and must not make the following ones fail too."""
    left = [endpoint async for endpoint in client.endpoints.list() if endpoint.state != "terminated"]
    for endpoint in left:
        await endpoint.terminate()
    for endpoint in left:
        await endpoint.wait("terminated", timeout_s=60)


@pytest.fixture
async def scene(running_platform: Platform) -> AsyncIterator[Scene]:
    await running_platform.ready()
    admin = await running_platform.nats_admin()
    with Witness(running_platform) as witness:
        async with running_platform.client() as client:
            yield Scene(running_platform, client, admin, witness)
            await _leave_nothing(client)
    await admin.close()
