"""Each step of a replica's life fails once: the replica runs or fails with a reason, and nothing is left over."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from penstock_provisioner import supervising
from penstock_provisioner.drivers.process import driver, procfs, shim
from penstock_provisioner.journal import Journal
from penstock_provisioner.source.environment import Environments, InstallFailed
from penstock_provisioner.source.fetch import Sources
from penstock_provisioner.source.problems import SourceProblem
from tests_support import eventually

from .conftest import MakeRepository, Platform

MODEL = {"predict.py": "def predict(features):\n    return 1\n"}
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def retry_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_RETRY_S", 0.05)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a function fail at its n-th call."""

    def break_it(owner: Any, name: str, error: Exception, at: int = 1) -> None:
        original = getattr(owner, name)
        calls = 0

        def broken(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise error
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)

    return break_it


@pytest.mark.parametrize(
    ("owner", "name", "error", "cause", "says"),
    [
        (
            Sources,
            "copy",
            SourceProblem("source.uri", "the server is away"),
            "source_unavailable",
            "the server is away",
        ),
        (Sources, "copy", FULL, "start_failed", "this host could not prepare it: No space left on device"),
        (Environments, "ensure", InstallFailed("no such wheel"), "install_failed", "no such wheel"),
        (Environments, "ensure", FULL, "start_failed", "No space left on device"),
        (shim, "spawn", OSError(errno.EAGAIN, "Resource temporarily unavailable"), "start_failed", "could not start"),
        (driver, "replica_variables", FULL, "start_failed", "No space left"),
    ],
)
async def test_a_step_that_fails_ends_the_replica_with_its_reason(
    platform: Platform,
    make_repository: MakeRepository,
    fail: Callable[..., None],
    owner: Any,
    name: str,
    error: Exception,
    cause: str,
    says: str,
) -> None:
    fail(owner, name, error)
    async with platform.host():
        platform.assign(make_repository(MODEL))
        failed = await platform.reported("failed")
        assert failed.cause == cause
        assert says in failed.detail
        assert platform.processes() == []
        directory = platform.settings.own_dir / "replicas/rep_1"
        assert {entry.name for entry in directory.iterdir()} <= {"replica.json", "log.json", "output.log"}


@pytest.mark.parametrize("at", range(1, 7))
async def test_a_disk_that_is_full_for_a_moment_makes_no_second_process(
    platform: Platform, make_repository: MakeRepository, fail: Callable[..., None], at: int
) -> None:
    fail(Journal, "save", FULL, at)
    async with platform.host():
        platform.assign(make_repository(MODEL))
        await eventually(lambda: {"ready", "failed"} & set(platform.phases()), 30)
        assert len(platform.leaders()) == (1 if "ready" in platform.phases() else 0)
        platform.unassign()
        await eventually(lambda: not platform.processes())


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_disk_that_is_full_while_stopping_delays_the_end_but_does_not_hide_it(
    platform: Platform, make_repository: MakeRepository, fail: Callable[..., None], at: int
) -> None:
    async with platform.host():
        platform.assign(make_repository(MODEL))
        await platform.reported("ready")
        fail(Journal, "save", FULL, at)
        platform.unassign()
        assert (await platform.reported("stopped")).cause == "stopped"
        assert platform.processes() == []


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [(driver, "_remove_working_files", OSError(errno.EBUSY, "busy")), (procfs, "kill_all", TimeoutError())],
)
async def test_an_end_that_does_not_come_is_tried_again_and_not_reported_before(
    platform: Platform,
    make_repository: MakeRepository,
    fail: Callable[..., None],
    owner: Any,
    name: str,
    error: Exception,
) -> None:
    async with platform.host():
        platform.assign(make_repository(MODEL))
        await platform.reported("ready")
        fail(owner, name, error)
        platform.unassign()
        await platform.reported("stopped")
        assert platform.processes() == []


async def test_what_nobody_knows_and_cannot_be_ended_is_kept_for_the_next_start(
    platform: Platform, make_repository: MakeRepository, fail: Callable[..., None]
) -> None:
    async with platform.host():
        platform.assign(make_repository(MODEL))
        await platform.reported("ready")
    platform.assignments.clear()
    directory = platform.settings.own_dir / "replicas/rep_1"
    (directory / "replica.json").write_text("{")
    fail(procfs, "kill_all", TimeoutError(), at=2)  # the first is for helpers
    async with platform.host():
        assert (directory / "environment").is_symlink()
    async with platform.host():
        assert platform.processes() == []
        assert not directory.exists()


async def test_a_report_that_is_not_accepted_is_sent_again_in_order(
    platform: Platform, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, refused = platform.publish_report, []

    async def unreliable(report: Any, traceparent: str | None) -> None:
        if report.sequence not in refused:
            refused.append(report.sequence)
            raise ConnectionError
        await original(report, traceparent)

    monkeypatch.setattr(platform, "publish_report", unreliable)
    async with platform.host():
        platform.assign(make_repository(MODEL))
        await platform.reported("ready")
        assert platform.phases() == ["fetching", "installing", "starting", "ready"]
