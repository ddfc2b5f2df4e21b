"""SQL of organizations, workspaces and members."""

from typing import Any

from penstock_api.domain.access import Role
from penstock_api.domain.accounts import Member, Organization, Workspace
from penstock_common.delivery.outbox import Connection

_ORGANIZATION = "id, name, operator, created_at"
_WORKSPACE = "id, organization_id, slug, created_at"
_MEMBER = "id, organization_id, email, name, role, created_at"


class Accounts:
    """Organizations, workspaces and members."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- organizations --------------------------------------------------------------------

    async def add_organization(self, identifier: str, name: str, *, operator: bool = False) -> Organization | None:
        """None when the name is taken (or, for an operator, when there is one)."""
        row = await self._connection.fetchrow(
            f"insert into organizations (id, name, operator) values ($1, $2, $3)"
            f" on conflict do nothing returning {_ORGANIZATION}",
            identifier,
            name,
            operator,
        )
        return None if row is None else Organization(**row)

    async def operator(self) -> Organization | None:
        row = await self._connection.fetchrow(f"select {_ORGANIZATION} from organizations where operator")
        return None if row is None else Organization(**row)

    async def organizations(self, after: str | None, limit: int) -> list[Organization]:
        rows = await self._connection.fetch(
            f"select {_ORGANIZATION} from organizations where $1::text is null or id > $1 order by id limit $2",
            after,
            limit,
        )
        return [Organization(**row) for row in rows]

    # --- workspaces -----------------------------------------------------------------------

    async def add_workspace(self, identifier: str, organization_id: str, slug: str) -> Workspace | None:
        """None when the slug is taken, by whomever."""
        row = await self._connection.fetchrow(
            f"insert into workspaces (id, organization_id, slug) values ($1, $2, $3)"
            f" on conflict do nothing returning {_WORKSPACE}",
            identifier,
            organization_id,
            slug,
        )
        return None if row is None else Workspace(**row)

    async def workspaces(self, organization_id: str, after: str | None, limit: int) -> list[Workspace]:
        rows = await self._connection.fetch(
            f"select {_WORKSPACE} from workspaces where organization_id = $1 and deleted_at is null"
            " and ($2::text is null or id > $2) order by id limit $3",
            organization_id,
            after,
            limit,
        )
        return [Workspace(**row) for row in rows]

    async def workspace(self, organization_id: str, slug: str) -> Workspace | None:
        return await self._one_workspace(organization_id, slug, "")

    async def workspace_kept(self, organization_id: str, slug: str) -> Workspace | None:
        """The same, and nobody can delete it before this transaction ends."""
        return await self._one_workspace(organization_id, slug, " for share")

    async def workspace_to_delete(self, organization_id: str, slug: str) -> Workspace | None:
        """The same, and nobody can add to it before this transaction ends."""
        return await self._one_workspace(organization_id, slug, " for update")

    async def delete_workspace(self, identifier: str) -> None:
        await self._connection.execute("update workspaces set deleted_at = clock_timestamp() where id = $1", identifier)

    async def _one_workspace(self, organization_id: str, slug: str, lock: str) -> Workspace | None:
        row = await self._connection.fetchrow(
            f"select {_WORKSPACE} from workspaces where organization_id = $1 and slug = $2 and deleted_at is null"
            + lock,
            organization_id,
            slug,
        )
        return None if row is None else Workspace(**row)

    # --- members --------------------------------------------------------------------------

    async def add_member(
        self, identifier: str, organization_id: str, *, email: str, name: str, role: Role
    ) -> Member | None:
        """None when the organization has a member with this e-mail address."""
        row = await self._connection.fetchrow(
            f"insert into members (id, organization_id, email, name, role) values ($1, $2, $3, $4, $5)"
            f" on conflict do nothing returning {_MEMBER}",
            identifier,
            organization_id,
            email,
            name,
            role,
        )
        return None if row is None else Member(**row)

    async def members(self, organization_id: str, after: str | None, limit: int) -> list[Member]:
        rows = await self._connection.fetch(
            f"select {_MEMBER} from members where organization_id = $1 and removed_at is null"
            " and ($2::text is null or id > $2) order by id limit $3",
            organization_id,
            after,
            limit,
        )
        return [Member(**row) for row in rows]

    async def member(self, organization_id: str, identifier: str) -> Member | None:
        return await self._one_member("organization_id = $1 and id = $2", organization_id, identifier)

    async def first_owner(self, organization_id: str) -> Member | None:
        return await self._one_member("organization_id = $1 and role = 'owner' order by id limit 1", organization_id)

    async def owners(self, organization_id: str) -> int:
        count: int = await self._connection.fetchval(
            "select count(*) from members where organization_id = $1 and role = 'owner' and removed_at is null",
            organization_id,
        )
        return count

    async def change_member(self, identifier: str, *, name: str, role: Role) -> Member:
        row = await self._connection.fetchrow(
            f"update members set name = $2, role = $3 where id = $1 returning {_MEMBER}", identifier, name, role
        )
        return Member(**_found(row))

    async def remove_member(self, identifier: str) -> None:
        await self._connection.execute("update members set removed_at = clock_timestamp() where id = $1", identifier)

    async def _one_member(self, condition: str, *arguments: str) -> Member | None:
        row = await self._connection.fetchrow(
            f"select {_MEMBER} from members where removed_at is null and {condition}", *arguments
        )
        return None if row is None else Member(**row)


def _found(row: Any) -> Any:
    if row is None:
        raise LookupError("a row that was locked is gone")
    return row
