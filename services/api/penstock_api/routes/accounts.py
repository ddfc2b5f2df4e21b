"""`/v1/me`, organizations, workspaces, members and API keys."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from penstock_api.domain.problems import CONFLICT, IDEMPOTENCY_MISMATCH, NOT_FOUND
from penstock_api.handlers import accounts, keys
from penstock_api.routes.common import (
    AnyCaller,
    PlatformAdmin,
    ReadsAccount,
    TheApi,
    TheAttempt,
    ThePage,
    WritesAccount,
    answered,
    errors,
)
from penstock_api.views import accounts as views

Slug = Annotated[str, Path(description="Workspace's slug.", examples=["vision"])]
MemberId = Annotated[str, Path(description="Member's id.", examples=["mem_01kc4v5s8mf7q9x2t6w3y1z0ab"])]
KeyId = Annotated[str, Path(description="Key's id.", examples=["key_01kc4v5s8mf7q9x2t6w3y1z0ab"])]

router = APIRouter(prefix="/v1", tags=["accounts"])


@router.get("/me", responses=errors(), summary="Who am I")
async def show_me(caller: AnyCaller) -> views.Me:
    """The organization, member and scopes of the API key."""
    return accounts.me(caller)


@router.get("/organizations", responses=errors(), summary="List organizations")
async def list_organizations(api: TheApi, _: PlatformAdmin, page: ThePage) -> views.OrganizationPage:
    """All organizations of the platform, oldest first."""
    async with api.platform.transaction() as store:
        return await accounts.list_organizations(store, page)


@router.post(
    "/organizations",
    status_code=201,
    response_model=views.OrganizationCreated,
    responses=errors(IDEMPOTENCY_MISMATCH, body=True),
    summary="Create an organization",
)
async def create_organization(
    api: TheApi, caller: PlatformAdmin, attempt: TheAttempt, body: views.NewOrganization
) -> Response:
    """With a member that owns it, and that member's first API key."""
    return answered(await accounts.create_organization(api.platform, caller, body, attempt(caller)))


@router.get("/workspaces", responses=errors(), summary="List workspaces")
async def list_workspaces(api: TheApi, caller: ReadsAccount, page: ThePage) -> views.WorkspacePage:
    """The organization's workspaces, oldest first."""
    async with api.platform.transaction() as store:
        return await accounts.list_workspaces(store, caller, page)


@router.post(
    "/workspaces",
    status_code=201,
    response_model=views.Workspace,
    responses=errors(IDEMPOTENCY_MISMATCH, body=True),
    summary="Create a workspace",
)
async def create_workspace(
    api: TheApi, caller: WritesAccount, attempt: TheAttempt, body: views.NewWorkspace
) -> Response:
    """A place for endpoints; its slug is part of their URLs."""
    return answered(await accounts.create_workspace(api.platform, caller, body, attempt(caller)))


@router.delete(
    "/workspaces/{slug}", status_code=204, responses=errors(NOT_FOUND, CONFLICT), summary="Delete a workspace"
)
async def delete_workspace(api: TheApi, caller: WritesAccount, slug: Slug) -> None:
    """Only when all its endpoints are terminated."""
    async with api.platform.transaction() as store:
        await accounts.delete_workspace(store, caller, slug)


@router.get("/members", responses=errors(), summary="List members")
async def list_members(api: TheApi, caller: ReadsAccount, page: ThePage) -> views.MemberPage:
    """The organization's members, oldest first."""
    async with api.platform.transaction() as store:
        return await accounts.list_members(store, caller, page)


@router.post(
    "/members",
    status_code=201,
    response_model=views.Member,
    responses=errors(IDEMPOTENCY_MISMATCH, body=True),
    summary="Add a member",
)
async def create_member(api: TheApi, caller: WritesAccount, attempt: TheAttempt, body: views.NewMember) -> Response:
    """A person, or a program, that acts through API keys of its own."""
    return answered(await accounts.create_member(api.platform, caller, body, attempt(caller)))


@router.patch("/members/{member_id}", responses=errors(NOT_FOUND, CONFLICT, body=True), summary="Change a member")
async def change_member(
    api: TheApi, caller: WritesAccount, member_id: MemberId, body: views.MemberChange
) -> views.Member:
    """Name or role. A new role changes at once what the member's keys may do."""
    async with api.platform.transaction() as store:
        member = await accounts.change_member(store, caller, member_id, body)
    api.authentication.forget_all()
    return member


@router.delete(
    "/members/{member_id}", status_code=204, responses=errors(NOT_FOUND, CONFLICT), summary="Remove a member"
)
async def remove_member(api: TheApi, caller: WritesAccount, member_id: MemberId) -> None:
    """The member's API keys are revoked."""
    async with api.platform.transaction() as store:
        await accounts.remove_member(store, caller, member_id)
    api.authentication.forget_all()


@router.get("/api-keys", responses=errors(), summary="List API keys")
async def list_api_keys(api: TheApi, caller: ReadsAccount, page: ThePage) -> views.ApiKeyPage:
    """The organization's API keys, oldest first, without their texts."""
    async with api.platform.transaction() as store:
        return await keys.list_keys(store, caller, page)


@router.post(
    "/api-keys",
    status_code=201,
    response_model=views.ApiKeyCreated,
    responses=errors(IDEMPOTENCY_MISMATCH, body=True),
    summary="Create an API key",
)
async def create_api_key(api: TheApi, caller: WritesAccount, attempt: TheAttempt, body: views.NewApiKey) -> Response:
    """Its text is in this answer and cannot be shown again. It may do no more than you and its member may."""
    return answered(await keys.create_key(api.platform, caller, body, attempt(caller)))


@router.delete("/api-keys/{key_id}", status_code=204, responses=errors(NOT_FOUND), summary="Revoke an API key")
async def revoke_api_key(api: TheApi, caller: WritesAccount, key_id: KeyId) -> None:
    """It stops working at once here, and within moments at the gateway."""
    async with api.platform.transaction() as store:
        await keys.revoke_key(store, caller, key_id)
    api.authentication.forget_all()
