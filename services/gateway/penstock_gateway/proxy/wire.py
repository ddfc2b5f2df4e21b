"""The wire of a client connection: writing, pausing, and the several ways of closing."""

import asyncio
from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING, cast

from penstock_gateway.proxy.deadlines import NEVER_S

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context


class Reading(IntEnum):
    """What the next bytes of a client are."""

    HEAD = 0
    BODY = 1
    NOTHING = 2
    """The request is complete: what comes now is for later."""
    TUNNEL = 3
    DISCARD = 4
    CLOSING = 5


class ClientWire(asyncio.Protocol):
    """What a connection does whatever is said on it. `send` writes bytes."""

    __slots__ = (
        "_context",
        "_fd",
        "_limits",
        "_reading",
        "_stalled_bytes",
        "_transport",
        "_write_paused",
        "deadline_s",
        "looked_at_s",
        "reading_paused",
        "send",
    )

    send: Callable[[bytes], None]

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._limits = context.limits
        self._reading: Reading = Reading.HEAD
        self._write_paused = False
        self._stalled_bytes = 0
        self.reading_paused = False
        self.looked_at_s = NEVER_S
        self.deadline_s = NEVER_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._fd: int = transport.get_extra_info("socket").fileno()
        # The transport's own method: one call less for everything that is passed on.
        self.send = self._transport.write

    def connection_lost(self, error: Exception | None) -> None:
        self._reading = Reading.CLOSING
        self._context.deadlines.forget(self)
        self._context.absence.forget(self._fd)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._stalled_bytes = self._transport.get_write_buffer_size()
        self._watch(monotonic() + self._limits.stall_timeout_s)

    def resume_writing(self) -> None:
        self._write_paused = False

    def on_deadline(self, now_s: float) -> float:
        """Act on a deadline that has passed; returns when to look again."""
        if self._write_paused or self._reading is Reading.CLOSING:
            return self._check_stall(now_s)
        self._transport.abort()
        return NEVER_S

    # --- closing --------------------------------------------------------------------------

    def close(self) -> None:
        """Close once everything is sent."""
        self._reading = Reading.CLOSING
        self._context.absence.forget(self._fd)
        self._transport.close()
        self._stalled_bytes = self._transport.get_write_buffer_size()
        if self._stalled_bytes:
            self._watch(monotonic() + self._limits.stall_timeout_s)

    def cut(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def linger(self) -> None:
        """Close our side, and read on for a moment: data left unread would make the kernel reset the
        connection, and the client would lose the answer it has not read yet."""
        self._reading = Reading.DISCARD
        if self.reading_paused:
            self._set_reading(paused=False)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._watch(monotonic() + self._limits.linger_s)

    # --- parts ----------------------------------------------------------------------------

    def _set_reading(self, *, paused: bool) -> None:
        self.reading_paused = paused
        if paused:
            self._transport.pause_reading()
            self._context.absence.watch(self._fd, self._transport.abort)
        else:
            self._context.absence.forget(self._fd)
            self._transport.resume_reading()

    def _check_stall(self, now_s: float) -> float:
        """A client that takes nothing of what waits for it is cut off."""
        pending = self._transport.get_write_buffer_size()
        if pending and pending >= self._stalled_bytes:
            self._transport.abort()
            return NEVER_S
        self._stalled_bytes = pending
        self.deadline_s = now_s + self._limits.stall_timeout_s
        return self.deadline_s

    def _bring_forward(self, at_s: float) -> None:
        if at_s < self.deadline_s:
            self._watch(at_s)

    def _watch(self, at_s: float) -> None:
        self.deadline_s = at_s
        self._context.deadlines.watch(self, at_s)
