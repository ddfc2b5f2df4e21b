"""Desired state, in key-value buckets: what hosts must run, where requests go, who may call."""

from typing import ClassVar

from penstock_common.contracts.base import Contract, Record, UtcTime
from penstock_common.contracts.endpoint import EndpointState, PinnedSource, Resources, RouteSpec, Scaling


class Assignment(Record):
    """One replica that a host must run. While the record exists it runs; gone means stop it."""

    bucket: ClassVar[str] = "assignments"
    host_id: str
    replica_id: str
    endpoint_id: str
    organization_id: str
    workspace: str
    endpoint: str
    """The endpoint's slug, for names and labels."""
    generation: int
    source: PinnedSource
    routes: tuple[RouteSpec, ...]
    gpu_uuids: tuple[str, ...]
    resources: Resources
    concurrency: int
    """Requests that the replica works on at the same time."""
    traceparent: str | None = None

    def key(self) -> str:
        return f"{self.host_id}.{self.replica_id}"


class RouteReplica(Contract):
    """A ready replica: where it listens."""

    replica_id: str
    address: str
    """`host:port`."""
    draining: bool = False
    """It gets no new requests; those in flight finish, and then the scheduler ends it."""


class Route(Record):
    """All that the gateway needs to know of one endpoint."""

    bucket: ClassVar[str] = "routes"
    endpoint_id: str
    organization_id: str
    workspace: str
    endpoint: str
    """The endpoint's slug."""
    state: EndpointState
    reason: str = ""
    public: bool
    scaling: Scaling
    routes: tuple[RouteSpec, ...] = ()
    """What the endpoint answers, to refuse what it would refuse before that wakes it."""
    desired_replicas: int = 0
    """How many replicas the scheduler aims for now."""
    shortage: str = ""
    """Why there are fewer than desired, when no host has room for more."""
    idle_since: UtcTime | None = None
    """Since when it has slept; None while it does not."""
    replicas: tuple[RouteReplica, ...]
    version: int

    def key(self) -> str:
        return self.endpoint_id


class ApiKeyRecord(Record):
    """A usable API key, under the SHA-256 of its text. A revoked key has no record."""

    bucket: ClassVar[str] = "api_keys"
    sha256: str
    key_id: str
    organization_id: str
    scopes: tuple[str, ...]
    expires_at: UtcTime | None = None

    def key(self) -> str:
        return self.sha256
