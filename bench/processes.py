"""Processes under measurement: each on one core, with its processor time and its memory."""

import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READY_S = 120.0
STOP_S = 10.0
PROBE_S = 2.0
LOG_TAIL_BYTES = 600


class Failed(Exception):
    """Something could not be measured; the text says what and why."""


class Cores(NamedTuple):
    """What is measured runs on `candidate`; load generators and upstreams on `load`."""

    candidate: int
    load: int


def prepare() -> Cores:
    """Put this process on the load core, with as many open files as it may have. Raises Failed."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise Failed("two cores are needed: one for what is measured, one for the load")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {usable[1]})
    return Cores(candidate=usable[0], load=usable[1])


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether anybody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PROBE_S).close()
    except OSError:
        return False
    return True


def answers(port: int, request: bytes) -> bool:
    """Whether a request is answered 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_S) as connection:
            connection.sendall(request)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def subfolder(folder: Path, name: str) -> Path:
    """A new folder for the files of one run."""
    made = folder / f"{name}-{time.monotonic_ns()}"
    made.mkdir()
    # nginx serves as another user when we are root.
    made.chmod(0o755)
    return made


def others_cpu_s(ours: Iterable["Child"]) -> float:
    """Processor seconds, since the machine started, of everything but this process, those of its children
    that have ended, and `ours`: the difference of two calls is what disturbed in between."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    everything_s = (user + nice + system + irq + softirq + steal) / TICKS_PER_S
    own = os.times()
    return everything_s - sum(own[:4]) - sum(child.cpu_s() for child in ours)


class Child:
    """A process on one core, and the processes that it starts. Its output goes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
            )

    def wait_ready(self, ready: Callable[[], bool], *, deadline_s: float = READY_S) -> None:
        """Return once `ready()`. Raises Failed, with the end of the log, when it ended or takes too long."""
        end = time.monotonic() + deadline_s
        while not ready():
            if self._process.poll() is not None:
                raise Failed(f"it ended at the start with status {self._process.returncode}: {self._log_tail()}")
            if time.monotonic() > end:
                raise Failed(f"it was not ready within {deadline_s:g} s: {self._log_tail()}")
            time.sleep(0.05)

    def pids(self) -> list[int]:
        """The process and its descendants."""
        return list(_descendants(self._process.pid))

    def cpu_s(self) -> float:
        """Processor seconds of all of them so far, in user mode and in the kernel."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def rss_mb(self) -> float:
        """Resident memory of all of them, in MB of 10^6 bytes."""
        return sum(_status_mb(pid, "VmRSS") for pid in self.pids())

    def forget_peak(self) -> None:
        """Begin anew to note the most memory used."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss_mb(self) -> float:
        """Most resident memory since `forget_peak`, in MB of 10^6 bytes."""
        return sum(_status_mb(pid, "VmHWM") for pid in self.pids())

    def stop(self) -> None:
        """Ask it to end, and make it when it does not."""
        pids = self.pids()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self._process.wait()

    def _log_tail(self) -> str:
        return " ".join(self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").split())


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _descendants(int(child))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _status_mb(pid: int, field: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), 0.0)
