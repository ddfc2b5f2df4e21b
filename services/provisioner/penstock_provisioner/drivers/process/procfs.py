"""Processes as the kernel shows them in /proc, held so that a reused number is never mistaken."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_provisioner.waiting import readable

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """Fields of /proc/<pid>/stat. `start_ticks` tells two processes with the same number apart."""

    state: str
    session: int
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        # A zombie has ended; its parent, perhaps a PID 1 that never waits, may leave it for ever.
        return self.state not in "ZX"


def boot_id() -> str:
    """Changes whenever the machine boots."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def oom_kills() -> int | None:
    """Processes that the kernel killed for lack of memory since boot; None where it does not count."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def stat(pid: int) -> ProcessStat | None:
    """None when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return ProcessStat(state=fields[0], session=int(fields[3]), start_ticks=int(fields[19]))


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty when it is gone or not ours to look into."""
    try:
        block = (_PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = (entry.partition(b"=") for entry in block.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


class Held:
    """One process, by a descriptor: signals reach it and never another that took its number.

    It may have ended, and be there only because nobody has waited for it.
    """

    def __init__(self, pid: int, descriptor: int, *, is_alive: bool) -> None:
        self.pid = pid
        self.is_alive = is_alive
        self._descriptor = descriptor

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def send_group(self, number: signal.Signals) -> None:
        """Signal its process group, which it must lead. While it is there, even dead, the number is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def ended(self) -> int | None:
        """Wait for its end; the exit code as a shell gives it if it was our own child, else None."""
        await readable(self._descriptor)
        return self._reap()

    def _reap(self) -> int | None:
        try:
            result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


@contextlib.contextmanager
def hold(pid: int, start_ticks: int | None = None) -> Iterator[Held | None]:
    """The process, if it is there and (when given) started at that time; else None."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Looked at after it is held: what is read is about the very process that is held.
        found = stat(pid)
        if found is None or start_ticks not in (None, found.start_ticks):
            yield None
        else:
            yield Held(pid, descriptor, is_alive=found.is_alive)
    finally:
        os.close(descriptor)


async def kill_all(find: "Finder", deadline_s: float) -> int:
    """SIGKILL what `find` finds, again until it finds nothing. Returns how many were killed.

    Raises TimeoutError when something is still there after `deadline_s`, as a process that waits for
    broken hardware is.
    """
    killed: set[int] = set()
    async with asyncio.timeout(deadline_s):
        while found := [pid for pid in pids() if find(pid)]:
            for pid in found:
                with hold(pid) as held:
                    if held is not None and find(pid):
                        held.send(signal.SIGKILL)
                        await held.ended()
                        killed.add(pid)
    return len(killed)


class Finder:
    """Whether a process belongs to what is being ended: by the marks in its environment, or by session.

    The session catches programs that overwrite their environment. It is named by its leader's number
    and start: with another process of that number alive, it is another session.
    """

    def __init__(self, marks: Mapping[str, str], *, leader: tuple[int, int] | None = None) -> None:
        self._marks = marks
        self._leader = leader

    def __call__(self, pid: int) -> bool:
        found = stat(pid)
        if pid == os.getpid() or found is None or not found.is_alive:
            return False
        return self._is_in_session(found) or self._marks.items() <= environment(pid).items()

    def _is_in_session(self, found: ProcessStat) -> bool:
        if self._leader is None or found.session != self._leader[0]:
            return False
        leader = stat(self._leader[0])
        return leader is None or leader.start_ticks == self._leader[1]
