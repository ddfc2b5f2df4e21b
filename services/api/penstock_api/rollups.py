"""Hears what gateways count, merges it in memory, and writes it every few seconds."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from penstock_api.domain.metrics import Rollup, Tally, merged, tally_of
from penstock_api.domain.windows import aligned
from penstock_api.handlers.platform import Platform
from penstock_common.contracts.statistics import STATISTICS, EndpointStatistics, statistics_subject
from penstock_common.ids import ENDPOINT, is_id

log = logging.getLogger(__name__)

PENDING_BYTES_MAX = 16 * 1024 * 1024
_GROUP = "api"
"""Queue group: of several processes of the API, one takes each message."""


class Rollups:
    """One row for each endpoint and step, overwritten until the step is over: writing it again changes nothing.

    A message that was lost, or a process that dies, costs the seconds that were not written yet.
    """

    def __init__(
        self, client: Callable[[], Client], platform: Platform, *, step_s: int, write_every_s: float, held_max: int
    ) -> None:
        self._client = client
        self._platform = platform
        self._step = timedelta(seconds=step_s)
        self._write_every_s = write_every_s
        self._held_max = held_max
        self._held: dict[tuple[str, datetime], Rollup] = {}
        self._written: dict[str, Tally] = {}
        self._dropped = 0

    async def run(self) -> None:
        """Listen and write, for ever. While the database is away, memory stays within its bound."""
        subscription = await self._client().subscribe(
            STATISTICS, queue=_GROUP, cb=self._receive, pending_bytes_limit=PENDING_BYTES_MAX
        )
        try:
            while True:
                await asyncio.sleep(self._write_every_s)
                try:
                    await self.write(datetime.now(UTC))
                except Exception as error:
                    log.warning("metrics could not be written; they are kept for now", extra={"error": repr(error)})
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def stop(self) -> None:
        """Write what is left."""
        await self.write(datetime.now(UTC))

    def count(self, told: EndpointStatistics, now: datetime) -> None:
        """Add a message that came at `now`: no gateway's clock is trusted. Of too many rows, the oldest is given up."""
        key = (told.endpoint_id, aligned(now, self._step))
        tally = tally_of(told, now)
        before = self._held.get(key)
        if before is not None:
            self._held[key] = replace(before, tally=merged(before.tally, tally))
            return
        if len(self._held) >= self._held_max:
            self._forget(next(iter(self._held)))
            self._dropped += 1
        self._held[key] = Rollup(str(uuid.uuid4()), *key, self._step // timedelta(seconds=1), tally)

    async def write(self, now: datetime) -> int:
        """Write every row that changed, in one statement; returns how many. Those whose time is over are let go."""
        changed = {
            key: rollup for key, rollup in self._held.items() if self._written.get(rollup.id) is not rollup.tally
        }
        if changed:
            async with self._platform.transaction() as store:
                await store.rollups.put(list(changed.values()))
        self._written |= {rollup.id: rollup.tally for key, rollup in changed.items() if key in self._held}
        for key, rollup in list(self._held.items()):
            if rollup.at + self._step <= now and self._written.get(rollup.id) is rollup.tally:
                self._forget(key)
        if self._dropped:
            log.warning("metrics of too many endpoints at once: some were dropped", extra={"rows": self._dropped})
            self._dropped = 0
        return len(changed)

    def _forget(self, key: tuple[str, datetime]) -> None:
        self._written.pop(self._held.pop(key).id, None)

    async def _receive(self, message: Msg) -> None:
        try:
            told = EndpointStatistics.model_validate_json(message.data, extra="ignore")
        except ValidationError as error:
            log.error("unreadable statistics", extra={"subject": message.subject, "error": str(error)})
            return
        if not is_id(ENDPOINT, told.endpoint_id) or message.subject != statistics_subject(told.endpoint_id):
            log.error("statistics in another's name", extra={"subject": message.subject})
            return
        self.count(told, datetime.now(UTC))
