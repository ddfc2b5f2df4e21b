"""A provisioner dies, at any moment; the next one takes over what runs, and never makes two."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tests_support
from penstock_common.contracts.endpoint import RouteSpec
from penstock_common.contracts.events import ReplicaReported
from penstock_provisioner.drivers.process import procfs
from penstock_provisioner.journal import DirectoryInUse
from penstock_provisioner.source import environment as environment_module
from tests_support import eventually

from .conftest import MakePlatform, MakeRepository, Platform

GET = RouteSpec(verb="GET", path="/answer", file="predict", function="answer")

# Says so in a file when it is loaded while another of its kind lives.
WITNESS = """
import fcntl, pathlib
folder = pathlib.Path({folder!r})
lock = open(folder / "lock", "a")
with (folder / "starts").open("a") as starts:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        starts.write("alone\\n")
    except BlockingIOError:
        starts.write("together\\n")
print("loaded")
def answer():
    return "here"
"""


@pytest.fixture
def witness(make_repository: MakeRepository, tmp_path: Path) -> tuple[Any, Path]:
    folder = tmp_path / "witness"
    folder.mkdir()
    return make_repository({"predict.py": WITNESS.format(folder=str(folder))}), folder / "starts"


class Killable:
    """Provisioners in processes of their own, each killed at a chosen step."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killable.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(tests_support.__file__).parents[1])},
        )

    def run(self, **job: Any) -> int:
        """Do the job and return the exit code: -9 if it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


@pytest.fixture
def killable() -> Iterator[Killable]:
    made = Killable()
    yield made
    made.close()


def job_for(platform: Platform, name: str, replica_id: str, reports: Path, kill_at: int) -> dict[str, Any]:
    settings = platform.settings.model_dump(mode="json", exclude_none=True)
    assignment = platform.assignments[replica_id].model_dump(mode="json")
    return {
        "name": name,
        "kill_at": kill_at,
        "assignment": assignment,
        "settings": {key: value for key, value in settings.items() if "password" not in key},
        "reports": str(reports),
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["start", "stop"])
async def test_killed_at_any_step_the_next_provisioner_goes_on(
    platform: Platform, witness: tuple[Any, Path], killable: Killable, tmp_path: Path, name: str
) -> None:
    repository, starts = witness
    code, step = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        step += 1
        replica_id = f"rep_{step}"
        reports = tmp_path / f"reports-{step}"
        reports.touch()
        platform.assign(repository, replica_id, route=GET)
        code = await asyncio.to_thread(killable.run, **job_for(platform, name, replica_id, reports, step))
        before = [ReplicaReported.model_validate_json(line) for line in reports.read_text().splitlines()]
        if name == "stop":
            platform.unassign(replica_id)
        async with platform.host() as host:
            if name == "start":
                await platform.reported("ready", replica_id)
                assert len(platform.leaders()) == 1, step
                platform.unassign(replica_id)
            await eventually(lambda: not platform.processes())
            await eventually(lambda: {report.phase for report in host.reconciler.reports()} <= {"stopped"})
            for _ in range(6):
                host.reconciler.beat()
                host.reconciler.step()
        after = [report for report in platform.reports if report.replica_id == replica_id]
        if before and after:
            assert after[0].sequence >= before[-1].sequence, step
        assert [one.cause for one in after if one.phase in ("failed", "stopped")] in ([], ["stopped"]), step
        assert list((platform.settings.own_dir / "replicas").iterdir()) == []
    assert code == 0
    assert step > 8
    assert set(starts.read_text().split()) == {"alone"}


async def test_a_running_replica_is_adopted_with_its_output(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    code = "import sys\nprint('one')\ndef answer():\n    print('two')\n    return 1\n"
    first = make_platform()
    async with first.host():
        first.assign(make_repository({"predict.py": code}), route=GET)
        ready = await first.reported("ready")
        await eventually(lambda: "one" in first.texts())
    (leader,) = first.leaders()
    second = make_platform()
    second.assignments = dict(first.assignments)
    assert ready.address is not None
    reader, writer = await asyncio.open_connection(*ready.address.split(":"))
    writer.write(b"GET /answer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    async with second.host() as host:
        adopted = await second.reported("ready")
        assert (adopted.sequence, adopted.address) == (ready.sequence, ready.address)
        assert second.leaders() == [leader]
        async with asyncio.timeout(30):
            await host.reconciler.looked()
        assert [told.phase for told in host.reconciler.reports()] == ["ready"]
        await eventually(lambda: "two" in second.texts())
        assert "one" not in second.texts()
        second.unassign()
        await second.reported("stopped")
        assert host.reconciler.reports()[0].sequence == ready.sequence + 1


async def test_an_end_that_nobody_saw_is_found_out(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    code = "import os, threading\nthreading.Timer(0.3, os._exit, (11,)).start()\ndef answer():\n    return 1\n"
    first = make_platform()
    async with first.host():
        first.assign(make_repository({"predict.py": code}), route=GET)
        await first.reported("starting")
    await eventually(lambda: not first.processes())
    second = make_platform()
    second.assignments = dict(first.assignments)
    async with second.host():
        failed = await second.reported("failed")
        assert failed.exit_code == 11
        assert failed.cause in ("crashed", "start_failed")  # it may have answered before it went


async def test_a_replica_that_somebody_stopped_meanwhile_did_not_crash(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    first = make_platform()
    async with first.host():
        first.assign(make_repository({"predict.py": "def answer():\n    return 1\n"}), route=GET)
        await first.reported("ready")
    os.killpg(first.leaders()[0], signal.SIGTERM)
    await eventually(lambda: not first.processes())
    second = make_platform()
    second.assignments = dict(first.assignments)
    async with second.host():
        stopped = await second.reported("stopped")
        assert (stopped.cause, stopped.exit_code) == ("vanished", 0)


async def test_a_replica_that_is_gone_without_a_trace_vanished(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    first = make_platform()
    async with first.host():
        first.assign(make_repository({"predict.py": "def answer():\n    return 1\n"}), route=GET)
        await first.reported("ready")
    os.killpg(first.leaders()[0], signal.SIGKILL)
    await eventually(lambda: not first.processes())
    # The first provisioner was this very process: its child has to be waited for to be gone.
    second = make_platform()
    second.assignments = dict(first.assignments)
    async with second.host() as host:
        assert [told.phase for told in host.reconciler.reports()] == ["ready"]
        # No heartbeat says so before it was looked at: what is told to run is billed.
        async with asyncio.timeout(30):
            await host.reconciler.looked()
        assert [told.phase for told in host.reconciler.reports()] == ["failed"]
        failed = await second.reported("failed")
        assert failed.cause == "vanished"


async def test_a_replica_of_an_earlier_boot_is_not_looked_for_among_todays_processes(
    make_platform: MakePlatform, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_platform()
    async with first.host():
        first.assign(make_repository({"predict.py": "def answer():\n    return 1\n"}), route=GET)
        await first.reported("ready")
    state = first.settings.own_dir / "replicas/rep_1/replica.json"
    document = json.loads(state.read_text())
    pid, ticks, _, _ = document["instance"]["id"].split("/")
    document["instance"]["id"] = f"{pid}/{ticks}/another-boot/"
    state.write_text(json.dumps(document))
    second = make_platform()
    second.assignments = dict(first.assignments)
    async with second.host():
        failed = await second.reported("failed")
        assert failed.cause == "vanished"
        assert second.processes() == []


async def test_what_runs_and_was_never_written_down_is_ended(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    first = make_platform()
    async with first.host():
        first.assign(make_repository({"predict.py": "def answer():\n    return 1\n"}), route=GET)
        await first.reported("ready")
    (first.settings.own_dir / "replicas/rep_1/replica.json").write_text("{")
    second = make_platform()
    async with second.host() as host:
        assert second.processes() == []
        assert host.reconciler.reports() == []


def environment_of(platform: Platform) -> Path:
    """Where the one replica that runs has its packages from."""
    (leader,) = platform.leaders()
    return Path(procfs.environment(leader)["VIRTUAL_ENV"])


async def test_the_environment_of_an_adopted_replica_stays_until_it_ends(
    make_platform: MakePlatform,
    make_repository: MakeRepository,
    wheels: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for number in (1, 2, 3):
        wheels("clouds", f"{number}.0")
    first, second = (make_platform(cache_dir=tmp_path / "cache", environments_max=1) for _ in range(2))
    async with first.host():
        first.assign(make_repository({"predict.py": "def answer():\n    return 1\n"}), route=GET)
        await first.reported("ready")
    environment = environment_of(first)
    # As after an upgrade of Python: what the same requirements lead to now is another environment.
    monkeypatch.setattr(environment_module, "python_tag", lambda: "newer")
    second.assignments = dict(first.assignments)
    async with second.host() as host:
        await second.reported("ready")
        for number in (1, 2):
            await host.environments.ensure(f"clouds=={number}.0\n")
        assert (environment / "bin/python").exists()
        second.unassign()
        await second.reported("stopped")
        await host.environments.ensure("clouds==3.0\n")
        assert not environment.exists()


async def test_two_provisioners_on_one_directory_are_refused(make_platform: MakePlatform) -> None:
    first, second = make_platform(), make_platform()
    async with first.host():
        with pytest.raises(DirectoryInUse, match=rf"another provisioner \(pid {os.getpid()}\) works in"):
            async with second.host():
                pass
    async with second.host():
        pass


async def test_helpers_of_a_dead_provisioner_are_ended(make_platform: MakePlatform) -> None:
    platform = make_platform()
    env = {"PENSTOCK_HELPER": str(platform.settings.own_dir), "PATH": os.environ["PATH"]}
    helper = await asyncio.to_thread(subprocess.Popen, ["sleep", "600"], env=env)
    async with platform.host():
        await asyncio.to_thread(helper.wait, 5)
