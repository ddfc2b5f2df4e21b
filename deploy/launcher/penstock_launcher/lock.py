"""One supervisor for each data directory, known by a lock that the kernel drops when it dies."""

import fcntl
import os
import struct
import time
from pathlib import Path

_FLOCK = "hhqqi"
"""struct flock of 64-bit Linux: type, whence, start, length, process."""
_PF_EXITING = 0x4
"""Flag of a process in /proc/<pid>/stat, from Linux's sched.h."""
ENDING_WAIT_S = 5.0
LOOK_EVERY_S = 0.005


def take(path: Path) -> int | None:
    """Hold the lock until this process ends; the descriptor that must stay open, or None if another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    return descriptor


def holder(path: Path) -> int | None:
    """The process that holds the lock, asked of the kernel without taking it; None if nobody does.

    A process that was killed holds its lock until the kernel has cleared it away; that is waited for.
    """
    end = time.monotonic() + ENDING_WAIT_S
    while (pid := _holder(path)) is not None and is_ending(pid) and time.monotonic() < end:
        time.sleep(LOOK_EVERY_S)
    return pid


def is_ending(pid: int) -> bool:
    """Whether the process was told to end by the kernel, or has ended but for its traces."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return pid > 0
    return fields[0] in "ZX" or bool(int(fields[6]) & _PF_EXITING)


def _holder(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)
