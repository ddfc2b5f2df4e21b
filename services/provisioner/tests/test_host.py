"""Replicas as their users see them: real processes, real model code, from assignment to end."""

import asyncio
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from penstock_common.contracts.endpoint import PinnedSource, RouteSpec
from penstock_provisioner.drivers.process import procfs
from tests_support import eventually

from .conftest import ECHO, MakePlatform, MakeRepository, Platform

GET = RouteSpec(verb="GET", path="/answer", file="predict", function="answer")


async def call(address: str | None, path: str, body: object = None) -> Any:
    def request() -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://{address}{path}", data, timeout=10) as response:
            return json.load(response)

    return await asyncio.to_thread(request)


async def test_an_assignment_becomes_a_replica_that_answers(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host():
        platform.assign(make_repository(ECHO))
        ready = await platform.reported("ready")
        assert await call(ready.address, "/predict", {"features": [1, 2, 3]}) == {"count": 3}
        assert platform.phases() == ["fetching", "installing", "starting", "ready"]
        assert [report.sequence for report in platform.reports] == [1, 2, 3, 4]
        assert {report.generation for report in platform.reports} == {1}


async def test_a_replica_that_is_no_longer_assigned_is_stopped_and_leaves_nothing(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host() as host:
        platform.assign(make_repository(ECHO))
        await platform.reported("ready")
        platform.unassign()
        stopped = await platform.reported("stopped")
        assert stopped.cause == "stopped"
        assert platform.processes() == []
        directory = platform.settings.own_dir / "replicas/rep_1"
        await eventually(lambda: [entry.name for entry in directory.iterdir()] == ["replica.json"])
        for _ in range(5):
            host.reconciler.beat()
        await eventually(lambda: not directory.exists())
        assert host.reconciler.reports() == []


async def test_the_last_report_is_repeated_until_its_end_was_in_five_heartbeats(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host() as host:
        platform.assign(make_repository({"predict.py": "raise SystemExit(3)"}))
        await platform.reported("failed")
        for _ in range(9):
            host.reconciler.beat()
            host.reconciler.step()
        assert [report.phase for report in host.reconciler.reports()] == ["failed"]
        platform.unassign()
        for beats in range(1, 6):
            host.reconciler.step()
            assert len(host.reconciler.reports()) == 1, beats
            host.reconciler.beat()
        host.reconciler.step()
        assert host.reconciler.reports() == []


async def test_nothing_is_stopped_while_it_is_not_known_what_is_wanted(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host() as host:
        platform.assign(make_repository(ECHO))
        await platform.reported("ready")
        platform.knows_assignments = False
        platform.assignments.clear()
        host.reconciler.step()
        host.reconciler.beat()
        assert not host.reconciler.known()["rep_1"].stopping
        platform.knows_assignments = True
        platform.wake()
        await platform.reported("stopped")


async def test_a_snapshot_that_comes_in_pieces_stops_nothing(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host() as host:
        assignment = platform.assign(make_repository(ECHO))
        await platform.reported("ready")
        platform.assignments.clear()
        host.reconciler.step()
        platform.assignments["rep_1"] = assignment
        host.reconciler.step()
        assert host.reconciler.known()["rep_1"].absent_s == 0
        assert not host.reconciler.known()["rep_1"].stopping


async def test_reports_and_logs_wait_while_the_platform_is_away(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host() as host:
        platform.is_reachable = False
        platform.assign(make_repository({"predict.py": "print('loaded')\n" + ECHO["predict.py"]}))
        await eventually(lambda: host.reconciler.reports() and host.reconciler.reports()[0].phase == "ready", 30)
        assert platform.reports == []
        platform.is_reachable = True
        await platform.reported("ready")
        assert platform.phases() == ["fetching", "installing", "starting", "ready"]
        await eventually(lambda: "loaded" in platform.texts())


async def test_the_environment_of_a_replica_holds_nothing_of_the_platform(
    platform: Platform, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_NATS_PASSWORD", "secret-of-the-platform")
    monkeypatch.setenv("UV_INDEX_PASSWORD", "secret-of-the-index")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret-of-the-proxy@127.0.0.1:9")
    code = "import os\ndef answer():\n    return dict(os.environ) | {'cwd': os.getcwd()}\n"
    async with platform.host():
        platform.assign(
            make_repository({"predict.py": code}),
            route=GET,
            gpu_uuids=("GPU-a", "GPU-b"),
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        ready = await platform.reported("ready")
        found = await call(ready.address, "/answer")
    directory = str(platform.settings.own_dir / "replicas/rep_1")
    assert "secret" not in json.dumps(found)
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert found["TRACEPARENT"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert found["PENSTOCK_REPLICA"] == "rep_1"
    assert found["PENSTOCK_DATA_DIR"] == str(platform.settings.data_dir)
    assert found["PYTHONUNBUFFERED"] == "1"
    assert [found["cwd"], found["HOME"], found["TMPDIR"]] == [
        f"{directory}/{name}" for name in ("source", "home", "tmp")
    ]
    assert {name for name in found if name.startswith("PENSTOCK_")} == {
        "PENSTOCK_REPLICA",
        "PENSTOCK_ADDRESS",
        "PENSTOCK_DATA_DIR",
        "PENSTOCK_HOST_DIR",
    }


async def test_a_replica_without_gpus_sees_none(platform: Platform, make_repository: MakeRepository) -> None:
    code = "import os\ndef answer():\n    return os.environ['CUDA_VISIBLE_DEVICES']\n"
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}), route=GET)
        assert await call((await platform.reported("ready")).address, "/answer") == ""


async def test_a_replica_has_limits_and_a_session_of_its_own(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    platform = make_platform(replica_open_files_max=512, replica_nice=7)
    code = (
        "import os, resource\n"
        "def answer():\n"
        "    return [resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_CORE)[0],\n"
        "            os.nice(0), os.getsid(0), sorted(os.listdir('/proc/self/fd'))]\n"
    )
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}), route=GET)
        files, core, nice, session, _ = await call((await platform.reported("ready")).address, "/answer")
        assert [files, core, nice, [session]] == [512, 0, 7, platform.leaders()]


async def test_files_of_the_model_may_be_named_like_modules_of_python(
    platform: Platform, make_repository: MakeRepository
) -> None:
    files = {**ECHO, "json.py": "raise RuntimeError('not the real one')", "uvicorn.py": "raise RuntimeError"}
    async with platform.host():
        platform.assign(make_repository(files))
        await platform.reported("ready")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import no_such_package_here\n", "no_such_package_here"),
        ("raise ValueError('weights are missing')\n", "weights are missing"),
        ("import sys\nsys.exit(5)\n", "exit"),
    ],
)
async def test_a_model_that_cannot_be_loaded_fails_with_its_reason(
    platform: Platform, make_repository: MakeRepository, code: str, says: str
) -> None:
    async with platform.host():
        platform.assign(make_repository({"predict.py": code + ECHO["predict.py"]}))
        failed = await platform.reported("failed")
        assert (failed.cause, failed.exit_code) == ("start_failed", 3)
        assert says in failed.detail
        assert failed.log_tail
        assert platform.processes() == []


async def test_a_model_that_ends_its_process_while_loading_fails_with_the_exit_code(
    platform: Platform, make_repository: MakeRepository
) -> None:
    code = "import os\nprint('about to leave')\nos._exit(7)\n"
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}))
        failed = await platform.reported("failed")
        assert (failed.cause, failed.exit_code) == ("start_failed", 7)
        assert failed.detail == (
            "the model's process ended by itself with exit code 7 before it was ready; its last output: about to leave"
        )


