"""Notices clients that left while they are not read.

A connection that is not read reports nothing, not even its end; yet a client that leaves must free its
replica at once. So for as long as there are unread connections, the kernel is asked about all of them
in one call every 50 ms.
"""

import asyncio
import select
from collections.abc import Callable

CHECK_S = 0.05
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Absence:
    """Calls back for each watched file descriptor whose peer closed or reset the connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        self._callbacks[fd] = gone
        self._poll.register(fd, select.POLLRDHUP)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_S, self._check)

    def forget(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        for fd, event in self._poll.poll(0):
            gone = self._callbacks.get(fd)
            if gone is not None and event & _GONE:
                self.forget(fd)
                gone()
        if self._callbacks and self._timer is None:
            self._timer = self._loop.call_later(CHECK_S, self._check)
