"""What every connection of one data plane shares."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from penstock_gateway.proxy.absence import Absence
from penstock_gateway.proxy.deadlines import Deadlines
from penstock_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from penstock_gateway.proxy.endpoint import Endpoint


class Context:
    """The event loop, the limits, the timers, and whether the gateway is stopping.

    `timer_step_s` is how late a deadline may be noticed, in seconds. `pressed` is called at once when a request
    begins to wait at an endpoint where none waited; `on_route` when an endpoint's route was added or changed;
    `on_removed` when it was removed.
    """

    __slots__ = (
        "_tasks",
        "absence",
        "connections",
        "deadlines",
        "draining",
        "limits",
        "loop",
        "on_removed",
        "on_route",
        "pressed",
        "refused",
    )

    def __init__(self, limits: GatewaySettings, *, timer_step_s: float = 1.0) -> None:
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop, step_s=timer_step_s)
        self.absence = Absence(self.loop)
        self.draining = False
        self.connections = 0
        self.refused: dict[str, int] = {}
        self.pressed: Callable[[Endpoint], None] = _ignore
        self.on_route: Callable[[Endpoint], None] = _ignore
        self.on_removed: Callable[[Endpoint], None] = _ignore
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


def _ignore(endpoint: "Endpoint") -> None:
    """Nobody asked to be told."""
