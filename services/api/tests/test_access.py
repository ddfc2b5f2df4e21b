"""Roles, scopes, and who may give what to whom."""

from itertools import pairwise

import pytest

from penstock_api.domain.access import (
    PLATFORM_ADMIN,
    SCOPES,
    Caller,
    Role,
    Scope,
    check_role_change,
    effective_scopes,
    role_scopes,
    scopes_for_new_key,
)
from penstock_api.domain.problems import Problem

ROLES: tuple[Role, ...] = ("viewer", "developer", "admin", "owner")


def caller(role: Role = "owner", *, operator: bool = False, scopes: tuple[Scope, ...] = SCOPES) -> Caller:
    return Caller(
        organization_id="org_1",
        organization="Acme",
        operator=operator,
        member_id="mem_1",
        member="Ada",
        role=role,
        key_id="key_1",
        scopes=frozenset(effective_scopes(scopes, role, operator=operator)),
    )


def test_each_role_may_do_all_that_the_one_below_it_may() -> None:
    for lower, higher in pairwise(ROLES):
        assert role_scopes(lower, operator=False) <= role_scopes(higher, operator=False)


@pytest.mark.parametrize("role", ROLES)
def test_platform_scopes_belong_to_owners_of_the_operator_only(role: Role) -> None:
    assert PLATFORM_ADMIN not in role_scopes(role, operator=False)
    assert (PLATFORM_ADMIN in role_scopes(role, operator=True)) == (role == "owner")


def test_a_key_may_do_what_both_its_scopes_and_the_role_allow() -> None:
    assert effective_scopes(["account:write", "endpoints:read"], "viewer", operator=False) == ("endpoints:read",)


@pytest.mark.parametrize(
    ("who", "scope", "mend"),
    [
        (caller("viewer"), "endpoints:write", "the role viewer does not include it"),
        (caller(scopes=("endpoints:read",)), "endpoints:write", "this key was made without it"),
        (caller(), "platform:admin", "only owners of the organization that runs the platform"),
    ],
)
def test_a_missing_scope_is_named_with_the_reason(who: Caller, scope: Scope, mend: str) -> None:
    with pytest.raises(Problem, match=mend) as refused:
        who.require(scope)

    assert refused.value.kind.status == 403
    assert scope in refused.value.detail


def test_a_new_key_gets_what_both_may_do_but_platform_admin_only_when_asked() -> None:
    assert scopes_for_new_key(caller(), "viewer", None) == ("endpoints:read", "usage:read", "account:read")
    assert PLATFORM_ADMIN not in scopes_for_new_key(caller(operator=True), "owner", None)
    assert scopes_for_new_key(caller(operator=True), "owner", (PLATFORM_ADMIN,)) == (PLATFORM_ADMIN,)


def test_a_key_cannot_give_what_it_does_not_have() -> None:
    with pytest.raises(Problem) as refused:
        scopes_for_new_key(
            caller(scopes=("account:write", "endpoints:read")), "owner", ("endpoints:read", "endpoints:write")
        )

    assert [error.field for error in refused.value.errors] == ["scopes.1"]
    assert "your own key lacks endpoints:write" in refused.value.errors[0].message


def test_a_key_cannot_be_made_for_someone_above() -> None:
    with pytest.raises(Problem, match="admin may not create keys for a member with the role owner"):
        scopes_for_new_key(caller("admin"), "owner", None)


@pytest.mark.parametrize(
    ("old", "new"), [("owner", "admin"), ("owner", None), (None, "owner"), ("developer", "owner"), ("owner", "viewer")]
)
def test_only_owners_touch_owners(old: Role | None, new: Role | None) -> None:
    with pytest.raises(Problem, match="Only an owner"):
        check_role_change(caller("admin"), old=old, new=new, owners=2)

    check_role_change(caller("owner"), old=old, new=new, owners=2)


@pytest.mark.parametrize("new", ["admin", None])
def test_the_last_owner_stays(new: Role | None) -> None:
    with pytest.raises(Problem, match="last owner") as refused:
        check_role_change(caller("owner"), old="owner", new=new, owners=1)

    assert refused.value.kind.status == 409


def test_admins_change_everyone_else() -> None:
    check_role_change(caller("admin"), old="viewer", new="admin", owners=1)
    check_role_change(caller("admin"), old="admin", new=None, owners=1)
