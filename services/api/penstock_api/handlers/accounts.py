"""Requests about organizations, workspaces and members."""

from penstock_api.domain import cursors
from penstock_api.domain.access import SCOPES as ALL_SCOPES
from penstock_api.domain.access import Caller, Role, check_role_change, effective_scopes
from penstock_api.domain.accounts import Member, NewKey
from penstock_api.domain.idempotency import Attempt
from penstock_api.domain.problems import conflict, invalid_field, not_found
from penstock_api.handlers.once import Answer, Created, new_key_text, once
from penstock_api.handlers.platform import Page, Platform
from penstock_api.store import Store
from penstock_api.views import accounts as views
from penstock_common.ids import API_KEY, MEMBER, ORGANIZATION, WORKSPACE, is_id, new_id


def me(caller: Caller) -> views.Me:
    return views.Me(
        organization_id=caller.organization_id,
        organization=caller.organization,
        member_id=caller.member_id,
        member=caller.member,
        role=caller.role,
        key_id=caller.key_id,
        scopes=[scope for scope in ALL_SCOPES if scope in caller.scopes],
    )


# --- organizations --------------------------------------------------------------------------


async def list_organizations(store: Store, page: Page) -> views.OrganizationPage:
    after = None if page.cursor is None else cursors.read_id(ORGANIZATION, page.cursor)
    found = await store.accounts.organizations(after, page.limit + 1)
    shown = found[: page.limit]
    return views.OrganizationPage(
        items=[views.Organization.model_validate(organization) for organization in shown],
        next_cursor=cursors.after_id(ORGANIZATION, shown[-1].id) if len(found) > page.limit else None,
    )


async def create_organization(
    platform: Platform, caller: Caller, body: views.NewOrganization, attempt: Attempt | None
) -> Answer:
    """With its owner and that owner's first key, so that somebody can do something with it."""

    async def save(store: Store) -> Created:
        await store.keys.lock()
        organization = await store.accounts.add_organization(new_id(ORGANIZATION), body.name)
        if organization is None:
            raise invalid_field("name", f"there is an organization named {body.name!r}: choose another name")
        owner = await store.accounts.add_member(
            new_id(MEMBER), organization.id, email=body.owner_email, name=body.owner_name, role="owner"
        )
        if owner is None:
            raise LookupError("a new organization had a member already")
        text = new_key_text(caller, attempt)
        key = await store.keys.add(
            NewKey(
                id=new_id(API_KEY),
                organization_id=organization.id,
                member_id=owner.id,
                name="first key",
                text=text.text,
                scopes=effective_scopes(ALL_SCOPES, "owner", operator=False),
                expires_at=None,
            )
        )
        view = views.OrganizationCreated(
            organization=views.Organization.model_validate(organization),
            owner=views.Member.model_validate(owner),
            api_key=views.ApiKeyCreated(**views.ApiKey.model_validate(key).model_dump(), key=text.text),
        )
        return Created(view, text)

    return await once(platform, caller, attempt, save)


# --- workspaces -----------------------------------------------------------------------------


async def list_workspaces(store: Store, caller: Caller, page: Page) -> views.WorkspacePage:
    after = None if page.cursor is None else cursors.read_id(WORKSPACE, page.cursor)
    found = await store.accounts.workspaces(caller.organization_id, after, page.limit + 1)
    shown = found[: page.limit]
    return views.WorkspacePage(
        items=[views.Workspace.model_validate(workspace) for workspace in shown],
        next_cursor=cursors.after_id(WORKSPACE, shown[-1].id) if len(found) > page.limit else None,
    )


async def create_workspace(
    platform: Platform, caller: Caller, body: views.NewWorkspace, attempt: Attempt | None
) -> Answer:
    async def save(store: Store) -> Created:
        workspace = await store.accounts.add_workspace(new_id(WORKSPACE), caller.organization_id, body.slug)
        if workspace is None:
            raise invalid_field(
                "slug", f"the workspace name {body.slug!r} is taken (they are unique on the platform): choose another"
            )
        return Created(views.Workspace.model_validate(workspace))

    return await once(platform, caller, attempt, save)


async def delete_workspace(store: Store, caller: Caller, slug: str) -> None:
    workspace = await store.accounts.workspace_to_delete(caller.organization_id, slug)
    if workspace is None:
        raise not_found("workspace", slug)
    if await store.endpoints.workspace_is_used(workspace.id):
        raise conflict(f"The workspace {slug!r} still has endpoints: terminate them first, then delete it.")
    await store.accounts.delete_workspace(workspace.id)


# --- members --------------------------------------------------------------------------------


async def list_members(store: Store, caller: Caller, page: Page) -> views.MemberPage:
    after = None if page.cursor is None else cursors.read_id(MEMBER, page.cursor)
    found = await store.accounts.members(caller.organization_id, after, page.limit + 1)
    shown = found[: page.limit]
    return views.MemberPage(
        items=[views.Member.model_validate(member) for member in shown],
        next_cursor=cursors.after_id(MEMBER, shown[-1].id) if len(found) > page.limit else None,
    )


async def create_member(platform: Platform, caller: Caller, body: views.NewMember, attempt: Attempt | None) -> Answer:
    async def save(store: Store) -> Created:
        check_role_change(caller, old=None, new=body.role, owners=1)
        member = await store.accounts.add_member(
            new_id(MEMBER), caller.organization_id, email=body.email, name=body.name, role=body.role
        )
        if member is None:
            raise invalid_field("email", f"{body.email} is a member already: change that member instead")
        return Created(views.Member.model_validate(member))

    return await once(platform, caller, attempt, save)


async def change_member(store: Store, caller: Caller, identifier: str, body: views.MemberChange) -> views.Member:
    """A new role takes effect on the member's keys at once, at the gateway within moments."""
    member = await _member_to_change(store, caller, identifier)
    role: Role = body.role or member.role
    if role != member.role:
        check_role_change(caller, old=member.role, new=role, owners=await store.accounts.owners(caller.organization_id))
    changed = await store.accounts.change_member(member.id, name=body.name or member.name, role=role)
    if role != member.role:
        await store.keys.write_records_of_member(member.id)
    return views.Member.model_validate(changed)


async def remove_member(store: Store, caller: Caller, identifier: str) -> None:
    """Their keys are revoked."""
    member = await _member_to_change(store, caller, identifier)
    check_role_change(caller, old=member.role, new=None, owners=await store.accounts.owners(caller.organization_id))
    await store.keys.revoke_of_member(member.id)
    await store.accounts.remove_member(member.id)


async def _member_to_change(store: Store, caller: Caller, identifier: str) -> Member:
    await store.keys.lock()
    member = await store.accounts.member(caller.organization_id, identifier) if is_id(MEMBER, identifier) else None
    if member is None:
        raise not_found("member", identifier)
    return member
