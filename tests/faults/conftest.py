"""One platform for all fault tests, and what every one of them checks in the end."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests_support.oracle import Witness
from tests_support.platform import Platform, platform
from tests_support.scene import Scene


@pytest.fixture(scope="session")
def running_platform() -> Iterator[Platform]:
    with platform(simulate_gpus="RTX 4090=4") as made:
        yield made


@pytest.fixture
async def scene(running_platform: Platform) -> AsyncIterator[Scene]:
    await running_platform.ready()
    admin = await running_platform.nats_admin()
    with Witness(running_platform) as witness:
        async with running_platform.client() as client:
            yield Scene(running_platform, client, admin, witness)
    await admin.close()
