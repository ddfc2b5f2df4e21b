"""An endpoint as the API keeps it, and what belongs to it."""

from dataclasses import dataclass
from datetime import datetime

from penstock_api.domain.lifecycle import EndpointStatus
from penstock_api.domain.timeline import Phase
from penstock_common.contracts.endpoint import EndpointSpec, PinnedSource


@dataclass(frozen=True, slots=True)
class Endpoint:
    id: str
    organization_id: str
    workspace_id: str
    workspace: str
    """The workspace's slug."""
    slug: str
    spec: EndpointSpec
    source: PinnedSource
    request_version: int
    """Version of the last request published about it."""
    status: EndpointStatus
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A line of an endpoint's history, with its number."""

    id: int
    at: datetime
    type: str
    phase: Phase
    message: str
    replica_id: str | None


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A log line, with its number."""

    id: int
    at: datetime
    replica_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of an organization's endpoints to list; None leaves a part open."""

    workspace: str | None = None
    slug: str | None = None
    state: str | None = None
    """Without it: all but the terminated."""
