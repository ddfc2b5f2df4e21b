"""One platform for all end-to-end tests, empty again after each, and what they deploy on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penstock import AsyncPenstock, Penstock
from penstock_launcher import commands
from tests_support.people import Repositories, nothing_runs
from tests_support.platform import Platform, platform
from tests_support.waiting import eventually

GPUS = "RTX 4090=4,A100 80GB=1"
LIMITS = {
    # Long enough for the slowest start on a busy machine; a model that hangs is given this three times.
    "PENSTOCK_READY_TIMEOUT_S": "8",
    # Small enough that a test can make a repository which is too large.
    "PENSTOCK_SOURCE_MB_MAX": "4",
}


@pytest.fixture(scope="session")
def running_platform() -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in LIMITS.items():
            environment.setenv(name, value)
        with platform(simulate_gpus=GPUS) as made:
            yield made
            assert_untroubled(made)


def assert_untroubled(made: Platform) -> None:
    """After all that users did, nothing of the platform itself died, and no message was given up."""
    status = commands.status(made.data_dir)
    assert [program.name for program in status.programs if program.restarts or program.state != "ready"] == []
    with Penstock(api_url=made.api_url, api_key=made.api_key) as client:
        assert [(letter.consumer, letter.error) for letter in client.admin.dead.list()] == []


@pytest.fixture
async def client(running_platform: Platform) -> AsyncIterator[AsyncPenstock]:
    """The owner's client. Afterwards every endpoint is ended, and nothing may be left of them."""
    async with running_platform.client() as client:
        yield client
        endpoints = [endpoint async for endpoint in client.endpoints.list()]
        await asyncio.gather(*(endpoint.terminate() for endpoint in endpoints))
        await asyncio.gather(*(endpoint.wait("terminated", timeout_s=30) for endpoint in endpoints))
        await eventually(lambda: nothing_runs(client, running_platform), deadline_s=30)


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    """Makes the git repositories of a user."""
    return Repositories(tmp_path)
