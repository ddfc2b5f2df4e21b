"""Penstock's gateway as it is deployed, with its checks on. It serves from a saved snapshot; NATS is away."""

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

from bench.candidates.kinds import API_KEY, Endpoints, Upstreams, plain_environment
from bench.processes import Child, free_port

from penstock_common.contracts.endpoint import Scaling
from penstock_common.contracts.records import ApiKeyRecord, Route, RouteReplica
from penstock_gateway import snapshots

ORGANIZATION = "org_bench"
QUEUE_LIMIT = 100_000
QUEUE_TIMEOUT_S = 3600


class Penstock:
    """Key check, queue, metrics and limits are those of every deployment."""

    name = "penstock"

    def prepare(self) -> str:
        return version("penstock")

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        snapshots.save(folder / "gateway" / "snapshot.json", snapshot(endpoints))
        environment = {
            **plain_environment(),
            "PENSTOCK_DATA_DIR": str(folder),
            "PENSTOCK_GATEWAY_PORT": str(port),
            "PENSTOCK_NATS_URL": f"nats://127.0.0.1:{free_port()}",
            "PENSTOCK_LOG_LEVEL": "WARNING",
        }
        return Child([sys.executable, "-m", "penstock_gateway"], core=core, log=folder / "gateway.log", env=environment)


def snapshot(endpoints: Endpoints) -> snapshots.Snapshot:
    """The routes of the endpoints, and the one key that may call them."""
    key = ApiKeyRecord(
        sha256=hashlib.sha256(API_KEY.encode()).hexdigest(),
        key_id="key_bench",
        organization_id=ORGANIZATION,
        scopes=("endpoints:invoke",),
    )
    routes = tuple(_route(name, upstreams) for name, upstreams in endpoints.items())
    return snapshots.Snapshot(routes=routes, api_keys=(key,))


def _route(name: str, upstreams: Upstreams) -> Route:
    count = len(upstreams.addresses)
    return Route(
        endpoint_id=f"ep_{name}",
        organization_id=ORGANIZATION,
        workspace="default",
        endpoint=name,
        state="running",
        public=False,
        scaling=Scaling(
            min_replicas=count,
            max_replicas=count,
            target_concurrency=upstreams.concurrency,
            queue_limit=QUEUE_LIMIT,
            queue_timeout_s=QUEUE_TIMEOUT_S,
        ),
        desired_replicas=count,
        replicas=tuple(
            RouteReplica(replica_id=f"rep_{name}_{number}", address=address)
            for number, address in enumerate(upstreams.addresses)
        ),
        version=1,
    )
