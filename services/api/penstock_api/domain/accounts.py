"""Who uses the platform: organizations, their workspaces, members and API keys."""

from dataclasses import dataclass
from datetime import datetime

from penstock_api.domain.access import Role, Scope, effective_scopes
from penstock_common.contracts.records import ApiKeyRecord


@dataclass(frozen=True, slots=True)
class Organization:
    id: str
    name: str
    operator: bool
    """Whether it runs the platform."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Workspace:
    id: str
    organization_id: str
    slug: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    organization_id: str
    email: str
    name: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: its text is not."""

    id: str
    organization_id: str
    member_id: str
    name: str
    start: str
    scopes: tuple[Scope, ...]
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored."""

    id: str
    organization_id: str
    member_id: str
    name: str
    text: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None


def bucket_record(key: ApiKey, role: Role, *, operator: bool) -> ApiKeyRecord:
    """What the gateway must know of a key whose member has this role."""
    return ApiKeyRecord(
        sha256=key.sha256,
        key_id=key.id,
        organization_id=key.organization_id,
        scopes=effective_scopes(key.scopes, role, operator=operator),
        expires_at=key.expires_at,
    )
