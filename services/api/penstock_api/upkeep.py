"""What runs every so often: cleaning tables, and keeping the bucket `api_keys` equal to its table."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

from penstock_api.handlers.keys import repair_records
from penstock_api.handlers.metrics import drop_old, merge_old
from penstock_api.handlers.platform import Platform
from penstock_api.settings import ApiSettings
from penstock_api.store import Store
from penstock_common.contracts.records import ApiKeyRecord
from penstock_common.delivery.watch import BucketWatch

log = logging.getLogger(__name__)

_PIECES_MAX = 100
"""Pieces of cleaning in one round; the rest waits for the next."""


class Upkeep:
    """`bucket` is what `api_keys` holds, as far as it is known while `connected()`."""

    def __init__(
        self,
        platform: Platform,
        settings: ApiSettings,
        bucket: BucketWatch[ApiKeyRecord],
        connected: Callable[[], bool],
    ) -> None:
        self._platform = platform
        self._settings = settings
        self._bucket = bucket
        self._connected = connected

    async def run_repair(self) -> None:
        """At the start, and then every so often, for ever."""
        await self._bucket.ready.wait()
        while True:
            await self.repair()
            await asyncio.sleep(self._settings.upkeep_s)

    async def repair(self) -> None:
        """Write and delete bucket records until they are what the table says."""
        if not self._connected():
            return
        written, deleted = await repair_records(self._platform, self._bucket.snapshot)
        if written or deleted:
            log.info("api_keys repaired", extra={"written": written, "deleted": deleted})

    async def run_cleaning(self) -> None:
        """Every so often, for ever."""
        while True:
            await asyncio.sleep(self._settings.upkeep_s)
            await self.clean()

    async def clean(self) -> None:
        """Delete what has been kept long enough, in short transactions."""
        settings = self._settings
        await self._in_pieces(
            lambda store: store.upkeep.trim_logs(
                kept_days=settings.log_retention_days, lines_per_endpoint=settings.log_lines_per_endpoint
            )
        )
        await self._in_pieces(lambda store: store.upkeep.drop_terminated(settings.terminated_kept_days))
        await self._clean_metrics()
        async with self._platform.transaction() as store:
            await store.upkeep.trim_events(settings.events_per_endpoint)
        async with self._platform.transaction() as store:
            await store.upkeep.drop_ended_replicas(settings.log_retention_days)
        async with self._platform.transaction() as store:
            await store.upkeep.forget_requests(settings.idempotency_kept_h)

    async def _clean_metrics(self) -> None:
        """Merge what is old into longer steps, and delete the oldest."""
        kept = self._settings.resolutions
        async with self._platform.transaction() as store:
            now = await store.now()
        # The coarsest first: what one round merges, only a later one can merge again.
        await self._in_pieces(lambda store: drop_old(store, kept[-1], now))
        for step, coarser in reversed(list(pairwise(kept))):
            await self._in_pieces(partial(merge_old, kept=step, into=coarser, now=now))

    async def _in_pieces(self, piece: Callable[[Store], Awaitable[int]]) -> None:
        """Each in a transaction of its own, until there is nothing more to do, or enough was done."""
        for _ in range(_PIECES_MAX):
            async with self._platform.transaction() as store:
                if not await piece(store):
                    return
