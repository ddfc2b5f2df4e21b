"""Prometheus metrics of a running plane."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock_gateway.metrics import GatewayCollector

from .plane import MakePlane, RunningPlane, ready, route
from .replica import ScriptedReplica

IRIS = {"workspace": "default", "endpoint": "iris"}


def samples(plane: RunningPlane, *, endpoints_max: int = 100) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(GatewayCollector(plane.plane, endpoints_max=endpoints_max))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def test_requests_are_counted_by_status_class_and_timed(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            await client.request("POST", body=b"{}")
        plane.change_route(state="stopped")
        await client.request()
        found = samples(plane)
    requests = "penstock_gateway_requests_total"
    assert value(found, requests, **IRIS, status="2xx") == 3
    assert value(found, requests, **IRIS, status="5xx") == 1
    assert value(found, "penstock_gateway_refused_total", code="not_running") == 1
    for name in ("request", "queue_wait", "first_byte"):
        assert value(found, f"penstock_gateway_{name}_seconds_count", **IRIS) == 3
        assert value(found, f"penstock_gateway_{name}_seconds_bucket", **IRIS, le="+Inf") == 3
    assert value(found, "penstock_gateway_connections") == 1


async def test_load_shows_as_gauges(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    found = samples(plane)
    assert value(found, "penstock_gateway_replicas", **IRIS) == 1
    assert value(found, "penstock_gateway_in_flight", **IRIS) == 0
    assert value(found, "penstock_gateway_queue_length", **IRIS) == 0


async def test_endpoints_beyond_the_limit_are_one_sum(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    plane.plane.directory.put_route(route(endpoint_id="ep_2", endpoint="second", replicas=ready(replica)))
    async with plane.client() as client:
        host = b"Host: second.default.localhost\r\n"
        assert (await client.request("POST", body=b"{}", host=host)).status == 200
    found = samples(plane, endpoints_max=1)
    other = {"workspace": "", "endpoint": "other"}
    assert value(found, "penstock_gateway_requests_total", **other, status="2xx") == 1
    assert not [labels for _, labels in found if ("endpoint", "second") in labels]


async def test_totals_do_not_fall_when_an_endpoint_goes(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.request("POST", body=b"{}")
        plane.plane.directory.remove_route("ep_1")
    other = {"workspace": "", "endpoint": "other"}
    assert value(samples(plane), "penstock_gateway_requests_total", **other, status="2xx") == 1
