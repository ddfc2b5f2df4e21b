"""`penstock workspace`, `member` and `key`: the account."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock import config
from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import client
from penstock.cli.exits import UsageProblem
from penstock.cli.words import ago, moment_of, timestamp

workspace_app = typer.Typer(help="Workspaces: places for endpoints, part of their URLs.", no_args_is_help=True)
member_app = typer.Typer(help="Members: the people of your organization, and their roles.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)

Slug = Annotated[str, typer.Argument(metavar="SLUG", help="Its name in URLs.", show_default=False)]
MemberId = Annotated[str, typer.Argument(metavar="ID", help="The member's id or e-mail address.", show_default=False)]
ROLES = "owner, admin, developer or viewer"


def register(app: typer.Typer, panel: str) -> None:
    """Add these commands."""
    app.add_typer(workspace_app, name="workspace", rich_help_panel=panel)
    app.add_typer(member_app, name="member", rich_help_panel=panel)
    app.add_typer(key_app, name="key", rich_help_panel=panel)


# --- workspaces -------------------------------------------------------------------------------


@workspace_app.command("list")
def list_workspaces(as_json: take.AsJson = False) -> None:
    """List workspaces."""
    with client() as penstock:
        found = list(penstock.workspaces.list())
    if as_json:
        output.document(found)
        return
    now = datetime.now(UTC)
    output.table(("WORKSPACE", "CREATED"), ((each.slug, ago(each.created_at, now)) for each in found))


@workspace_app.command("create", epilog="Example:  penstock workspace create vision")
def create_workspace(slug: Slug, as_json: take.AsJson = False) -> None:
    """Make a workspace."""
    with client() as penstock:
        made = penstock.workspaces.create(slug)
    output.document(made) if as_json else output.line(f"Workspace {made.slug} is made.")


@workspace_app.command("delete")
def delete_workspace(slug: Slug, as_json: take.AsJson = False) -> None:
    """Remove a workspace that has no endpoints."""
    with client() as penstock:
        penstock.workspaces.delete(slug)
    output.document({"deleted": slug}) if as_json else output.line(f"Workspace {slug} is removed.")


# --- members ----------------------------------------------------------------------------------


@member_app.command("list")
def list_members(as_json: take.AsJson = False) -> None:
    """List members."""
    with client() as penstock:
        found = list(penstock.members.list())
    if as_json:
        output.document(found)
        return
    output.table(("ID", "EMAIL", "NAME", "ROLE"), ((each.id, each.email, each.name, each.role) for each in found))


@member_app.command("create", epilog="Example:  penstock member create ada@acme.example --role admin")
def create_member(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="E-mail address.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="Name; from the address if left out.")] = None,
    role: Annotated[str, typer.Option("--role", help=f"One of {ROLES}.")] = "developer",
    as_json: take.AsJson = False,
) -> None:
    """Add a member. They get in with a key: `penstock key create --member ID`."""
    with client() as penstock:
        made = penstock.members.create(email=email, name=name, role=role)
    output.document(made) if as_json else output.line(
        f"{made.email} is a member now, {made.role}, with the id {made.id}."
    )


@member_app.command("update", epilog="Example:  penstock member update ada@acme.example --role viewer")
def update_member(
    member: MemberId,
    role: Annotated[str | None, typer.Option("--role", help=f"New role: {ROLES}.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="New name.")] = None,
    as_json: take.AsJson = False,
) -> None:
    """Change a member's role or name."""
    if role is None and name is None:
        raise UsageProblem("There is nothing to change: give --role or --name.")
    with client() as penstock:
        changed = penstock.members.update(_member_id(member), role=role, name=name)
    output.document(changed) if as_json else output.line(f"{changed.email} is {changed.role} now.")


@member_app.command("delete")
def delete_member(member: MemberId, as_json: take.AsJson = False) -> None:
    """Remove a member, and revoke their keys."""
    with client() as penstock:
        member_id = _member_id(member)
        penstock.members.delete(member_id)
    output.document({"deleted": member_id}) if as_json else output.line(f"Member {member} is removed.")


def _member_id(text: str) -> str:
    """The id of a member named by id or e-mail address."""
    if "@" not in text:
        return text
    with client() as penstock:
        return next((each.id for each in penstock.members.list() if each.email == text.lower()), text)


# --- keys -------------------------------------------------------------------------------------


@key_app.command("list")
def list_keys(as_json: take.AsJson = False) -> None:
    """List API keys, without their text."""
    with client() as penstock:
        found = list(penstock.api_keys.list())
    if as_json:
        output.document(found)
        return
    now = datetime.now(UTC)
    output.table(
        ("ID", "NAME", "STARTS WITH", "SCOPES", "LAST USED", "EXPIRES"),
        (
            (
                key.id,
                key.name,
                f"{key.start}…" if key.start else "",
                ", ".join(key.scopes),
                ago(key.last_used_at, now) or "never",
                timestamp(key.expires_at) if key.expires_at else "never",
            )
            for key in found
        ),
    )


@key_app.command(
    "create",
    epilog="""\
Examples:
  penstock key create ci --scope endpoints:invoke
  PENSTOCK_API_KEY=$(penstock key create laptop --expires 2027-01-01)""",
)
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What it may do; several times for several. Without it, all that you may."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="When it stops working; never if left out.")
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="ID", help="Member it acts for, by id or e-mail; you if left out."),
    ] = None,
    as_json: take.AsJson = False,
) -> None:
    """Make an API key and print its text, which is never shown again."""
    expires_at = moment_of(expires, "--expires", datetime.now(UTC)) if expires else None
    with client() as penstock:
        made = penstock.api_keys.create(
            name, scopes=scope or None, expires_at=expires_at, member_id=_member_id(member) if member else None
        )
    if as_json:
        output.document(made)
        return
    output.line(made.key)
    output.note(f"Keep it: it cannot be shown again. Its id is {made.id}.")


@key_app.command("revoke")
def revoke_key(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="The key's id, from `penstock key list`.", show_default=False)
    ],
    as_json: take.AsJson = False,
) -> None:
    """End an API key at once."""
    with client() as penstock:
        penstock.api_keys.revoke(key_id)
    output.document({"revoked": key_id}) if as_json else output.line(f"Key {key_id} is revoked.")


@key_app.command("current", epilog='Example:  curl -H "Authorization: Bearer $(penstock key current)" …')
def current_key(as_json: take.AsJson = False) -> None:
    """Print the API key that these commands use, for scripts."""
    key = config.load().api_key
    output.document({"key": key}) if as_json else output.line(key)
