"""Settings, files, locks, heartbeats and pings: the small parts."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from penstock_common.contracts.events import ReplicaReported
from penstock_common.contracts.heartbeat import Heartbeat, Inventory
from penstock_provisioner import probing, reporting
from penstock_provisioner.domain import Replica
from penstock_provisioner.drivers.process.runtime_copy import copy_runtime, remove_other_copies
from penstock_provisioner.files import remove_tree, write_atomically
from penstock_provisioner.journal import DirectoryInUse, Journal, locked
from penstock_provisioner.reporting import Reporter, heartbeat, heartbeat_wait_s
from penstock_provisioner.settings import ProvisionerSettings
from penstock_provisioner.threads import in_thread

from .conftest import MakeRepository, Platform

# --- settings ---------------------------------------------------------------------------------


def test_one_directory_is_enough_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_HOST_ID", "gpu-1")
    settings = ProvisionerSettings()
    assert settings.own_dir == tmp_path / "hosts/gpu-1"
    assert settings.own_cache_dir == tmp_path / "hosts/gpu-1/cache"
    monkeypatch.setenv("PENSTOCK_HOST_DIR", "/srv/penstock")
    assert ProvisionerSettings().own_cache_dir == Path("/srv/penstock/cache")


@pytest.mark.parametrize("values", [{"host_id": "Host 1"}, {"host_id": "a.b"}, {"host_id": ""}, {"simulate_gpus": "x"}])
def test_settings_that_would_fail_later_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ProvisionerSettings(**values)  # type: ignore[arg-type]


def test_the_grace_at_exit_leaves_time_to_say_so() -> None:
    assert ProvisionerSettings(stop_grace_s=30, shutdown_grace_s=10).stop_grace_on_exit_s == 8
    assert ProvisionerSettings(stop_grace_s=3, shutdown_grace_s=10).stop_grace_on_exit_s == 3


# --- files ------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"one")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_trees_without_the_right_to_write_are_removed_too(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").touch()
    os.symlink("/etc", root / "a/link")
    for folder in (root / "a/b", root / "a", root):
        folder.chmod(0o500)
    remove_tree(root)
    remove_tree(root)
    assert not root.exists()


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    with locked(tmp_path / "own"), pytest.raises(DirectoryInUse, match=f"pid {os.getpid()}"), locked(tmp_path / "own"):
        pass
    with locked(tmp_path / "own"):
        pass


def test_nobody_else_may_look_into_a_hosts_directory(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o755)
    with locked(tmp_path / "own"):
        assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path, make_replica: Callable[..., Replica]) -> None:
    journal = Journal(tmp_path / "replicas")
    replica = make_replica()
    journal.save(replica)
    (tmp_path / "replicas/rep_2").mkdir()
    (tmp_path / "replicas/rep_3").mkdir()
    (tmp_path / "replicas/rep_3/replica.json").write_text('{"assignment": 1}')
    assert Journal(tmp_path / "replicas").load() == ([replica], ["rep_2", "rep_3"])
    journal.forget(replica.id)
    assert journal.load()[0] == []


@pytest.fixture
def make_replica(platform: Platform, make_repository: MakeRepository) -> Callable[..., Replica]:
    def make() -> Replica:
        repository = make_repository({"predict.py": ""})
        return Replica(platform.assign(repository)).reported("ready", address="127.0.0.1:1")

    return make


def test_the_copied_runtime_is_the_runtime_alone(tmp_path: Path) -> None:
    copy = copy_runtime(tmp_path)
    assert [path.name for path in copy.iterdir()] == ["penstock_runtime"]
    assert (copy / "penstock_runtime/__main__.py").is_file()
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".pyc"}
    assert [path for path in (copy, *copy.rglob("*")) if path.stat().st_mode & 0o222] == []
    assert copy_runtime(tmp_path) == copy
    (tmp_path / "older").mkdir()
    remove_other_copies(tmp_path, copy)
    assert list(tmp_path.iterdir()) == [copy]


async def test_a_thread_is_waited_for_even_when_nobody_wants_it_any_more() -> None:
    loop, started, finished = asyncio.get_running_loop(), asyncio.Event(), []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        for _ in range(100):
            os.stat("/")
        finished.append(True)

    task = asyncio.create_task(in_thread(work))
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert finished


async def test_a_thread_is_waited_for_however_often_we_are_cancelled() -> None:
    loop, started, release, finished = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait(10)
        finished.append(True)

    task = asyncio.create_task(in_thread(work))
    await started.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    release.set()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert finished


# --- reports ----------------------------------------------------------------------------------


def report(number: int = 1, log_tail: str = "") -> ReplicaReported:
    return ReplicaReported(
        host_id="h",
        replica_id=f"rep_{number}",
        endpoint_id="ep_1",
        generation=1,
        sequence=number,
        phase="failed",
        log_tail=log_tail,
    )


NOTHING = Inventory(cpu_cores=1, memory_gb=1, disk_gb=1, gpus=())


def test_a_heartbeat_repeats_every_report() -> None:
    reports = [report(1, "tail"), report(2)]
    beat = heartbeat(host_id="h", boot_id="b", driver="process", inventory=NOTHING, reports=reports, leaving=True)
    assert Heartbeat.model_validate_json(beat).reports == tuple(reports)
    assert Heartbeat.model_validate_json(beat).leaving


def test_a_heartbeat_that_would_not_fit_leaves_out_the_logs() -> None:
    reports = [report(number, "x" * 4000) for number in range(1000)]
    beat = heartbeat(host_id="h", boot_id="b", driver="process", inventory=NOTHING, reports=reports, leaving=False)
    assert len(beat) < 512 * 1024
    assert len(Heartbeat.model_validate_json(beat).reports) == 1000


def test_heartbeats_come_fast_after_a_connection_was_made_and_then_as_often_as_asked_for() -> None:
    assert [heartbeat_wait_s(connected_s, 2.0) for connected_s in (0.0, 0.25, 3.0, 4.9)] == [0.25] * 4
    assert [heartbeat_wait_s(connected_s, 2.0) for connected_s in (5.0, 60.0)] == [2.0] * 2
    assert heartbeat_wait_s(0.0, 0.1) == 0.1


async def test_reports_are_bounded_while_nobody_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_RETRY_S_FIRST", 0.001)
    sent: list[int] = []
    away = True

    async def publish(one: ReplicaReported, _traceparent: str | None) -> None:
        if away:
            raise ConnectionError
        sent.append(one.sequence)

    reporter = Reporter(publish)
    task = asyncio.create_task(reporter.run())
    for number in range(10_005):
        reporter.report(report(number), None)
    await asyncio.sleep(0)
    away = False
    await reporter.drained()
    assert sent == list(range(5, 10_005))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_report_says_how_old_it_is_whenever_it_is_sent() -> None:
    now_s, sent = 100.0, []

    async def publish(said: ReplicaReported, _: str | None) -> None:
        sent.append((said.sequence, said.age_s))

    reporter = Reporter(publish, clock=lambda: now_s)
    first, second = report(1), report(2)
    reporter.report(first, None)
    now_s = 101.0
    reporter.report(second, None)
    now_s = 103.0
    task = asyncio.create_task(reporter.run())
    await reporter.drained()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sent == [(1, 3.0), (2, 2.0)]
    assert [said.age_s for said in reporter.repeated([second])] == [2.0]
    now_s = 105.5
    assert [said.age_s for said in reporter.repeated([second])] == [4.5]


async def test_the_age_of_a_report_from_before_a_restart_counts_from_the_restart() -> None:
    now_s = 100.0

    async def publish(said: ReplicaReported, _: str | None) -> None:
        raise AssertionError("nothing is to be sent")

    reporter = Reporter(publish, clock=lambda: now_s)
    assert [said.age_s for said in reporter.repeated([report(7)])] == [0.0]
    now_s = 102.0
    assert [said.age_s for said in reporter.repeated([report(7)])] == [2.0]


# --- pings ------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(*answers: bytes | None) -> AsyncIterator[str]:
    """A server that gives these answers in turn, the last for ever; None is silence."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = left.pop(0) if len(left) > 1 else left[0]
        if found is None:
            await reader.read()
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(found)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LOADING = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "well"),
    [(OK, True), (LOADING, False), (b"", False), (b"\r\n", False), (b"x" * 9000, False), (None, False)],
)
async def test_only_a_200_in_time_is_a_good_answer(answer: bytes | None, well: bool) -> None:
    async with answering(answer) as address:
        assert await probing.ping(address, timeout_s=0.3) is well


async def test_nobody_listening_is_no_good_answer() -> None:
    assert not await probing.ping("127.0.0.1:1", timeout_s=0.3)


async def test_ready_comes_with_the_first_good_answer() -> None:
    async with answering(LOADING, b"", LOADING, OK) as address:
        await asyncio.wait_for(probing.until_ready(address), 5)


async def test_misses_count_only_in_a_row() -> None:
    async with answering(OK, LOADING, LOADING, OK, LOADING, LOADING, LOADING) as address:
        watching = probing.until_unresponsive(address, interval_s=0.01, timeout_s=0.2, misses=3)
        await asyncio.wait_for(watching, 5)


def test_state_on_disk_says_what_operators_look_for(tmp_path: Path, make_replica: Callable[..., Replica]) -> None:
    journal = Journal(tmp_path / "replicas")
    journal.save(make_replica())
    document: dict[str, Any] = json.loads((tmp_path / "replicas/rep_1/replica.json").read_text())
    assert document["report"]["phase"] == "ready"
    assert document["assignment"]["endpoint_id"] == "ep_1"
