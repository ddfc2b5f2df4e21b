"""Prometheus metrics, read from the data plane's plain counters only when somebody asks."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock_gateway.proxy.directory import Directory
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.plane import DataPlane
from penstock_gateway.stats import CLIENT_LEFT, EndpointStats, Histogram

LABELS = ("workspace", "endpoint")
OTHER = ("", "other")
_BOUND_BITS = range(10, 31, 2)
"""Buckets at the powers of four from 1 ms to 18 minutes, in microseconds: a scrape holds up requests for
as long as it takes to write, so it is kept short. The finer buckets behind them are for the platform."""


class GatewayCollector(Collector):
    """One set of series per endpoint, for at most `endpoints_max` of them; the rest are one sum."""

    def __init__(self, plane: DataPlane, *, endpoints_max: int) -> None:
        self._plane = plane
        self._endpoints_max = endpoints_max

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._own()
        directory = self._plane.directory
        yield from _traffic(_stats_by_labels(directory, self._endpoints_max))
        yield from _load(list(directory.endpoints.values())[: self._endpoints_max])

    def _own(self) -> Iterator[Metric]:
        context = self._plane.context
        yield GaugeMetricFamily("penstock_gateway_connections", "Open client connections.", value=context.connections)
        refused = CounterMetricFamily(
            "penstock_gateway_refused", "Requests that the gateway answered itself.", labels=("code",)
        )
        for code, count in context.refused.items():
            refused.add_metric((code,), count)
        yield refused


def _stats_by_labels(directory: Directory, endpoints_max: int) -> dict[tuple[str, str], EndpointStats]:
    endpoints = list(directory.endpoints.values())
    found = {_labels(endpoint): endpoint.stats for endpoint in endpoints[:endpoints_max]}
    other = EndpointStats()
    other.add(directory.removed)
    for endpoint in endpoints[endpoints_max:]:
        other.add(endpoint.stats)
    found[OTHER] = other
    return found


def _labels(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.route.workspace, endpoint.route.endpoint


def _traffic(stats: dict[tuple[str, str], EndpointStats]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "penstock_gateway_requests", "Requests to endpoints, by the class of their status.", labels=(*LABELS, "status")
    )
    latency = HistogramMetricFamily(
        "penstock_gateway_request_seconds", "Request received to answer complete.", labels=LABELS
    )
    wait = HistogramMetricFamily("penstock_gateway_queue_wait_seconds", "Request received to replica.", labels=LABELS)
    first = HistogramMetricFamily(
        "penstock_gateway_first_byte_seconds", "Request received to the replica's first byte.", labels=LABELS
    )
    for labels, counted in stats.items():
        classes: dict[str, int] = {}
        for status, count in counted.statuses.items():
            name = "client_left" if status == CLIENT_LEFT else f"{status // 100}xx"
            classes[name] = classes.get(name, 0) + count
        for name, count in classes.items():
            requests.add_metric((*labels, name), count)
        for family, histogram in ((latency, counted.latency), (wait, counted.queue_wait), (first, counted.first_byte)):
            family.add_metric(labels, _buckets(histogram), histogram.total_us / 1e6)
    yield from (requests, latency, wait, first)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [(str(2**bits / 1e6), float(histogram.below(bits))) for bits in _BOUND_BITS]
    return [*bounds, ("+Inf", float(histogram.count))]


def _load(endpoints: list[Endpoint]) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily("penstock_gateway_in_flight", "Requests that replicas work on.", labels=LABELS)
    waiting = GaugeMetricFamily("penstock_gateway_queue_length", "Requests that wait for a replica.", labels=LABELS)
    replicas = GaugeMetricFamily("penstock_gateway_replicas", "Ready replicas, ejected ones left out.", labels=LABELS)
    for endpoint in endpoints:
        labels, view = _labels(endpoint), endpoint.queue.view()
        in_flight.add_metric(labels, endpoint.queue.in_flight)
        waiting.add_metric(labels, view.waiting)
        replicas.add_metric(labels, view.replicas - view.ejected)
    yield from (in_flight, waiting, replicas)
