"""Finds and ends the processes that belong to one data directory, and no others.

Every process of the platform carries PENSTOCK_DATA_DIR in its environment, replicas included. Those
that a supervisor starts itself also carry PENSTOCK_PROCESS, which replicas do not.
"""

import contextlib
import os
import pwd
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

DATA_DIR = "PENSTOCK_DATA_DIR"
PROCESS = "PENSTOCK_PROCESS"
_PROC = Path("/proc")
_KILL_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """A process, held by a descriptor: signals reach it and never another that took over its number."""

    pid: int
    descriptor: int

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def wait(self, wait_s: float) -> bool:
        """Whether it ended within `wait_s`."""
        return bool(select.select([self.descriptor], [], [], max(0.0, wait_s))[0])


def hold(pid: int) -> Found | None:
    """The process `pid`, or None when it is gone. The caller closes the descriptor."""
    try:
        return Found(pid, os.pidfd_open(pid))
    except ProcessLookupError:
        return None


def sweep(data_dir: Path, *, grace_s: float, supervised_only: bool = False) -> int:
    """End what belongs to `data_dir`: SIGTERM, then SIGKILL after `grace_s`. Returns how many it ended.

    With `supervised_only`, replicas are left running. The caller and its own parents are never
    touched, nor is a process that has a terminal: a person started that one, from a shell that
    happens to have the variable set.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + grace_s + _KILL_WAIT_S
    while time.monotonic() < deadline:
        with ExitStack() as stack:
            found = list(_belonging(data_dir, stack, supervised_only=supervised_only))
            # Again until none is left: one that we ended may just have started another.
            if not found:
                break
            _end(found, grace_s if not ended else 0.0)
            ended.update(process.pid for process in found)
    return len(ended)


def _end(found: Sequence[Found], grace_s: float) -> None:
    for process in found:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    stubborn = [process for process in found if not process.wait(deadline - time.monotonic())]
    for process in stubborn:
        process.send(signal.SIGKILL)
    deadline = time.monotonic() + _KILL_WAIT_S
    for process in stubborn:
        process.wait(deadline - time.monotonic())


def _belonging(data_dir: Path, stack: ExitStack, *, supervised_only: bool) -> Iterator[Found]:
    spared = _own_line()
    users = _users()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        process = hold(int(entry.name))
        if process is None:
            continue
        # Held before it is looked at: what is read is about the process that will be signalled.
        if _is_ours(entry, data_dir, users, supervised_only=supervised_only):
            stack.callback(os.close, process.descriptor)
            yield process
        else:
            os.close(process.descriptor)


def _is_ours(entry: Path, data_dir: Path, users: frozenset[int], *, supervised_only: bool) -> bool:
    try:
        if entry.stat().st_uid not in users or _has_terminal(entry):
            return False
        environment = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    if f"{DATA_DIR}={data_dir}".encode() not in environment:
        return False
    return not supervised_only or any(line.startswith(f"{PROCESS}=".encode()) for line in environment)


def _has_terminal(entry: Path) -> bool:
    # The fields after the program's name, which is in parentheses and may hold anything.
    return (entry / "stat").read_text().rpartition(")")[2].split()[4] != "0"


def _users() -> frozenset[int]:
    """Us; and, when we are root, the user that PostgreSQL runs as."""
    own = os.geteuid()
    return frozenset({own, pwd.getpwnam("nobody").pw_uid} if own == 0 else {own})


def _own_line() -> frozenset[int]:
    """This process and those above it."""
    line = {os.getpid()}
    pid = os.getppid()
    while pid > 0 and pid not in line:
        line.add(pid)
        try:
            pid = int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return frozenset(line)
