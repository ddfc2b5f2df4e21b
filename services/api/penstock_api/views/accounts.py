"""Bodies and answers about organizations, workspaces, members and API keys."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

from penstock_api.domain.access import Role, Scope
from penstock_api.views.base import Body, Email, Name, View, maybe_moment, moment, next_cursor
from penstock_common.contracts.endpoint import Slug

_ROLE = "owner and admin may change the account, developer may change and call endpoints, viewer may read."
_MEMBER_ID = "mem_01kc4v5s8mf7q9x2t6w3y1z0ab"
_KEY_ID = "key_01kc4v5s8mf7q9x2t6w3y1z0ab"
_SCOPES = ["endpoints:read", "endpoints:invoke"]


class Me(View):
    """Who the API key belongs to, and what it may do."""

    organization_id: str = Field(description="Organization's id.", examples=["org_01kc4v5s8mf7q9x2t6w3y1z0ab"])
    organization: str = Field(description="Organization's name.", examples=["Acme"])
    member_id: str = Field(description="Member's id.", examples=[_MEMBER_ID])
    member: str = Field(description="Member's name.", examples=["Ada Lovelace"])
    role: Role = Field(description=f"Member's role: {_ROLE}")
    key_id: str = Field(description="Id of the key itself.", examples=[_KEY_ID])
    scopes: list[Scope] = Field(
        description="What the key may do: what both its scopes and the member's role allow.", examples=[_SCOPES]
    )


class Organization(View):
    """An organization: its members share its workspaces and its bill."""

    id: str = Field(description="Its id.", examples=["org_01kc4v5s8mf7q9x2t6w3y1z0ab"])
    name: str = Field(description="Its name, unique on the platform.", examples=["Acme"])
    created_at: datetime = moment("When it was created.")


class Member(View):
    """A person, or a program, of an organization."""

    id: str = Field(description="Their id.", examples=[_MEMBER_ID])
    email: str = Field(description="E-mail address, unique in the organization.", examples=["ada@acme.example"])
    name: str = Field(description="Name.", examples=["Ada Lovelace"])
    role: Role = Field(description=f"Role: {_ROLE}")
    created_at: datetime = moment("When they joined.")


class Workspace(View):
    """A place for endpoints; its slug is part of their URLs."""

    id: str = Field(description="Its id.", examples=["ws_01kc4v5s8mf7q9x2t6w3y1z0ab"])
    slug: str = Field(description="Its name in URLs, unique on the platform.", examples=["vision"])
    created_at: datetime = moment("When it was created.")


class ApiKey(View):
    """An API key, without its text: that is shown once, when it is created."""

    id: str = Field(description="Its id.", examples=[_KEY_ID])
    name: str = Field(description="What its owner calls it.", examples=["ci"])
    start: str = Field(description="First characters of its text, to know it by.", examples=["psk_4fK9"])
    member_id: str = Field(description="Member it acts for.", examples=[_MEMBER_ID])
    scopes: list[Scope] = Field(description="What it may do, as far as its member's role allows.", examples=[_SCOPES])
    created_at: datetime = moment("When it was created.")
    expires_at: datetime | None = maybe_moment("When it stops working; null for never.")
    last_used_at: datetime | None = maybe_moment("When it was last used, to the minute; null for never.")


class ApiKeyCreated(ApiKey):
    """A new API key with its text. Keep it: it cannot be shown again."""

    key: str = Field(description="The key itself.", examples=["psk_4fK9sT0aWcB2nLr7QeXz5mUvYh1JdG3oPw81kZ"])


class OrganizationCreated(View):
    """A new organization, the member that owns it, and that member's first API key."""

    organization: Organization = Field(description="The organization.")
    owner: Member = Field(description="Its first member, with the role owner.")
    api_key: ApiKeyCreated = Field(description="The owner's key, with every scope of an owner.")


class OrganizationPage(View):
    """A part of the list of organizations, oldest first."""

    items: list[Organization] = Field(description="Organizations.")
    next_cursor: str | None = next_cursor()


class WorkspacePage(View):
    """A part of the list of workspaces, oldest first."""

    items: list[Workspace] = Field(description="Workspaces.")
    next_cursor: str | None = next_cursor()


class MemberPage(View):
    """A part of the list of members, oldest first."""

    items: list[Member] = Field(description="Members.")
    next_cursor: str | None = next_cursor()


class ApiKeyPage(View):
    """A part of the list of API keys, oldest first. Revoked ones are not in it."""

    items: list[ApiKey] = Field(description="API keys.")
    next_cursor: str | None = next_cursor()


class NewOrganization(Body):
    """An organization to create."""

    name: Name = Field(description="Its name, unique on the platform.", examples=["Acme"])
    owner_name: Name = Field(default="Owner", description="Name of its first member.", examples=["Ada Lovelace"])
    owner_email: Email = Field(
        default="owner@localhost", description="E-mail address of its first member.", examples=["ada@acme.example"]
    )


class NewWorkspace(Body):
    """A workspace to create."""

    slug: Slug = Field(
        description="Its name in URLs: lower-case letters, digits and hyphens; unique on the platform.",
        examples=["vision"],
    )


class NewMember(Body):
    """A member to add."""

    email: Email = Field(description="E-mail address, unique in the organization.", examples=["ada@acme.example"])
    name: Name = Field(description="Name.", examples=["Ada Lovelace"])
    role: Role = Field(description=f"Role: {_ROLE}", examples=["developer"])


class MemberChange(Body):
    """What to change of a member; what is left out stays."""

    name: Name | None = Field(default=None, description="New name.", examples=["Ada King"])
    role: Role | None = Field(default=None, description=f"New role: {_ROLE}", examples=["admin"])


class NewApiKey(Body):
    """An API key to create."""

    name: Name = Field(description="What to call it.", examples=["ci"])
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=16)] | None = Field(
        default=None,
        description="What it may do; without it, all that both you and the member may, except platform:admin.",
        examples=[_SCOPES],
    )
    expires_at: AwareDatetime | None = Field(
        default=None,
        description="When it stops working, with a time zone; without it, never.",
        examples=["2027-01-01T00:00:00Z"],
    )
    member_id: str | None = Field(
        default=None, max_length=64, description="Member it acts for; without it, you.", examples=[_MEMBER_ID]
    )
