"""One example of every message and record: for the golden files, and for the published documents."""

from datetime import UTC, datetime

from penstock_common.contracts import events as e
from penstock_common.contracts.base import Message, Record
from penstock_common.contracts.endpoint import (
    BodyParameter,
    EndpointSpec,
    GitSource,
    GpuRequest,
    PinnedSource,
    RouteSpec,
)
from penstock_common.contracts.records import ApiKeyRecord, Assignment, Route, RouteReplica

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
ENDPOINT = "ep_01jn8x2k3gf7r9qz4w5t6v7y8a"
REPLICA = "rep_01jn8x2m1cf7r9qz4w5t6v7y8b"
ORGANIZATION = "org_01jn8wzz00f7r9qz4w5t6v7y8c"
WORKSPACE = "ws_01jn8wzz11f7r9qz4w5t6v7y8d"

ROUTE = RouteSpec(
    path="/predict",
    file="predict",
    function="predict",
    positional=True,
    body=(
        BodyParameter(name="features", type="list"),
        BodyParameter(name="top", type="int", optional=True, default_value="3"),
    ),
)
SPEC = EndpointSpec(
    name="New Inference Endpoint",
    source=GitSource(uri="https://git.example.com/acme/iris.git", ref="main"),
    routes=(ROUTE,),
    gpu=GpuRequest(type="RTX 4090", count=1),
)
SOURCE = PinnedSource(
    uri="https://git.example.com/acme/iris.git",
    ref="main",
    commit="0123456789abcdef0123456789abcdef01234567",
    requirements="numpy==2.4.6\npydantic==2.14.3\n",
)

_request = {"endpoint_id": ENDPOINT, "organization_id": ORGANIZATION, "version": 2}
_fact = {**_request, "at": AT, "reason": "all replicas are ready"}
_replica = {
    "endpoint_id": ENDPOINT,
    "organization_id": ORGANIZATION,
    "workspace_id": WORKSPACE,
    "replica_id": REPLICA,
    "host_id": "gpu-1",
    "generation": 1,
    "version": 3,
    "at": AT,
}

_FIELDS: dict[type[Message], dict[str, object]] = {
    e.EndpointRequested: {
        **_request,
        "version": 1,
        "workspace_id": WORKSPACE,
        "workspace": "default",
        "slug": "new-inference-endpoint",
        "spec": SPEC,
        "source": SOURCE,
    },
    e.EndpointStopRequested: _request,
    e.EndpointRestartRequested: _request,
    e.EndpointTerminateRequested: _request,
    e.ReplicaReported: {
        "host_id": "gpu-1",
        "replica_id": REPLICA,
        "endpoint_id": ENDPOINT,
        "generation": 1,
        "sequence": 4,
        "phase": "failed",
        "detail": "the model stopped",
        "address": None,
        "cause": "crashed",
        "exit_code": 1,
        "log_tail": "ValueError: bad weights",
    },
    e.LogLine: {"offset": 120, "at": AT, "text": "loaded in 1.2 s"},
    e.LogBatch: {
        "host_id": "gpu-1",
        "endpoint_id": ENDPOINT,
        "replica_id": REPLICA,
        "lines": (e.LogLine(offset=120, at=AT, text="loaded in 1.2 s"),),
    },
    e.EndpointQueued: {
        **_fact,
        "reason": "needs 1 x RTX 4090; none is free",
        "position": 1,
        "estimated_start_at": None,
    },
    e.EndpointStarting: _fact,
    e.EndpointRunning: {**_fact, "ready_replicas": 1},
    e.EndpointScaled: {**_fact, "reason": "8 requests wait for 1 replica", "desired_replicas": 3, "ready_replicas": 1},
    e.EndpointIdle: _fact,
    e.EndpointStopping: _fact,
    e.EndpointStopped: _fact,
    e.EndpointFailed: {**_fact, "reason": "the model stopped 3 times in a row", "log_tail": "ValueError: bad weights"},
    e.EndpointTerminating: _fact,
    e.EndpointTerminated: _fact,
    e.ReplicaScheduled: {**_replica, "gpu_type": "RTX 4090", "gpu_uuids": ("GPU-5c0f",)},
    e.ReplicaProgressed: {**_replica, "phase": "installing", "detail": "12 packages"},
    e.ReplicaStarted: {**_replica, "gpu_type": "RTX 4090", "gpu_count": 1, "cpu_cores": 1},
    e.ReplicaEnded: {
        **_replica,
        "cause": "stopped",
        "detail": "stopped as asked",
        "exit_code": 0,
        "was_ready": True,
    },
    e.HostJoined: {"host_id": "gpu-1", "at": AT},
    e.HostLost: {"host_id": "gpu-1", "at": AT, "last_seen_at": AT, "reason": "silent for 10 s"},
}

MESSAGES: dict[str, Message] = {
    kind.message_type: kind.model_validate(_FIELDS[kind]) for kind in e.MESSAGES.values() if kind in _FIELDS
}
"""An example of each message, by its type."""

RECORDS: dict[str, Record] = {
    record.bucket: record
    for record in (
        Assignment(
            host_id="gpu-1",
            replica_id=REPLICA,
            endpoint_id=ENDPOINT,
            organization_id=ORGANIZATION,
            workspace="default",
            endpoint="new-inference-endpoint",
            generation=1,
            source=SOURCE,
            routes=(ROUTE,),
            gpu_uuids=("GPU-5c0f",),
            resources=SPEC.resources,
            concurrency=1,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        Route(
            endpoint_id=ENDPOINT,
            organization_id=ORGANIZATION,
            workspace="default",
            endpoint="new-inference-endpoint",
            state="running",
            public=False,
            scaling=SPEC.scaling,
            routes=(ROUTE,),
            desired_replicas=1,
            replicas=(RouteReplica(replica_id=REPLICA, address="127.0.0.1:40001"),),
            version=4,
        ),
        ApiKeyRecord(
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            key_id="key_01jn8wzz22f7r9qz4w5t6v7y8e",
            organization_id=ORGANIZATION,
            scopes=("endpoints:invoke",),
        ),
    )
}
"""An example of each bucket record, by its bucket."""
