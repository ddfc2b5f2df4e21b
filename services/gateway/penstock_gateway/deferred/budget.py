"""Memory for bodies, shared by requests that arrive and requests that run."""

import asyncio
from collections import deque


class Budget:
    """So many bytes. Those who wait get theirs in the order in which they came."""

    def __init__(self, total_bytes: int) -> None:
        self._total = self._free = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, count: int) -> bool:
        """Take so many if they are free and nobody waits."""
        if self._waiting or count > self._free:
            return False
        self._free -= count
        return True

    async def take(self, count: int) -> int:
        """Wait for so many, or for all there are; returns how many were taken."""
        count = min(count, self._total)
        if self.take_now(count):
            return count
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(count)
            else:
                self._waiting.remove((count, future))
                self._serve()
            raise
        return count

    def give(self, count: int) -> None:
        """Give so many back."""
        self._free += count
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            count, future = self._waiting.popleft()
            self._free -= count
            future.set_result(None)