async def test_a_model_that_hangs_while_loading_times_out(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    platform = make_platform(ready_timeout_s=1)
    code = "import time\nprint('downloading')\ntime.sleep(600)\n"
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}))
        failed = await platform.reported("failed")
        assert failed.cause == "start_timeout"
        assert "did not become ready within 1 s" in failed.detail
        assert failed.detail.endswith("its last output: downloading")
        assert platform.processes() == []


async def test_a_replica_that_crashes_when_ready_fails_with_the_end_of_its_log(
    platform: Platform, make_repository: MakeRepository
) -> None:
    code = "import os\ndef answer():\n    print('out of ideas')\n    os._exit(9)\n"
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}), route=GET)
        ready = await platform.reported("ready")
        with pytest.raises(OSError, match=r"."):
            await call(ready.address, "/answer")
        failed = await platform.reported("failed")
        assert (failed.cause, failed.exit_code) == ("crashed", 9)
        assert failed.log_tail.splitlines()[-1] == "out of ideas"
        await eventually(lambda: "out of ideas" in platform.texts())


async def test_a_segmentation_fault_is_named(platform: Platform, make_repository: MakeRepository) -> None:
    code = "import os, signal\ndef answer():\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}), route=GET)
        ready = await platform.reported("ready")
        with pytest.raises(OSError, match=r"."):
            await call(ready.address, "/answer")
        failed = await platform.reported("failed")
        assert (failed.cause, failed.exit_code) == ("crashed", 128 + signal.SIGSEGV)
        assert "SIGSEGV" in failed.detail
        assert "Segmentation" not in failed.log_tail  # which is the shell's word, not the model's


