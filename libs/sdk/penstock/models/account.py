"""Organizations, workspaces, members and API keys."""

from pydantic import Field

from penstock.models.base import Result, Utc


class Me(Result):
    """Who this client's key belongs to, and what it may do."""

    organization_id: str
    organization: str
    member_id: str
    member: str
    role: str
    key_id: str
    scopes: tuple[str, ...] = ()


class Workspace(Result):
    id: str = ""
    slug: str
    created_at: Utc | None = None


class Member(Result):
    id: str
    email: str
    name: str = ""
    role: str
    """owner, admin, developer or viewer."""
    created_at: Utc | None = None


class ApiKey(Result):
    """An API key without its text, which is told only once."""

    id: str
    name: str
    start: str = ""
    """Its first characters, to tell it from others."""
    member_id: str = ""
    scopes: tuple[str, ...] = ()
    created_at: Utc | None = None
    expires_at: Utc | None = None
    """When it stops working; None for never."""
    last_used_at: Utc | None = None


class NewApiKey(ApiKey):
    """An API key that was just made, with its text: keep it, for it is not told again."""

    key: str = Field(repr=False)


class Organization(Result):
    id: str
    name: str
    created_at: Utc | None = None


class NewOrganization(Result):
    """An organization that was just made, the member who owns it, and that member's first key."""

    organization: Organization
    owner: Member
    api_key: NewApiKey
