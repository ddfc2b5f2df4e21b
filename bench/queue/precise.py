"""An event loop whose timers are exact to some 50 µs: epoll alone rounds them up to the millisecond."""

import asyncio
import ctypes
import os
import selectors
import time

NONBLOCKING_CLOSED_ON_EXEC = os.O_NONBLOCK | os.O_CLOEXEC


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: an interval, unused, and the time until the timer expires; zero stops it."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class PreciseSelector(selectors.EpollSelector):
    """epoll, woken by a timer of the kernel (`timerfd_create(2)`) instead of its own timeout."""

    def __init__(self) -> None:
        super().__init__()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, NONBLOCKING_CLOSED_ON_EXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self.register(self._timer, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._set_timer(0 if timeout is None else max(1, int(timeout * 1e9)))
            timeout = None
        return [found for found in super().select(timeout) if found[0].fd != self._timer]

    def close(self) -> None:
        super().close()
        os.close(self._timer)

    def _set_timer(self, nanoseconds: int) -> None:
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        spec = _TimerSpec(0, 0, seconds, rest)
        if self._libc.timerfd_settime(self._timer, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")


def precise_loop() -> asyncio.AbstractEventLoop:
    """A new event loop on that selector."""
    return asyncio.SelectorEventLoop(PreciseSelector())
