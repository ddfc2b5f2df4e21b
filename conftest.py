"""Fixtures for every test: real servers, started once, and a clean platform on them for each test."""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from penstock_common.settings import ServiceSettings
from tests_support.servers import Servers

Settings = TypeVar("Settings", bound=ServiceSettings)


@pytest.fixture(scope="session")
def platform_servers() -> Iterator[Servers]:
    """A real NATS server and a real PostgreSQL server."""
    servers = Servers()
    servers.start()
    yield servers
    servers.stop()


@pytest.fixture
async def clean_servers(platform_servers: Servers) -> Servers:
    """The servers with a fresh database, and every stream and bucket empty."""
    await platform_servers.clean()
    return platform_servers


@pytest.fixture
def make_settings(clean_servers: Servers) -> Callable[..., ServiceSettings]:
    """Settings of a service on the clean servers: `make_settings("billing", BillingSettings)`."""

    def make(service: str, kind: type[Settings] = ServiceSettings, **overrides: object) -> Settings:  # type: ignore[assignment]
        return kind(**{**clean_servers.settings_of(service), **overrides})  # type: ignore[arg-type]

    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where every real part is installed, a skipped test is a failure: nothing goes untested unseen."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("PENSTOCK_NO_SKIP") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but PENSTOCK_NO_SKIP is set: {report.longrepr}"