async def test_a_kill_from_outside_is_not_called_lack_of_memory(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host():
        platform.assign(make_repository(ECHO))
        await platform.reported("ready")
        (leader,) = platform.leaders()
        for pid in platform.processes():
            if pid != leader:
                os.kill(pid, signal.SIGKILL)
        failed = await platform.reported("failed")
        assert (failed.cause, failed.exit_code) == ("crashed", 137)
        assert "not by Penstock" in failed.detail


async def test_a_replica_killed_with_its_whole_group_is_noticed(
    platform: Platform, make_repository: MakeRepository
) -> None:
    async with platform.host():
        platform.assign(make_repository(ECHO))
        await platform.reported("ready")
        os.killpg(platform.leaders()[0], signal.SIGKILL)
        failed = await platform.reported("failed")
        assert (failed.cause, failed.exit_code) == ("crashed", 137)


async def test_a_replica_that_no_longer_answers_is_killed(platform: Platform, make_repository: MakeRepository) -> None:
    async with platform.host():
        platform.assign(make_repository(ECHO))
        await platform.reported("ready")
        for pid in platform.processes():
            os.kill(pid, signal.SIGSTOP)
        failed = await platform.reported("failed")
        assert failed.cause == "unresponsive"
        assert platform.processes() == []


async def test_a_replica_that_ignores_sigterm_is_killed_after_its_grace(
    make_platform: MakePlatform, make_repository: MakeRepository
) -> None:
    platform = make_platform(stop_grace_s=0.5)
    code = (
        "import threading, time, signal\n"
        "def ignore():\n"
        "    import ctypes\n"
        "    libc = ctypes.CDLL(None)\n"
        "    while True:\n"
        "        libc.signal(15, 1)\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=ignore, daemon=True).start()\n" + ECHO["predict.py"]
    )
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}))
        await platform.reported("ready")
        platform.unassign()
        stopped = await platform.reported("stopped")
        assert stopped.cause == "stopped"
        assert stopped.detail == "it did not stop within 0.5 s and was killed"
        assert platform.processes() == []


async def test_children_that_left_the_group_and_hid_are_ended_too(
    platform: Platform, make_repository: MakeRepository
) -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], env={})\n" + ECHO["predict.py"]
    )
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}))
        await platform.reported("ready")
        (leader,) = [pid for pid in platform.leaders() if (procfs.environment(pid).get("PENSTOCK_ADDRESS"))][:1]
        in_session = [pid for pid in procfs.pids() if (stat := procfs.stat(pid)) and stat.session == leader]
        assert len(in_session) == 4  # the shell, the replica, and the two that stayed in its session
        assert len(platform.processes()) == 4  # the one without an environment shows no marks
        platform.unassign()
        await platform.reported("stopped")
        assert platform.processes() == []
        left = [procfs.stat(pid) for pid in in_session]
        assert not any(stat.is_alive for stat in left if stat)


