"""The real platform, started and stopped as a person does it: as root, and as an ordinary user."""

import asyncio
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from penstock_launcher import lock, logs
from penstock_launcher.environment import SERVICES
from penstock_launcher.layout import layout_of
from penstock_launcher.postgres import PostgresServer
from penstock_launcher.processes import DATA_DIR, hold
from tests_support import eventually
from tests_support.servers import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PROGRAMS = ("nats", "postgres", *SERVICES)


@dataclass
class Machine:
    """Runs the launcher for one data directory, as one user."""

    folder: Path
    become: tuple[str, ...]

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "DATABASE_"))}
        return {
            **kept,
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "PENSTOCK_HOME": str(self.data_dir),
            "UV_HTTP_TIMEOUT": "61",
        }

    def launcher(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else {"error": done.stderr}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.become, sys.executable, "-m", "penstock_launcher", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=150,
        )

    def begin(self, *program: str, **environment: str) -> "subprocess.Popen[bytes]":
        """A program of the same user in a session of its own, such as a replica is."""
        return subprocess.Popen(
            [*self.become, *program], env={**os.environ, **environment}, start_new_session=True, cwd=self.folder
        )

    def programs(self) -> dict[str, dict[str, Any]]:
        status = json.loads(self.run("status", "--json").stdout)
        return {program["name"]: program for program in status["programs"]}


