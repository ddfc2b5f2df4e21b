"""Compares the buckets with the tables, and puts right what differs: in both directions."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from prometheus_client import Counter

from penstock_common.contracts.records import Assignment, Route
from penstock_common.delivery.watch import BucketWatch
from penstock_scheduler.records import RouteContent, assignment_key, assignment_of, content_of, route_of
from penstock_scheduler.store import Store

log = logging.getLogger(__name__)

CONFIRM_S = 2.0
"""A difference must last so long: most are only records on their way."""
MENDED_MAX = 500
"""Records put right in one transaction; the next comparison finds the rest."""
_CHUNK = 100

_mended = Counter("penstock_scheduler_records_mended", "Bucket records that differed from the tables", ["bucket"])


def wrong_assignments(expected: Iterable[str], found: Iterable[str]) -> set[str]:
    """Keys of assignments that are missing or should not exist; one never changes once written."""
    return set(expected) ^ set(found)


def wrong_routes(expected: Mapping[str, RouteContent], found: Mapping[str, Route]) -> set[str]:
    """Endpoints whose route is missing, should not exist, or says something else than the tables."""
    return {
        endpoint_id
        for endpoint_id in expected.keys() | found.keys()
        if endpoint_id not in expected
        or endpoint_id not in found
        or expected[endpoint_id] != content_of(found[endpoint_id])
    }


class Repair:
    """Run `run()` for ever."""

    def __init__(
        self,
        transaction: Callable[[], AbstractAsyncContextManager[Store]],
        assignments: BucketWatch[Assignment],
        routes: BucketWatch[Route],
        *,
        connected: Callable[[], bool],
        every_s: float,
        ended_kept: timedelta,
    ) -> None:
        self._transaction = transaction
        self._assignments = assignments
        self._routes = routes
        self._connected = connected
        self._every_s = every_s
        self._ended_kept = ended_kept

    async def run(self) -> None:
        """Compare at the start and then regularly."""
        await self._assignments.ready.wait()
        await self._routes.ready.wait()
        while True:
            await self.once()
            async with self._transaction() as store:
                await store.lock()
                await store.forget_replicas_ended_before(await store.now() - self._ended_kept)
            await asyncio.sleep(self._every_s)

    async def once(self) -> int:
        """Compare twice, and mend what differed both times; how many records that were."""
        if not self._connected():
            return 0  # what the buckets hold cannot be seen now
        assignments, routes = await self._differences()
        if not assignments and not routes:
            return 0
        await asyncio.sleep(CONFIRM_S)
        still_assignments, still_routes = await self._differences()
        assignments &= still_assignments
        routes &= still_routes
        if assignments or routes:
            await self._mend(sorted(assignments)[:MENDED_MAX], sorted(routes)[:MENDED_MAX])
        return len(assignments) + len(routes)

    async def _differences(self) -> tuple[set[str], set[str]]:
        async with self._transaction() as store:
            assigned, routed = await store.assigned(), await store.routed()
        return (
            wrong_assignments(assigned, self._assignments.snapshot),
            wrong_routes(routed, self._routes.snapshot),
        )

    async def _mend(self, assignments: list[str], routes: list[str]) -> None:
        log.warning("buckets differ from the tables", extra={"assignments": assignments[:20], "routes": routes[:20]})
        async with self._transaction() as store:
            await store.lock()
            assigned = await store.assigned()
            for key in assignments:
                if key not in assigned:
                    await store.delete_assignment(key)
            known = await store.routed()
            for endpoint_id in routes:
                if endpoint_id not in known:
                    await store.delete_route(endpoint_id)
            missing = {key for key in assignments if key in assigned}
            await write_records(
                store, {assigned[key] for key in missing} | (set(routes) & known.keys()), missing, set(routes)
            )
        _mended.labels("assignments").inc(len(assignments))
        _mended.labels("routes").inc(len(routes))


async def write_records(
    store: Store, endpoint_ids: Iterable[str], assignments: set[str] | None, routes: set[str] | None
) -> int:
    """Write these endpoints' records again: all, or only those named; returns how many."""
    written = 0
    ids = sorted(endpoint_ids)
    for start in range(0, len(ids), _CHUNK):
        for deployment in (await store.deployments(ids[start : start + _CHUNK])).values():
            for replica in deployment.live:
                key = assignment_key(replica)
                if replica.unassigned_at is None and (assignments is None or key in assignments):
                    await store.put(assignment_of(deployment.definition, replica))
                    written += 1
            route = route_of(deployment)
            if route is not None and (routes is None or route.endpoint_id in routes):
                await store.put(route)
                written += 1
    return written


async def resync(store: Store) -> int:
    """Write every record that should exist; returns how many."""
    await store.lock()
    endpoint_ids = set((await store.routed()).keys()) | set((await store.assigned()).values())
    return await write_records(store, endpoint_ids, None, None)