async def test_a_replica_is_stopped_in_the_middle_of_being_prepared(
    platform: Platform, make_repository: MakeRepository, wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # An index that takes connections and never answers.
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{silent.getsockname()[1]}/index")
        async with platform.host():
            platform.assign(make_repository(ECHO), requirements="penstock-no-such-package==1.0\n")
            await platform.reported("installing")
            platform.unassign()
            assert (await platform.reported("stopped")).cause == "stopped"
            assert platform.processes() == []


async def test_binary_output_becomes_text(platform: Platform, make_repository: MakeRepository) -> None:
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 100 + b'\\n')\n" + ECHO["predict.py"]
    async with platform.host():
        platform.assign(make_repository({"predict.py": code}))
        await platform.reported("ready")
        await eventually(lambda: len(platform.texts()) > 1)
        text = "".join(platform.texts())
        assert "\\x00" in text
        assert "\x00" not in text
        assert "\x1b" not in text


async def test_a_source_that_is_gone_fails_the_replica(platform: Platform, make_repository: MakeRepository) -> None:
    repository = make_repository(ECHO)
    async with platform.host():
        pinned = PinnedSource(uri=repository.uri, ref="main", commit="0" * 40, requirements="")
        platform.assign(repository, source=pinned)
        failed = await platform.reported("failed")
        assert failed.cause == "source_unavailable"
        assert "0000000" in failed.detail


async def test_packages_that_cannot_be_had_fail_the_replica(
    platform: Platform, make_repository: MakeRepository, wheels: Callable[..., None]
) -> None:
    async with platform.host():
        platform.assign(make_repository(ECHO), requirements="penstock-no-such-package==1.0\n")
        failed = await platform.reported("failed")
        assert failed.cause == "install_failed"
        assert "penstock-no-such-package" in failed.detail


async def test_each_replica_has_its_own_copy_of_the_source(platform: Platform, make_repository: MakeRepository) -> None:
    code = (
        "import pathlib\n"
        "def answer():\n"
        "    note = pathlib.Path('note.txt')\n"
        "    seen = note.exists()\n"
        "    note.write_text('x')\n"
        "    pathlib.Path('predict.py').write_text('')\n"
        "    return seen\n"
    )
    repository = make_repository({"predict.py": code})
    async with platform.host():
        for replica_id in ("rep_1", "rep_2"):
            platform.assign(repository, replica_id, route=GET)
            ready = await platform.reported("ready", replica_id)
            assert await call(ready.address, "/answer") is False


async def test_an_assignment_for_another_host_or_with_a_hostile_id_is_left_alone(
    platform: Platform, make_repository: MakeRepository
) -> None:
    repository = make_repository(ECHO)
    async with platform.host() as host:
        platform.assign(repository, "rep_1", host_id="another-host")
        platform.assign(repository, "../../escape")
        host.reconciler.step()
        assert host.reconciler.known() == {}


async def test_leaving_ends_every_replica_and_says_why(platform: Platform, make_repository: MakeRepository) -> None:
    repository = make_repository(ECHO)
    async with platform.host() as host:
        for replica_id in ("rep_1", "rep_2"):
            platform.assign(repository, replica_id)
        for replica_id in ("rep_1", "rep_2"):
            await platform.reported("ready", replica_id)
        await host.reconciler.stop_all(grace_s=3)
        await host.reporter.drained()
        assert [(await platform.reported("stopped", one)).cause for one in ("rep_1", "rep_2")] == ["host_left"] * 2
        assert platform.processes() == []
        platform.assign(repository, "rep_3")
        host.reconciler.step()
        assert "rep_3" not in host.reconciler.known()
    async with platform.host() as host:
        # Still assigned, but ended for good: the scheduler replaces it.
        del platform.assignments["rep_3"]
        host.reconciler.step()
        assert platform.processes() == []
        assert {report.cause for report in host.reconciler.reports()} == {"host_left"}