def _traversable(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def _ordinary_user() -> tuple[str, ...]:
    """Becomes `nobody`; where Python lies below a private folder, with the right to read it there."""
    nobody = pwd.getpwnam("nobody")
    command = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    if not (_traversable(Path(sys.executable)) and _traversable(Path(__file__))):
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return (*command, "--")


@pytest.fixture(params=["whoever runs the tests", "an ordinary user"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    become: tuple[str, ...] = ()
    if request.param == "an ordinary user" and os.geteuid() == 0:
        become = _ordinary_user()
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if become:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        made = Machine(Path(folder), become)
        yield made
        made.run("down")


def until(probe: Callable[[], bool], deadline_s: float) -> None:
    asyncio.run(eventually(probe, deadline_s))


def call(up: dict[str, Any], method: str, path: str, **options: Any) -> Any:
    key = Path(up["api_key_file"]).read_text().strip()
    answer = httpx.request(method, up["api_url"] + path, headers={"Authorization": f"Bearer {key}"}, **options)
    answer.raise_for_status()
    return answer.json()


def knows(pid: int, setting: str) -> bool:
    return setting.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def gpus(up: dict[str, Any]) -> dict[str, int]:
    return {gpu["type"]: gpu["total"] for gpu in call(up, "GET", "/v1/gpus")["gpus"]}


def test_the_platform_starts_mends_itself_stops_and_remembers(machine: Machine) -> None:
    first = machine.launcher("up", "--simulate-gpus", "RTX 4090=4")
    assert not first["already_running"]
    assert gpus(first) == {"RTX 4090": 4}
    assert json.loads(Path(first["config_file"]).read_text()) == {
        "api_url": first["api_url"],
        "api_key_file": first["api_key_file"],
    }
    assert Path(first["api_key_file"]).stat().st_mode & 0o077 == 0
    assert call(first, "GET", "/v1/me")["organization"] == "default"
    assert [name for name, seen in machine.programs().items() if knows(seen["pid"], "UV_HTTP_TIMEOUT=61")] == [
        "provisioner"
    ]
    call(first, "POST", "/v1/workspaces", json={"slug": "kept"})

    second = machine.launcher("up")
    assert second["already_running"]
    assert [second[name] for name in ("gateway_url", "api_url")] == [first[name] for name in ("gateway_url", "api_url")]

    for name in PROGRAMS:
        _comes_back_after_a_kill(machine, name)

    log = machine.data_dir / "logs" / "billing.log"
    with log.open("ab") as full:
        full.truncate(logs.BYTES_MAX)
    until(lambda: log.with_name("billing.log.1").exists() and log.stat().st_size < logs.BYTES_MAX, 30)

    bystander = machine.begin("sleep", "1000", **{DATA_DIR: f"{machine.data_dir}-not"})
    try:
        pids = [program["pid"] for program in machine.programs().values()]
        assert machine.launcher("down")["was_running"]
        assert [pid for pid in pids if _runs(pid)] == []
        assert bystander.poll() is None
        assert machine.launcher("status", code=6)["state"] == "stopped"
        assert not machine.launcher("down")["was_running"]
    finally:
        bystander.kill()
        bystander.wait()

    again = machine.launcher("up")
    assert gpus(again) == {"RTX 4090": 4}
    assert (again["api_url"], again["gateway_url"]) == (first["api_url"], first["gateway_url"])
    assert "kept" in [workspace["slug"] for workspace in call(again, "GET", "/v1/workspaces")["items"]]


def _comes_back_after_a_kill(machine: Machine, name: str) -> None:
    before = machine.programs()[name]
    os.kill(before["pid"], signal.SIGKILL)

    def all_ready() -> bool:
        programs = machine.programs()
        restarted = programs[name]["pid"] not in (None, before["pid"])
        return restarted and {program["state"] for program in programs.values()} == {"ready"}

    until(all_ready, 60)


def test_a_killed_supervisor_leaves_only_replicas_which_down_ends(machine: Machine) -> None:
    machine.launcher("up")
    pids = [program["pid"] for program in machine.programs().values()]
    supervisor = lock.holder(layout_of(machine.data_dir).lock)
    assert supervisor is not None
    replica = machine.begin("sleep", "1000", **{DATA_DIR: str(machine.data_dir)})
    try:
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: [pid for pid in pids if _runs(pid)] == [], 20)
        assert machine.launcher("status", code=6)["state"] == "stopped"
        up = machine.launcher("up")
        assert not up["already_running"]
        assert call(up, "GET", "/v1/me")["organization"] == "default"
        assert replica.poll() is None
        supervisor = lock.holder(layout_of(machine.data_dir).lock)
        assert supervisor is not None
        os.kill(supervisor, signal.SIGKILL)
        down = machine.launcher("down")
        assert not down["was_running"]
        assert down["swept"] >= 1
        assert replica.wait(10) == -signal.SIGTERM
    finally:
        replica.kill()
        replica.wait()


def _runs(pid: int) -> bool:
    held = hold(pid)
    if held is None:
        return False
    os.close(held.descriptor)
    return True


def test_two_starts_at_once_are_one_platform(machine: Machine) -> None:
    with ThreadPoolExecutor() as threads:
        one, other = threads.map(machine.launcher, ("up", "up"))
    assert one["api_url"] == other["api_url"]
    assert call(one, "GET", "/v1/me")["organization"] == "default"


def test_a_stop_ends_a_start_and_a_start_waits_for_a_stop(machine: Machine) -> None:
    layout = layout_of(machine.data_dir)
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(machine.run, "up")
        until(lambda: bool(lock.holder(layout.lock)), 20)
        assert machine.launcher("down")["was_running"]
        assert starting.result().returncode == 1
        assert "stopped while it started" in starting.result().stderr

        machine.launcher("up")
        stopping = threads.submit(machine.launcher, "down")
        until(lambda: machine.launcher("status", code=6)["state"] == "stopping", 20)
        up = machine.launcher("up")
        assert stopping.result()["was_running"]
    assert not up["already_running"]
    assert call(up, "GET", "/v1/me")["organization"] == "default"


def test_a_start_that_fails_says_why_and_leaves_nothing(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = machine.launcher("up", "--gateway-port", str(port), code=1)
    assert f"port {port} for the gateway is taken" in failed["error"]
    # It tells the failure first and leaves then; another `up` waits for that.
    until(lambda: lock.holder(layout_of(machine.data_dir).lock) is None, 10)


def test_an_external_postgres_is_used_and_none_is_started(machine: Machine) -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        external = PostgresServer(Path(folder) / "postgres", port=free_port())
        external.start()
        try:
            up = machine.launcher("up", "--database-url", external.url)
            assert call(up, "GET", "/v1/me")["organization"] == "default"
            assert set(machine.programs()) == {"nats", *SERVICES}
            machine.launcher("down")
            assert external.process is not None
            assert external.process.poll() is None
        finally:
            external.stop()
