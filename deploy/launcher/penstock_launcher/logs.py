"""Keeps log files within bounds.

Programs write to their log files themselves, so nothing is lost or held up when the supervisor is
gone or slow. A full file is copied aside and emptied under the program, which appends; the few
lines written between the two are lost.
"""

import shutil
from pathlib import Path

BYTES_MAX = 16 * 1024 * 1024
KEPT = 3
"""Full files kept beside the current one."""


def rotate(path: Path, *, bytes_max: int = BYTES_MAX, kept: int = KEPT) -> bool:
    """Move the content of a full log to `<name>.1`, of that to `.2` and so on; whether it was full."""
    try:
        if path.stat().st_size < bytes_max:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept, 1, -1):
        older = _numbered(path, number - 1)
        if older.exists():
            older.replace(_numbered(path, number))
    try:
        shutil.copyfile(path, _numbered(path, 1))
    finally:
        # Even when the copy fails, as on a full disk: the bound is what keeps the platform alive.
        with path.open("r+b") as log:
            log.truncate(0)
    return True


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
