"""The package as a whole: quick to import, the same for both clients, and honest about what it exports."""

import ast
import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import penstock
from penstock import AsyncEndpoint, AsyncPenstock, Endpoint, Penstock, async_client, client

HEAVY = ("httpx", "pydantic", "rich", "typer")


def loaded_after(code: str) -> set[str]:
    """Which of HEAVY are imported once `code` has run in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import penstock") == set()
    assert loaded_after("from penstock import NotFound") == set()


def test_the_root_of_the_command_line_does_not_import_the_client() -> None:
    assert loaded_after("import penstock.cli.main") == {"rich", "typer"}


def test_the_client_needs_its_four_libraries_and_nothing_of_the_platform() -> None:
    root = Path(penstock.__file__).parent
    imported = {
        name.partition(".")[0]
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    # The launcher is imported by `penstock up` when it is called, and may be missing.
    assert imported - sys.stdlib_module_names == {"penstock", *HEAVY, "penstock_launcher"}


def test_everything_exported_exists_and_is_typed() -> None:
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    assert set(penstock.__all__) <= set(dir(penstock))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = penstock.Nonsense
    source = ast.parse(Path(penstock.__file__).read_text())
    typed = {
        alias.name
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penstock.")
        for alias in node.names
    }
    assert typed == set(penstock.__all__)


def methods(owner: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }


RESOURCES = [
    "Endpoints", "GpuTypes", "Workspaces", "Members", "ApiKeys", "DeadLetterQueue", "Prices", "Organizations", "Admin",
    "EndpointMethods",
]  # fmt: skip


@pytest.mark.parametrize("name", RESOURCES)
def test_both_clients_have_the_same_methods(name: str) -> None:
    blocking, awaiting = methods(getattr(client, name)), methods(getattr(async_client, name))
    assert blocking.keys() == awaiting.keys()
    for method in blocking:
        assert list(blocking[method].parameters.values()) == list(awaiting[method].parameters.values())
    for owner in (client, async_client):
        for method in methods(getattr(owner, name)):
            assert getattr(getattr(owner, name), method).__doc__


def test_both_clients_and_endpoints_look_alike_too() -> None:
    assert methods(Penstock).keys() == methods(AsyncPenstock).keys()
    assert methods(Endpoint).keys() == methods(AsyncEndpoint).keys()
    assert list(inspect.signature(Endpoint.wait).parameters) == list(inspect.signature(AsyncEndpoint.wait).parameters)


def test_a_coroutine_function_may_take_the_events(script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()), make.reply(200, make.endpoint(state="running")), make.page(make.event(1, "x"))
    )
    phases: list[str] = []

    async def note(event: penstock.LifecycleEvent) -> None:
        await asyncio.sleep(0)
        phases.append(event.phase)

    async def use() -> None:
        async with AsyncPenstock("http://api.test", "psk_test", transport=httpx.MockTransport(script)) as client:
            await (await client.endpoints.get(make.endpoint_id)).wait(on_event=note)

    asyncio.run(use())
    assert phases == ["x"]


def test_a_platform_on_this_machine_is_reached_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Penstock("http://127.0.0.1:8081", "psk_test") as local:
        http = local._session._http
        for host in ("127.0.0.1", "localhost", "iris.default.localhost", "[::1]"):
            assert http._transport_for_url(httpx.URL(f"http://{host}:1/x")) is http._transport
        assert http._transport_for_url(httpx.URL("http://example.test/")) is not http._transport
