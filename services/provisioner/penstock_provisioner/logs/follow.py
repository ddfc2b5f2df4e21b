"""Sends what replicas print, as batches of lines: soon, in order, each once, and bounded in rate."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Counter

from penstock_common.contracts.events import LogBatch, LogLine
from penstock_provisioner.logs.file import OutputFile
from penstock_provisioner.logs.lines import cut
from penstock_provisioner.logs.rate import Allowance

log = logging.getLogger(__name__)

Publish = Callable[[LogBatch, str], Awaitable[None]]
"""Sends a batch under a message id; raises when it was not accepted."""

BATCH_LINES_MAX = 200
BATCH_BYTES_MAX = 256 * 1024
_READ_BYTES = 256 * 1024
_LINE_OVERHEAD_BYTES = 120
_READS_PER_TURN_MAX = 64
_TURN_S = 0.15
_RETRY_S = 1.0
_UNSENT_FILES_MAX = 4
"""Unsent output beyond this many times the file's bound is given up."""

_lines_sent = Counter("penstock_log_lines_sent", "Log lines of replicas that were sent on.")
_lines_dropped = Counter("penstock_log_lines_dropped", "Log lines of replicas left out because there were too many.")


@dataclass(frozen=True, slots=True)
class LogLimits:
    """What one replica may print. `file_bytes_max` is when its file is emptied."""

    lines_per_s: float
    lines_burst: float
    file_bytes_max: int


@dataclass(frozen=True, slots=True)
class _Dropped:
    """Output that was left out and not yet spoken of: where it began, and how much it was."""

    offset: int
    lines: int = 0
    unsent_bytes: int = 0

    def __str__(self) -> str:
        parts = []
        if self.lines:
            parts.append(f"{self.lines} line{'' if self.lines == 1 else 's'}, more than are kept in so short a time")
        if self.unsent_bytes:
            parts.append(f"{self.unsent_bytes} bytes that could not be sent")
        return f"… left out here: {' and '.join(parts)}"

    def line(self) -> LogLine:
        return _line(self.offset, str(self))


class _Follower:
    """Follows one replica."""

    def __init__(
        self, host_id: str, endpoint_id: str, replica_id: str, file: OutputFile, limits: LogLimits, publish: Publish
    ) -> None:
        self._host_id = host_id
        self._endpoint_id = endpoint_id
        self._replica_id = replica_id
        self._file = file
        self._limits = limits
        self._publish = publish
        self._allowance = Allowance.full(limits.lines_per_s, limits.lines_burst, _now_s())
        self._dropped: _Dropped | None = None
        self.ended = False
        """No more output will come."""

    async def turn(self) -> bool:
        """Send what is new; whether everything was sent that ever will come. Raises what publishing raises."""
        self._allowance.fill(_now_s())
        skipping = False
        for _ in range(_READS_PER_TURN_MAX):
            unread = self._file.unread_bytes()
            if unread > _UNSENT_FILES_MAX * self._limits.file_bytes_max:
                self._give_up()
                break
            data = self._file.read(_READ_BYTES) if unread else b""
            if not data:
                break
            if self._file.position.pending is not None:
                await self._send_again(data)
            elif skipping:
                self._skip(data)
            else:
                progressed, skipping = await self._send(data, final=self.ended and len(data) == unread)
                if not progressed:
                    break
        self._file.empty_if_larger(self._limits.file_bytes_max)
        is_done = self.ended and self._file.unread_bytes() == 0
        if self._dropped is not None and (is_done or self._allowance.take(0)):
            # Not under the id of the lines that may yet begin at this position.
            note = self._dropped.line()
            await self._publish(self._batch([note]), f"{self._replica_id}.{note.offset}.left-out")
            self._dropped = None
        return is_done

    def remove_file(self) -> None:
        self._file.remove()

    async def _send(self, data: bytes, *, final: bool) -> tuple[bool, bool]:
        """Send one batch from `data`: whether that went forward, and whether lines were left out."""
        start = self._file.position.sent
        pieces, consumed = cut(data, final=final)
        if not consumed:
            return False, False
        lines: list[LogLine] = []
        size = 0
        end = start + consumed
        dropped_before = self._dropped
        for piece in pieces:
            if not self._allowance.take(piece.size):
                self._drop(_Dropped(start + piece.offset, lines=1))
                continue
            line = _line(start + piece.offset, piece.text(data))
            size += _weight(line)
            if len(lines) + 1 >= BATCH_LINES_MAX or size > BATCH_BYTES_MAX:
                end = line.offset
                break
            if self._dropped is not None:
                lines.append(self._dropped.line())
                self._dropped = None
            lines.append(line)
        left_out = self._dropped is not None and self._dropped != dropped_before
        try:
            await self._send_lines(lines, end)
        except Exception:
            # The lines go again as they are; what was left out before them has to be said again.
            self._dropped = dropped_before
            raise
        return True, left_out

    async def _send_again(self, data: bytes) -> None:
        """Send the batch again that was under way when the last process died, from the same bytes."""
        position = self._file.position
        end = position.pending or position.sent
        pieces, _ = cut(data[: end - position.sent], final=True)
        lines: list[LogLine] = []
        size = 0
        for number, piece in enumerate(pieces):
            line = _line(position.sent + piece.offset, piece.text(data))
            size += _weight(line)
            if len(lines) + 1 >= BATCH_LINES_MAX or size > BATCH_BYTES_MAX:
                self._drop(_Dropped(line.offset, lines=len(pieces) - number))
                break
            lines.append(line)
        await self._send_lines(lines, end)

    async def _send_lines(self, lines: list[LogLine], end: int) -> None:
        position = self._file.position
        if lines:
            # Written down first: a message id always goes with the same bytes, so that what arrived
            # already is recognised, and what did not is not taken for something that did.
            self._file.save(replace(position, pending=end))
            await self._publish(self._batch(lines), f"{self._replica_id}.{position.sent}")
            _lines_sent.inc(len(lines))
        self._file.save(replace(position, sent=end, pending=None))

    def _batch(self, lines: list[LogLine]) -> LogBatch:
        return LogBatch(
            host_id=self._host_id, endpoint_id=self._endpoint_id, replica_id=self._replica_id, lines=tuple(lines)
        )

    def _skip(self, data: bytes) -> None:
        """Leave out `data` without looking at it: a replica that floods its log must not cost us much."""
        position = self._file.position
        end = data.rfind(b"\n") + 1 or len(data)
        self._drop(_Dropped(position.sent, lines=data.count(b"\n", 0, end) or 1))
        self._file.save(replace(position, sent=position.sent + end))

    def _give_up(self) -> None:
        offset = self._file.position.sent
        lost = self._file.skip_all()
        self._drop(_Dropped(offset, unsent_bytes=lost))
        log.warning("output could not be sent and is lost", extra={"replica_id": self._replica_id, "bytes": lost})

    def _drop(self, more: _Dropped) -> None:
        _lines_dropped.inc(more.lines)
        so_far = self._dropped or _Dropped(more.offset)
        self._dropped = _Dropped(so_far.offset, so_far.lines + more.lines, so_far.unsent_bytes + more.unsent_bytes)


