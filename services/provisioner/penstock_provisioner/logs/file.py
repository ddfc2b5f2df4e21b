"""One replica's output file, read from where the last reader stopped."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from penstock_provisioner.files import write_atomically

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Position:
    """How far a replica's output was sent, in bytes since the replica began.

    `base` is where the file begins in that count: it grows when the file is emptied. `pending` is the
    end of a batch that was being sent: should we die in the middle, the very same batch goes again.
    """

    base: int = 0
    sent: int = 0
    pending: int | None = None


_POSITION = TypeAdapter(Position)


class OutputFile:
    """The file `output`, and beside it `position`, which survives us."""

    def __init__(self, output: Path, position: Path) -> None:
        self._output = output
        self._position_file = position
        self.position = Position()
        with contextlib.suppress(FileNotFoundError, ValidationError):
            self.position = _POSITION.validate_json(position.read_bytes())

    def save(self, position: Position) -> None:
        """Remember a new position. It need not survive a power cut, as the replica does not either."""
        self.position = position
        write_atomically(self._position_file, _POSITION.dump_json(position), durable=False)

    def unread_bytes(self) -> int:
        """Bytes after what was sent. Notices when the file was emptied: then all in it is new."""
        try:
            size = self._output.stat().st_size
        except FileNotFoundError:
            return 0
        if self.position.base + size < self.position.sent:
            self.save(Position(base=self.position.sent, sent=self.position.sent))
        return self.position.base + size - self.position.sent

    def read(self, bytes_max: int) -> bytes:
        """What follows the position, at most so much."""
        with self._output.open("rb") as file:
            file.seek(self.position.sent - self.position.base)
            return file.read(bytes_max)

    def empty_if_larger(self, bytes_max: int) -> None:
        """Empty the file if it is that large and all of it was sent. The writer appends, so it goes on at the start."""
        sent = self.position.sent
        if sent - self.position.base > bytes_max and self.unread_bytes() == 0:
            os.truncate(self._output, 0)
            self.save(Position(base=sent, sent=sent))

    def skip_all(self) -> int:
        """Give up on everything unread and empty the file; returns how many bytes were lost."""
        lost = self.unread_bytes()
        os.truncate(self._output, 0)
        sent = self.position.sent + lost
        self.save(Position(base=sent, sent=sent))
        return lost

    def remove(self) -> None:
        self._output.unlink(missing_ok=True)
        self._position_file.unlink(missing_ok=True)


def read_end(output: Path) -> bytes:
    """The last part of an output file, enough for the lines that explain an end; empty if there is none."""
    try:
        with output.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    except FileNotFoundError:
        return b""
