"""Threads for the model's synchronous functions, and the slots that bound all work on the model.

A pool of our own, because the standard library's waits at exit for a function that never returns, and costs
more per call. Everything here except the jobs themselves runs on the event loop's thread, so nothing is locked.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from penstock_runtime.problems import Problem

WAITING_MAX = 1000
_RETRY_AFTER_S = 1


class Slot:
    """Leave to work on the model. Freed when all its holders have let go: the request, and a thread still busy."""

    __slots__ = ("_free", "_holders")

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free
        self._holders = 1

    def hold(self) -> None:
        """One holder more."""
        self._holders += 1

    def release(self) -> None:
        """One holder less; the last frees the slot."""
        self._holders -= 1
        if self._holders == 0:
            self._free()


class Slots:
    """At most `size` slots taken at a time; who comes later waits in line, at most WAITING_MAX of them."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> Slot | None:
        """A slot, if one is free."""
        if self._free == 0:
            return None
        self._free -= 1
        return Slot(self._release)

    async def take(self) -> Slot:
        """A slot, after those who came before. Raises Problem 503 `overloaded` if the line is full."""
        if slot := self.take_now():
            return slot
        if len(self._waiting) >= WAITING_MAX:
            raise Problem(
                503,
                "overloaded",
                "The replica is overloaded",
                f"{WAITING_MAX} requests wait already: try again later, with a growing pause between tries.",
                headers=[("retry-after", str(_RETRY_AFTER_S))],
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the slot came in the moment of leaving: it goes to the next in line
            else:
                self._waiting.remove(turn)
            raise
        return Slot(self._release)

    def _release(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1


class Threads:
    """Daemon threads, started when first needed. Who runs a job holds a slot, so there are never more than slots."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = 0
        self._busy = 0

    def run(self, job: Callable[[], None]) -> None:
        """Runs a job, which must not raise, in a thread; `finished` must follow on the loop's thread."""
        if self._busy == self._started:
            threading.Thread(target=self._work, name=f"model-{self._started + 1}", daemon=True).start()
            self._started += 1
        self._busy += 1
        self._jobs.put(job)

    def finished(self) -> None:
        """A job that `run` was given is done."""
        self._busy -= 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
