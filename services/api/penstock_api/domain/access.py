"""Who may do what: roles, scopes, and the caller of a request."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from penstock_api.domain.problems import FORBIDDEN, Problem, conflict, invalid
from penstock_common.contracts.questions import FieldProblem

Scope = Literal[
    "endpoints:read",
    "endpoints:write",
    "endpoints:invoke",
    "usage:read",
    "account:read",
    "account:write",
    "platform:admin",
]
Role = Literal["owner", "admin", "developer", "viewer"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
PLATFORM_ADMIN: Scope = "platform:admin"
_VIEWER: frozenset[Scope] = frozenset({"endpoints:read", "usage:read", "account:read"})
_DEVELOPER = _VIEWER | frozenset[Scope]({"endpoints:write", "endpoints:invoke"})
_ADMIN = _DEVELOPER | frozenset[Scope]({"account:write"})
_OF_ROLE: dict[Role, frozenset[Scope]] = {"viewer": _VIEWER, "developer": _DEVELOPER, "admin": _ADMIN, "owner": _ADMIN}
_RANK: dict[Role, int] = {"viewer": 0, "developer": 1, "admin": 2, "owner": 3}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, and what both the key's scopes and the member's role allow."""

    organization_id: str
    organization: str
    operator: bool
    """Whether this organization runs the platform."""
    member_id: str
    member: str
    role: Role
    key_id: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    key_text: str = field(default="", repr=False)

    def require(self, scope: Scope) -> None:
        """Raises Problem, naming the scope, when the caller does not have it."""
        if scope in self.scopes:
            return
        if scope in role_scopes(self.role, operator=self.operator):
            mend = "this key was made without it: use or create a key that has it"
        elif scope == PLATFORM_ADMIN:
            mend = "only owners of the organization that runs the platform can have it"
        else:
            mend = f"the role {self.role} does not include it: ask an owner or admin of {self.organization!r}"
        raise Problem(FORBIDDEN, f"This needs the scope {scope}; {mend}.")


def role_scopes(role: Role, *, operator: bool) -> frozenset[Scope]:
    """What a member with this role may do at most. Platform scopes go to the operator's owners only."""
    if operator and role == "owner":
        return _OF_ROLE[role] | {PLATFORM_ADMIN}
    return _OF_ROLE[role]


def effective_scopes(scopes: Iterable[str], role: Role, *, operator: bool) -> tuple[Scope, ...]:
    """What a key with these scopes may do now that its member has this role, in the order of SCOPES."""
    allowed = role_scopes(role, operator=operator) & set(scopes)
    return tuple(scope for scope in SCOPES if scope in allowed)


def scopes_for_new_key(caller: Caller, role: Role, requested: tuple[Scope, ...] | None) -> tuple[Scope, ...]:
    """The scopes of a key that `caller` creates for a member with `role`.

    Without a request: all that both have, but platform:admin, which must be asked for by name.
    Raises Problem for scopes that the caller lacks or that the role does not include, and for a
    member above the caller.
    """
    if _RANK[role] > _RANK[caller.role]:
        raise Problem(FORBIDDEN, f"The role {caller.role} may not create keys for a member with the role {role}.")
    allowed = role_scopes(role, operator=caller.operator) & caller.scopes
    if requested is None:
        return tuple(scope for scope in SCOPES if scope in allowed - {PLATFORM_ADMIN})
    errors = [
        FieldProblem(field=f"scopes.{index}", message=_why_not(scope, caller, role))
        for index, scope in enumerate(requested)
        if scope not in allowed
    ]
    if errors:
        raise invalid(*errors)
    return tuple(scope for scope in SCOPES if scope in requested)


def _why_not(scope: Scope, caller: Caller, role: Role) -> str:
    if scope not in role_scopes(role, operator=caller.operator):
        return f"the member's role {role} does not include {scope}"
    return f"your own key lacks {scope}, so it cannot give it to another"


def check_role_change(caller: Caller, *, old: Role | None, new: Role | None, owners: int) -> None:
    """Raises Problem unless `caller` may change a member's role from `old` to `new`.

    `old` is None for a member who joins, `new` is None for one who leaves; `owners` counts the
    organization's owners before the change.
    """
    if "owner" in (old, new) and caller.role != "owner":
        raise Problem(FORBIDDEN, "Only an owner may make, change or remove owners.")
    if old == "owner" and new != "owner" and owners <= 1:
        raise conflict("This is the organization's last owner: make another member owner first, then try again.")
