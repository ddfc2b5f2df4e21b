"""Supervision, on real processes that stand in for servers and services."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from penstock_launcher import program
from penstock_launcher.children import die_with_parent
from penstock_launcher.processes import hold
from penstock_launcher.program import Program, ProgramSpec
from tests_support import eventually

WAITS = "import signal; signal.pause()"
IGNORES_SIGTERM = (
    "import signal, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "while True: signal.pause()"
)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WAIT_FIRST_S", 0.01)
    monkeypatch.setattr(program, "READY_EVERY_S", 0.005)


async def always() -> bool:
    return True


def spec(
    code: str,
    tmp_path: Path,
    *,
    is_ready: Callable[[], Awaitable[bool]] = always,
    grace_s: float = 10,
    launches: list[float] | None = None,
) -> ProgramSpec:
    def spawn() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "started")], preexec_fn=die_with_parent(signal.SIGKILL)
        )

    async def launch() -> "subprocess.Popen[bytes]":
        if launches is not None:
            launches.append(asyncio.get_running_loop().time())
        return spawn()

    return ProgramSpec("stand-in", launch, is_ready, tmp_path / "log", grace_s=grace_s)


async def test_a_killed_program_is_started_again_by_itself(tmp_path: Path) -> None:
    changes: list[str] = []
    watched = Program(spec(WAITS, tmp_path), lambda: changes.append(watched.state))
    await watched.start()
    first = await eventually(lambda: watched.state == "ready" and watched.pid)
    os.kill(first, signal.SIGKILL)
    second = await eventually(lambda: watched.exits == 1 and watched.state == "ready" and watched.pid)
    await watched.stop()
    assert second != first
    assert watched.state == "stopped"
    assert watched.pid is None
    assert [change for change, before in zip(changes, ["", *changes], strict=False) if change != before] == [
        "starting",
        "ready",
        "waiting",
        "starting",
        "ready",
        "stopped",
    ]


async def test_the_wait_grows_while_it_keeps_ending_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "WAIT_MAX_S", 0.04)
    launches: list[float] = []
    watched = Program(spec("raise SystemExit(7)", tmp_path, launches=launches), lambda: None)
    waits: list[float] = []
    monkeypatch.setattr(watched, "_pause", _noting(watched, waits))
    await watched.start()
    await eventually(lambda: len(waits) >= 5)
    await watched.stop()
    assert waits[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]
    assert len(launches) >= 5


def _noting(watched: Program, waits: list[float]) -> Callable[[], Awaitable[None]]:
    pause = watched._pause

    async def note() -> None:
        waits.append(watched._wait_s)
        await pause()

    return note


async def test_a_program_that_ran_long_enough_is_trusted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "STEADY_S", 0.0)
    watched = Program(spec("raise SystemExit(7)", tmp_path), lambda: None)
    waits: list[float] = []
    monkeypatch.setattr(watched, "_pause", _noting(watched, waits))
    await watched.start()
    await eventually(lambda: len(waits) >= 3)
    await watched.stop()
    assert waits[:3] == [0.01, 0.01, 0.01]


async def test_stopping_kills_what_does_not_stop_in_its_grace(tmp_path: Path) -> None:
    watched = Program(spec(IGNORES_SIGTERM, tmp_path, grace_s=0.05), lambda: None)
    await watched.start()
    await eventually((tmp_path / "started").exists)
    pid = watched.pid
    assert pid is not None
    await watched.stop()
    assert hold(pid) is None


async def test_stopping_while_it_waits_to_start_again_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "WAIT_FIRST_S", 60.0)
    launches: list[float] = []
    watched = Program(spec("raise SystemExit(7)", tmp_path, launches=launches), lambda: None)
    await watched.start()
    await eventually(lambda: watched.state == "waiting")
    await asyncio.wait_for(watched.stop(), 10)
    assert len(launches) == 1


async def test_stopping_during_a_launch_ends_what_was_launched(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    inner = spec(WAITS, tmp_path)
    launched: list[subprocess.Popen[bytes]] = []

    async def slow() -> "subprocess.Popen[bytes]":
        begun.set()
        await go_on.wait()
        launched.append(await inner.launch())
        return launched[0]

    watched = Program(ProgramSpec("stand-in", slow, always, tmp_path / "log"), lambda: None)
    starting = asyncio.create_task(watched.start())
    await begun.wait()
    stopping = asyncio.create_task(watched.stop())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(asyncio.gather(starting, stopping), 10)
    assert launched[0].returncode == -signal.SIGTERM


async def test_a_first_launch_that_fails_is_told(tmp_path: Path) -> None:
    async def fail() -> "subprocess.Popen[bytes]":
        raise OSError(28, "No space left on device")

    watched = Program(ProgramSpec("stand-in", fail, always, tmp_path / "log"), lambda: None)
    with pytest.raises(OSError, match="No space left"):
        await watched.start()
    await watched.stop()


async def test_a_later_launch_that_fails_is_tried_again(tmp_path: Path) -> None:
    inner = spec("raise SystemExit(7)", tmp_path)
    attempts: list[int] = []

    async def sometimes() -> "subprocess.Popen[bytes]":
        attempts.append(1)
        if len(attempts) == 2:
            raise OSError(28, "No space left on device")
        return await inner.launch()

    watched = Program(ProgramSpec("stand-in", sometimes, always, tmp_path / "log"), lambda: None)
    await watched.start()
    await eventually(lambda: len(attempts) >= 3)
    await watched.stop()
    assert watched.exits >= 2


async def test_it_is_ready_only_once_it_says_so(tmp_path: Path) -> None:
    async def started() -> bool:
        return (tmp_path / "started").exists()

    watched = Program(spec(IGNORES_SIGTERM, tmp_path, is_ready=started, grace_s=0.05), lambda: None)
    await watched.start()
    assert watched.state == "starting"
    await eventually(lambda: watched.state == "ready")
    assert watched.ready_after_s is not None
    assert watched.ready_after_s > 0
    await watched.stop()


def test_a_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, subprocess, sys\n"
            "from penstock_launcher.children import die_with_parent\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'],"
            " preexec_fn=die_with_parent(signal.SIGKILL))\n"
            "print(child.pid, flush=True)\n"
            "signal.pause()",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        held = hold(child)
        assert held is not None
        parent.kill()
        assert held.wait(10)
        os.close(held.descriptor)
