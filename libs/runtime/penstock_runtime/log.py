"""The replica's own lines in its log: written at once, and whole, whatever the model does to sys.stdout."""

import os
from contextlib import suppress

_STDOUT = 1
_STDERR = 2


def say(line: str) -> None:
    """Writes a line to standard output."""
    _write(_STDOUT, line)


def complain(text: str) -> None:
    """Writes one or more lines to standard error."""
    _write(_STDERR, text)


def _write(descriptor: int, text: str) -> None:
    rest = memoryview(f"{text.rstrip()}\n".encode("utf-8", "backslashreplace"))
    with suppress(OSError):  # nobody reads the log any more: no reason to stop serving
        while rest:
            rest = rest[os.write(descriptor, rest) :]
