"""Short ways to make what tests talk about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from penstock_common.contracts.base import Message
from penstock_common.contracts.endpoint import (
    EndpointSpec,
    GitSource,
    GpuRequest,
    PinnedSource,
    Resources,
    RouteSpec,
    Scaling,
)
from penstock_common.contracts.events import EndpointRequested, ReplicaPhase, ReplicaReported
from penstock_common.contracts.heartbeat import Gpu as GpuPart
from penstock_common.contracts.heartbeat import Heartbeat, Inventory
from penstock_common.contracts.questions import ScaleEndpoint
from penstock_common.contracts.records import Route
from penstock_common.delivery.envelope import Received
from penstock_scheduler.domain import (
    Demand,
    EndpointRecord,
    Gpu,
    Host,
    Policy,
    Replica,
    Snapshot,
)

T0 = datetime(2026, 3, 10, 12, tzinfo=UTC)
RTX = "RTX 4090"
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def at(seconds: float) -> datetime:
    """The moment so many seconds after the start of the test's time."""
    return T0 + timedelta(seconds=seconds)


def received(message: Message, traceparent: str | None = TRACEPARENT, *, waited_s: float = 0.0) -> Received[Any]:
    return Received(message=message, id="evt", time=T0, traceparent=traceparent, delivery=1, waited_s=waited_s)


def spec(
    gpus: int = 0,
    kind: str = RTX,
    *,
    replicas: int = 1,
    most: int | None = None,
    cpu_cores: int = 1,
    memory_gb: int = 2,
    disk_gb: int = 10,
) -> EndpointSpec:
    """`replicas` run at least, and `most` at most; no more than the least, or one, if it is not given."""
    return EndpointSpec(
        name="Iris",
        source=GitSource(uri="https://example.com/iris.git"),
        routes=(RouteSpec(path="/predict", file="predict", function="predict"),),
        gpu=GpuRequest(type=kind, count=gpus) if gpus else None,
        resources=Resources(cpu_cores=cpu_cores, memory_gb=memory_gb, disk_gb=disk_gb),
        scaling=Scaling(min_replicas=replicas, max_replicas=max(1, replicas if most is None else most)),
    )


def requested(endpoint_id: str, wanted: EndpointSpec | None = None, *, version: int = 1) -> EndpointRequested:
    return EndpointRequested(
        endpoint_id=endpoint_id,
        organization_id="org_a",
        version=version,
        workspace_id="ws_a",
        workspace="default",
        slug="iris",
        spec=wanted or spec(),
        source=PinnedSource(
            uri="https://example.com/iris.git", ref="HEAD", commit="0" * 40, requirements="pydantic==2.11.0"
        ),
    )


def report(replica: Replica, sequence: int, phase: ReplicaPhase, **fields: Any) -> ReplicaReported:
    if phase == "ready":
        fields.setdefault("address", f"127.0.0.1:{9000 + replica.generation}")
    return ReplicaReported(
        **{
            "host_id": replica.host_id,
            "replica_id": replica.replica_id,
            "endpoint_id": replica.endpoint_id,
            "generation": replica.generation,
            "sequence": sequence,
            "phase": phase,
            **fields,
        }
    )


def scaling_wish(route: Route, replicas: int, **fields: Any) -> ScaleEndpoint:
    """What an autoscaler that sees this route wishes."""
    return ScaleEndpoint(
        **{
            "endpoint_id": route.endpoint_id,
            "route_version": route.version,
            "replicas": replicas,
            "minimum": route.scaling.min_replicas,
            "reason": f"load for {replicas}",
            **fields,
        }
    )


def inventory(gpus: int = 4, kind: str = RTX, *, cpu_cores: int = 16, host_id: str = "host-a") -> Inventory:
    return Inventory(
        cpu_cores=cpu_cores,
        memory_gb=64,
        disk_gb=500,
        gpus=tuple(GpuPart(uuid=f"{host_id}-{kind}-{n}", type=kind, memory_gb=24) for n in range(gpus)),
    )


def heartbeat(host_id: str = "host-a", parts: Inventory | None = None, **fields: Any) -> Heartbeat:
    return Heartbeat(
        **{
            "host_id": host_id,
            "boot_id": "boot-1",
            "driver": "process",
            "inventory": parts or inventory(host_id=host_id),
            "reports": (),
            **fields,
        }
    )


# --- for planning alone ---------------------------------------------------------------------


def host(host_id: str = "host-a", gpus: int = 4, kind: str = RTX, **fields: Any) -> Host:
    return Host(
        **{
            "host_id": host_id,
            "state": "up",
            "boot_id": "boot-1",
            "driver": "process",
            "cpu_cores": 16,
            "memory_gb": 64,
            "disk_gb": 500,
            "simulated": False,
            "last_seen_at": T0,
            "gpus": tuple(Gpu(f"{host_id}-{kind}-{n}", kind, 24) for n in range(gpus)),
            **fields,
        }
    )


def demand(gpus: int = 0, kind: str = RTX, *, cpu_cores: int = 1, memory_gb: int = 2, disk_gb: int = 10) -> Demand:
    return Demand(cpu_cores, memory_gb, disk_gb, kind if gpus else None, gpus)


def endpoint(endpoint_id: str, needs: Demand | None = None, *, after_s: float = 0, **fields: Any) -> EndpointRecord:
    """All the replicas it desires must run, unless `required_replicas` says otherwise."""
    return EndpointRecord(
        **{
            "endpoint_id": endpoint_id,
            "state": "queued",
            "demand": needs or demand(),
            "desired_replicas": 1,
            "required_replicas": fields.get("desired_replicas", 1),
            "requested_at": at(after_s),
            "request_version": 1,
            **fields,
        }
    )


def replica(endpoint_id: str, host_id: str = "host-a", needs: Demand | None = None, **fields: Any) -> Replica:
    generation = fields.get("generation", 1)
    return Replica(
        **{
            "replica_id": f"rep_{endpoint_id}_{generation}",
            "endpoint_id": endpoint_id,
            "host_id": host_id,
            "generation": 1,
            "demand": needs or demand(),
            "gpu_uuids": (),
            "phase": "ready",
            "scheduled_at": T0,
            "ready_at": T0,
            "address": "127.0.0.1:9001",
            **fields,
        }
    )


def snapshot(
    hosts: list[Host], endpoints: list[EndpointRecord], replicas: list[Replica] | None = None, **fields: Any
) -> Snapshot:
    live = tuple(replicas or ())
    return Snapshot(
        **{
            "policy": Policy(),
            "hosts": tuple(hosts),
            "endpoints": tuple(endpoints),
            "replicas": live,
            "reserved": frozenset(gpu_uuid for each in live for gpu_uuid in each.gpu_uuids),
            "listening_since": T0,
            **fields,
        }
    )
