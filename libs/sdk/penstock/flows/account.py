"""Workspaces, members and API keys of the caller's organization."""

from collections.abc import Sequence

from penstock.context import Context, segment
from penstock.effects import Steps, Stream
from penstock.exchange import call, fetch, pages
from penstock.flows.capacity import Moment, moment
from penstock.models.account import ApiKey, Member, NewApiKey, Workspace


def workspaces(ctx: Context) -> Stream[Workspace]:
    """Every workspace."""
    return pages(ctx, "/v1/workspaces", Workspace)


def create_workspace(ctx: Context, slug: str, *, idempotency_key: str | None = None) -> Steps[Workspace]:
    """Make a workspace. Raises Conflict or InvalidRequest when the slug is taken; it must be unique."""
    return (yield from fetch(ctx, ctx.create("/v1/workspaces", {"slug": slug}, idempotency_key), Workspace))


def delete_workspace(ctx: Context, slug: str) -> Steps[None]:
    """Remove a workspace. Raises Conflict while it has endpoints."""
    yield from call(ctx, ctx.api("DELETE", f"/v1/workspaces/{segment(slug)}"))


def members(ctx: Context) -> Stream[Member]:
    """Every member of the organization."""
    return pages(ctx, "/v1/members", Member)


def create_member(
    ctx: Context, *, email: str, role: str = "developer", name: str | None = None, idempotency_key: str | None = None
) -> Steps[Member]:
    """Add a member. `role` is owner, admin, developer or viewer."""
    body = {"email": email, "role": role, "name": name or email.partition("@")[0]}
    return (yield from fetch(ctx, ctx.create("/v1/members", body, idempotency_key), Member))


def update_member(ctx: Context, member_id: str, *, role: str | None = None, name: str | None = None) -> Steps[Member]:
    """Change a member's role or name."""
    body = {key: value for key, value in {"role": role, "name": name}.items() if value is not None}
    return (yield from fetch(ctx, ctx.api("PATCH", f"/v1/members/{segment(member_id)}", json=body), Member))


def delete_member(ctx: Context, member_id: str) -> Steps[None]:
    """Remove a member, and revoke all their keys."""
    yield from call(ctx, ctx.api("DELETE", f"/v1/members/{segment(member_id)}"))


def api_keys(ctx: Context) -> Stream[ApiKey]:
    """Every API key of the organization, without their texts."""
    return pages(ctx, "/v1/api-keys", ApiKey)


def create_api_key(
    ctx: Context,
    name: str,
    *,
    scopes: Sequence[str] | None = None,
    expires_at: Moment | None = None,
    member_id: str | None = None,
    idempotency_key: str | None = None,
) -> Steps[NewApiKey]:
    """Make an API key. Its text is in the answer's `key`, and is never told again."""
    body: dict[str, object] = {"name": name}
    if scopes is not None:
        body["scopes"] = list(scopes)
    if expires_at is not None:
        body["expires_at"] = moment(expires_at)
    if member_id is not None:
        body["member_id"] = member_id
    return (yield from fetch(ctx, ctx.create("/v1/api-keys", body, idempotency_key), NewApiKey))


def revoke_api_key(ctx: Context, key_id: str) -> Steps[None]:
    """End an API key at once."""
    yield from call(ctx, ctx.api("DELETE", f"/v1/api-keys/{segment(key_id)}"))
