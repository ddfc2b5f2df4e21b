"""One supervisor for each data directory, known by a lock that the kernel drops when it dies."""

import fcntl
import os
import struct
from pathlib import Path

_FLOCK = "hhqqi"
"""struct flock of 64-bit Linux: type, whence, start, length, process."""


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
    """The process that holds the lock, asked of the kernel without taking it; None if nobody does."""
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
