"""Heartbeats, probes and reports wait for nobody: what takes long runs in threads, never on the event loop."""

import threading
from pathlib import Path
from typing import Any

import pytest

from penstock_common.contracts.endpoint import GitSource, RouteSpec
from penstock_provisioner import app, journal
from penstock_provisioner.source import environment, fetch, git, inspection, resolving

from .conftest import ECHO, MakePlatform, MakeRepository

BLOCKING = [
    (app, "_assemble"),
    (journal.Journal, "save"),
    (fetch, "_resolve"),
    (fetch, "tree_bytes"),
    (fetch, "parse_listing"),
    (fetch, "check_entries"),
    (fetch, "copy_tree"),
    (fetch, "remove_tree"),
    (git, "_parsed_refs"),
    (inspection, "_listing"),
    (inspection, "file_problem"),
    (inspection, "_modules"),
    (inspection, "check_route"),
    (resolving, "installed_pins"),
    (environment, "copy_installed"),
    (environment, "remove_tree"),
    (environment, "write_atomically"),
]


class Watch:
    """Notes which of the functions above were called, and which of them on the event loop's thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: set[str] = set()
        self.on_the_loop: set[str] = set()
        for owner, name in BLOCKING:
            monkeypatch.setattr(owner, name, self._watched(name, getattr(owner, name)))

    def _watched(self, name: str, function: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.called.add(name)
            if threading.current_thread() is threading.main_thread():
                self.on_the_loop.add(name)
            return function(*args, **kwargs)

        return watched


async def test_nothing_that_grows_with_a_repository_or_waits_for_a_disk_runs_on_the_loop(
    make_platform: MakePlatform, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watch = Watch(monkeypatch)
    platform = make_platform(cache_dir=tmp_path / "cache")
    repository = make_repository(ECHO)
    routes = [RouteSpec(path=f"/{file}", file=file, function="predict") for file in ("predict", "missing")]
    async with platform.host() as host:
        found = await host.inspector.inspect(GitSource(uri=repository.uri), routes)
        assert [problem.field for problem in found.problems] == ["routes.1.file", "routes.0.body"]
        platform.assign(repository)
        await platform.reported("ready")
        platform.unassign()
        await platform.reported("stopped")
    assert watch.called == {name for _, name in BLOCKING}
    assert watch.on_the_loop == set()
