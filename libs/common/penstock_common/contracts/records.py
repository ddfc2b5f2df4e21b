"""Desired state, in key-value buckets: what hosts must run, where requests go, who may call."""

from typing import ClassVar

from penstock_common.contracts.base import Contract, Record, UtcTime
from penstock_common.contracts.endpoint import EndpointState, PinnedSource, Resources, RouteSpec


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
    target_concurrency: int
    queue_limit: int
    queue_timeout_s: int
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
