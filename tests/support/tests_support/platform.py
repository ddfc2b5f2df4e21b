"""The whole platform as real processes in a folder of its own, and what is needed to hurt it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
from nats.aio.client import Client

from penstock import AsyncPenstock
from penstock_launcher import commands, report
from penstock_launcher.layout import layout_of
from penstock_launcher.nats import ADMIN
from penstock_launcher.options import UpOptions
from tests_support.servers import free_port
from tests_support.waiting import eventually

EXAMPLES = Path(__file__).parents[3] / "examples"


class Platform:
    """Started with `up`; `kill` ends one of its programs the hard way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self._gateway_port, self._api_port = free_port(), free_port()
        self._up: commands.Up | None = None

    def up(self, *, simulate_gpus: str | None = None, otlp_endpoint: str | None = None) -> None:
        options = UpOptions(
            data_dir=self.data_dir,
            simulate_gpus=simulate_gpus,
            otlp_endpoint=otlp_endpoint,
            gateway_port=self._gateway_port,
            api_port=self._api_port,
        )
        self._up = commands.up(options, lambda _: None)

    def down(self) -> None:
        commands.down(self.data_dir, lambda _: None)

    @property
    def api_url(self) -> str:
        return self._started().api_url

    @property
    def api_key(self) -> str:
        """The key of the first organization's owner."""
        return self._started().api_key()

    def client(self, api_key: str | None = None) -> AsyncPenstock:
        """A client with the owner's key, or with another."""
        return AsyncPenstock(api_url=self.api_url, api_key=api_key or self.api_key)

    def _started(self) -> commands.Up:
        if self._up is None:
            raise RuntimeError("the platform is not up")
        return self._up

    def pid(self, program: str) -> int | None:
        """The program's process now; None while it is being started again."""
        found = report.read(layout_of(self.data_dir).report)
        return next((p.pid for p in found.programs if p.name == program), None) if found else None

    def send_signal(self, program: str, number: signal.Signals) -> None:
        """Send a signal to a program that runs."""
        pid = self.pid(program)
        if pid is not None:
            os.kill(pid, number)

    async def ready(self, deadline_s: float = 60) -> None:
        """Wait until every program says that it is ready."""
        await eventually(lambda: asyncio.to_thread(lambda: commands.status(self.data_dir).healthy), deadline_s)

    def kill_everything(self) -> None:
        """Every process of this data directory at once, as when the machine loses power."""
        for pid in self.processes():
            self.kill_pid(pid, signal.SIGKILL)

    @staticmethod
    def kill_pid(pid: int, number: signal.Signals) -> None:
        """Signal a process that may be gone by now."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def processes(self) -> list[int]:
        """Everything that was started for this data directory."""
        mark = f"PENSTOCK_DATA_DIR={self.data_dir}".encode()
        return [pid for pid, environment in _environments() if mark in environment]

    def replicas_running(self) -> dict[str, list[int]]:
        """Replica → the model servers that run for it."""
        found: dict[str, list[int]] = {}
        mark = f"PENSTOCK_DATA_DIR={self.data_dir}".encode()
        for pid, environment in _environments():
            replica = next((v[17:].decode() for v in environment if v.startswith(b"PENSTOCK_REPLICA=")), None)
            if mark in environment and replica is not None and _is_model_server(pid):
                found.setdefault(replica, []).append(pid)
        return found

    async def nats_admin(self) -> Client:
        """A connection to its NATS that may do everything; the caller closes it."""
        state = json.loads((self.data_dir / "state.json").read_text())
        port = state["ports"]["nats"]
        return await nats.connect(
            f"nats://127.0.0.1:{port}",
            user=ADMIN,
            password=state["passwords"][ADMIN],
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,
        )

    def repository(self, example: str) -> str:
        """One of the examples, as the git repository that a user would have."""
        folder = self.folder / "repositories" / example
        if not folder.exists():
            shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("__pycache__"))
            git = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@localhost"]
            for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "A model"]):
                subprocess.run([*git, *arguments], check=True, capture_output=True)
        return str(folder)

    def routes(self, example: str) -> list[dict[str, object]]:
        """The routes that the example's README gives."""
        found: list[dict[str, object]] = json.loads((EXAMPLES / example / "routes.json").read_text())
        return found


@contextmanager
def platform(*, simulate_gpus: str | None = None, otlp_endpoint: str | None = None) -> Iterator[Platform]:
    """A platform of its own, with nothing left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-platform-"))
    # Not private: as root, PostgreSQL runs as another user, who must reach its data.
    folder.chmod(0o755)
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    made = Platform(folder)
    try:
        made.up(simulate_gpus=simulate_gpus, otlp_endpoint=otlp_endpoint)
        yield made
    finally:
        try:
            made.down()
        finally:
            if before is None:
                del os.environ["XDG_CONFIG_HOME"]
            else:
                os.environ["XDG_CONFIG_HOME"] = before
            shutil.rmtree(folder, ignore_errors=True)


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue


def _is_model_server(pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return arguments[0].endswith(b"python") and b"penstock_runtime" in arguments