class LogFollower:
    """Follows the output of every replica of a host."""

    def __init__(self, host_id: str, limits: LogLimits, publish: Publish) -> None:
        self._host_id = host_id
        self._limits = limits
        self._publish = publish
        self._followers: dict[str, _Follower] = {}
        self._wake = asyncio.Event()
        self._one_done = asyncio.Event()

    def follow(self, replica_id: str, endpoint_id: str, output: Path) -> None:
        """Send what is appended to `output`, from where it was left; how far is kept in `log.json` beside it."""
        if replica_id not in self._followers:
            file = OutputFile(output, output.with_name("log.json"))
            self._followers[replica_id] = _Follower(
                self._host_id, endpoint_id, replica_id, file, self._limits, self._publish
            )
            self._wake.set()

    def ended(self, replica_id: str) -> None:
        """Nothing more is written: send the rest, then remove the file."""
        if replica_id in self._followers:
            self._followers[replica_id].ended = True

    def forget(self, replica_id: str) -> None:
        """Send nothing more of it."""
        self._followers.pop(replica_id, None)
        self._one_done.set()

    async def run(self) -> None:
        """Follow for ever, asleep while there is nothing to follow."""
        while True:
            if not self._followers:
                self._wake.clear()
                await self._wake.wait()
            # One look at a file's size is all that a quiet replica costs.
            all_sent = await asyncio.gather(*(self._turn(one, it) for one, it in list(self._followers.items())))
            await asyncio.sleep(_TURN_S if all(all_sent) else _RETRY_S)

    async def drained(self) -> None:
        """Wait until all output of ended replicas is sent."""
        while any(follower.ended for follower in self._followers.values()):
            self._one_done.clear()
            await self._one_done.wait()

    async def _turn(self, replica_id: str, follower: _Follower) -> bool:
        """Whether it went well; if not, it is tried again from where it stopped."""
        try:
            if await follower.turn():
                follower.remove_file()
                self.forget(replica_id)
        except Exception as error:
            log.warning("a replica's output could not be sent", extra={"replica_id": replica_id, "error": repr(error)})
            return False
        return True


def _line(offset: int, text: str) -> LogLine:
    return LogLine(offset=offset, at=datetime.now(UTC), text=text)


def _weight(line: LogLine) -> int:
    """The bytes of a line in a message."""
    text = line.text
    return len(text.encode()) + text.count("\\") + text.count('"') + text.count("\t") + _LINE_OVERHEAD_BYTES


def _now_s() -> float:
    return time.monotonic()
