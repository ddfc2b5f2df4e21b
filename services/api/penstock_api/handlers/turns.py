"""Turns: each organization does so much at a time, and the rest of what it asks waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock_api.domain.problems import BUSY, Problem

WAIT_S_MAX = 30.0
RETRY_S = 5


class Turns:
    """At most `at_once` of one organization go on; of several processes of the API, in each."""

    def __init__(self, at_once: int, *, wait_s_max: float = WAIT_S_MAX) -> None:
        self._at_once = at_once
        self._wait_s_max = wait_s_max
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def of(self, organization_id: str) -> AsyncIterator[None]:
        """Wait for a turn, first come, first served. Raises Problem when it does not come in time."""
        semaphore = self._semaphores.setdefault(organization_id, asyncio.Semaphore(self._at_once))
        self._users[organization_id] = self._users.get(organization_id, 0) + 1
        try:
            try:
                async with asyncio.timeout(self._wait_s_max):
                    await semaphore.acquire()
            except TimeoutError:
                raise Problem(
                    BUSY,
                    f"{self._at_once} sources of your organization are being checked already: try again once they are.",
                    retry_after_s=RETRY_S,
                ) from None
            try:
                yield
            finally:
                semaphore.release()
        finally:
            self._users[organization_id] -= 1
            if self._users[organization_id] == 0:
                del self._users[organization_id], self._semaphores[organization_id]
