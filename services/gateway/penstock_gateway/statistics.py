"""What each endpoint did since the last time, told on core NATS once a second.

Counters only grow on the hot path; here they are compared with how they stood before. An endpoint at
rest is told of only when its replicas change, and every ten seconds.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from penstock_common.contracts.statistics import EndpointStatistics
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.stats import EndpointStats, Histogram

AT_REST_EVERY_S = 10.0


class _Told:
    """How an endpoint stood when it was last told of."""

    __slots__ = ("at", "gauges", "stats")

    def __init__(self, stats: EndpointStats) -> None:
        self.at: datetime | None = None
        self.gauges: tuple[int, ...] = (0, 0, 0, 0)
        self.stats = stats


class Statistics:
    """Remembers how each endpoint's counters stood. `publish` sends one message, and may raise.

    Each gateway tells what it counted itself; how many replicas there are is told by the one that `owns` an endpoint.
    """

    def __init__(
        self,
        gateway_id: str,
        publish: Callable[[EndpointStatistics], Awaitable[None]],
        *,
        owns: Callable[[str], bool] = lambda endpoint_id: True,
    ) -> None:
        self._gateway_id = gateway_id
        self._publish = publish
        self._owns = owns
        self._told: dict[str, _Told] = {}

    async def tell(self, endpoints: Iterable[Endpoint], at: datetime, interval_s: float) -> None:
        """Publish what changed in the `interval_s` seconds until `at`."""
        found = {endpoint.route.endpoint_id: endpoint for endpoint in endpoints}
        for gone in self._told.keys() - found.keys():
            del self._told[gone]
        for message in [self._message(endpoint, at, interval_s) for endpoint in found.values()]:
            if message is not None:
                await self._publish(message)

    def _message(self, endpoint: Endpoint, at: datetime, interval_s: float) -> EndpointStatistics | None:
        stats, route, queue = endpoint.stats, endpoint.route, endpoint.queue
        told = self._told.setdefault(route.endpoint_id, _Told(EndpointStats()))
        ready, desired = sum(not replica.draining for replica in queue.replicas.values()), route.desired_replicas
        if not self._owns(route.endpoint_id):
            ready = desired = 0
        gauges = (endpoint.in_flight, len(queue), ready, desired)
        counted = stats.requests != told.stats.requests or stats.cold_starts != told.stats.cold_starts
        at_rest = not counted and gauges == told.gauges and not any(gauges[:2])
        recently = told.at is not None and (at - told.at).total_seconds() < AT_REST_EVERY_S
        if at_rest and (recently or not any(gauges)):
            return None
        message = EndpointStatistics(
            gateway_id=self._gateway_id,
            endpoint_id=route.endpoint_id,
            organization_id=route.organization_id,
            at=at,
            interval_s=interval_s,
            statuses=_more(stats.statuses, told.stats.statuses),
            latency=_added(stats.latency, told.stats.latency),
            queue_wait=_added(stats.queue_wait, told.stats.queue_wait),
            first_byte=_added(stats.first_byte, told.stats.first_byte),
            first_token=_added(stats.first_token, told.stats.first_token),
            prompt_tokens=stats.prompt_tokens - told.stats.prompt_tokens,
            completion_tokens=stats.completion_tokens - told.stats.completion_tokens,
            cold_starts=stats.cold_starts - told.stats.cold_starts,
            in_flight=gauges[0],
            queued=gauges[1],
            replicas=gauges[2],
            desired_replicas=gauges[3],
        )
        told.at, told.gauges = at, gauges
        if counted:
            told.stats = stats.copy()
        return message


def _more(now: dict[int, int], before: dict[int, int]) -> dict[int, int]:
    return {status: count - before.get(status, 0) for status, count in now.items() if count != before.get(status, 0)}


def _added(now: Histogram, before: Histogram) -> dict[int, int]:
    pairs = enumerate(zip(now.counts, before.counts, strict=True))
    return {bucket: count - earlier for bucket, (count, earlier) in pairs if count != earlier}
