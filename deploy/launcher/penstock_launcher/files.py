"""Small files that hold secrets, and the ends of logs."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read; readers see the old or the new text, whole.

    Two writers do not meet: the last to finish wins.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def tail(path: Path, *, lines: int = 15, bytes_max: int = 4096) -> str:
    """The end of a log, for an error message."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - bytes_max))
            found = log.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        found = []
    return "\n".join(found).strip("\n") or "it left no log"
