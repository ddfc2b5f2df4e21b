"""What every connection of one data plane shares."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from penstock_gateway.proxy.absence import Absence
from penstock_gateway.proxy.deadlines import Deadlines
from penstock_gateway.settings import GatewaySettings


class Context:
    """The event loop, the limits, the timers, and whether the gateway is stopping.

    `timer_step_s` is how late a deadline may be noticed, in seconds.
    """

    __slots__ = ("_tasks", "absence", "connections", "deadlines", "draining", "limits", "loop", "refused")

    def __init__(self, limits: GatewaySettings, *, timer_step_s: float = 1.0) -> None:
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop, step_s=timer_step_s)
        self.absence = Absence(self.loop)
        self.draining = False
        self.connections = 0
        self.refused: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that ends by itself; cancelled at the stop."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def count_refusal(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1

    async def stop(self) -> None:
        self.deadlines.stop()
        self.absence.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
