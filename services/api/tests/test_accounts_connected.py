"""Organizations, workspaces, members and API keys, on real servers."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from penstock_api.app import Application
from penstock_api.domain.keys import is_key, key_text, sha256_of
from penstock_common.contracts.records import ApiKeyRecord
from tests_support import eventually

pytestmark = pytest.mark.connected

MakeClient = Callable[[str | None], httpx.AsyncClient]


def scopes_at_gateway(application: Application, key: str) -> tuple[str, ...]:
    """What the bucket api_keys says that a key may do; nothing while it has no record."""
    record = records(application).get(sha256_of(key))
    return () if record is None else record.scopes


def records(application: Application) -> dict[str, ApiKeyRecord]:
    """What the bucket api_keys holds, as its watcher sees it."""
    return application.bucket.snapshot


async def new_key(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/api-keys", json={"name": "test", **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def new_member(client: httpx.AsyncClient, role: str, email: str = "ada@acme.example") -> dict[str, Any]:
    answer = await client.post("/v1/members", json={"email": email, "name": "Ada", "role": role})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "code", "errors"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:penstock:problem:{code}"
    return document


# --- who is calling -------------------------------------------------------------------------


async def test_a_key_says_who_it_belongs_to(client: httpx.AsyncClient) -> None:
    me = (await client.get("/v1/me")).json()

    assert (me["organization"], me["role"]) == ("Operator", "owner")
    assert "platform:admin" in me["scopes"]


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        (None, "There is no API key"),
        ("Basic dXNlcjpwYXNz", "must be `Bearer"),
        ("Bearer", "checksum is wrong"),
        ("Bearer psk_tooshort", "checksum is wrong"),
        (f"Bearer {key_text(42)[:-1]}!", "checksum is wrong"),
        (f"Bearer {key_text(42)}", "unknown, expired or revoked"),
    ],
)
async def test_without_a_usable_key_nothing_is_answered(
    client_with: MakeClient, authorization: str | None, detail: str
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}

    for method, path in (("GET", "/v1/me"), ("POST", "/v1/endpoints"), ("GET", "/v1/admin/hosts")):
        answer = await client_with(None).request(method, path, headers=headers, json={})
        assert detail in problem(answer, 401, "unauthenticated")["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_without_a_scope_is_told_which(client: httpx.AsyncClient, client_with: MakeClient) -> None:
    reader = client_with((await new_key(client, scopes=["endpoints:read"]))["key"])

    assert (await reader.get("/v1/endpoints")).status_code == 200
    for method, path, scope in (
        ("POST", "/v1/endpoints", "endpoints:write"),
        ("GET", "/v1/members", "account:read"),
        ("POST", "/v1/api-keys", "account:write"),
        ("GET", "/v1/usage", "usage:read"),
        ("GET", "/v1/admin/dead", "platform:admin"),
        ("POST", "/v1/organizations", "platform:admin"),
    ):
        answer = await reader.request(method, path, json={"name": "x"})
        assert scope in problem(answer, 403, "forbidden")["detail"]


async def test_the_last_use_of_a_key_is_noted_once_a_minute(
    client: httpx.AsyncClient, client_with: MakeClient, database: Any, application: Application
) -> None:
    made = await new_key(client)
    user = client_with(made["key"])
    query = "select last_used_at from api_keys where id = $1"
    assert await database.fetchval(query, made["id"]) is None

    await user.get("/v1/me")
    first = await database.fetchval(query, made["id"])
    assert first is not None
    application.api.authentication.forget_all()
    await user.get("/v1/me")
    assert await database.fetchval(query, made["id"]) == first

    await database.execute("update api_keys set last_used_at = last_used_at - interval '2 minutes'")
    application.api.authentication.forget_all()
    await user.get("/v1/me")
    assert await database.fetchval(query, made["id"]) > first


# --- API keys -------------------------------------------------------------------------------


async def test_a_new_key_works_is_shown_once_and_reaches_the_gateways_bucket(
    client: httpx.AsyncClient, client_with: MakeClient, application: Application, database: Any
) -> None:
    made = await new_key(client, scopes=["endpoints:invoke", "endpoints:read"])

    assert is_key(made["key"])
    assert made["start"] == made["key"][:8]
    assert (await client_with(made["key"]).get("/v1/endpoints")).status_code == 200
    listed = next(key for key in (await client.get("/v1/api-keys")).json()["items"] if key["id"] == made["id"])
    assert "key" not in listed
    stored = str(await database.fetch("select * from api_keys"))
    assert made["key"] not in stored
    sent = str(await database.fetch("select subject, convert_from(payload, 'utf8') from outbox"))
    assert made["key"] not in sent
    record = await eventually(lambda: records(application).get(sha256_of(made["key"])))
    assert record.scopes == ("endpoints:read", "endpoints:invoke")


async def test_a_revoked_key_stops_working_at_once_and_leaves_the_bucket(
    client: httpx.AsyncClient, client_with: MakeClient, application: Application
) -> None:
    made = await new_key(client)
    user = client_with(made["key"])
    assert (await user.get("/v1/me")).status_code == 200
    await eventually(lambda: sha256_of(made["key"]) in records(application))

    assert (await client.delete(f"/v1/api-keys/{made['id']}")).status_code == 204

    problem(await user.get("/v1/me"), 401, "unauthenticated")
    await eventually(lambda: sha256_of(made["key"]) not in records(application))
    problem(await client.delete(f"/v1/api-keys/{made['id']}"), 404, "not_found")


async def test_an_expired_key_stops_working_and_the_repair_takes_it_from_the_bucket(
    client: httpx.AsyncClient, client_with: MakeClient, application: Application, database: Any
) -> None:
    made = await new_key(client, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await eventually(lambda: sha256_of(made["key"]) in records(application))
    assert (await client_with(made["key"]).get("/v1/me")).status_code == 200

    await database.execute("update api_keys set expires_at = now() - interval '1 s' where id = $1", made["id"])
    application.api.authentication.forget_all()
    problem(await client_with(made["key"]).get("/v1/me"), 401, "unauthenticated")
    await application.upkeep.repair()
    await eventually(lambda: sha256_of(made["key"]) not in records(application))


async def test_the_repair_restores_what_the_bucket_lost_and_removes_what_it_should_not_have(
    client: httpx.AsyncClient, application: Application, key: str
) -> None:
    bucket = await application.service.js.key_value("api_keys")
    await eventually(lambda: sha256_of(key) in records(application))
    right = records(application)[sha256_of(key)]
    stranger = right.model_copy(update={"sha256": "f" * 64})
    await bucket.put(stranger.key(), stranger.model_dump_json().encode())

    async def is_spoiled() -> bool:
        # Again until it stays so: the repair at the start may still be on its way.
        await bucket.delete(right.key())
        return sorted(records(application)) == ["f" * 64]

    await eventually(is_spoiled)

    await application.upkeep.repair()

    await eventually(lambda: records(application) == {sha256_of(key): right})
    await application.upkeep.repair()  # and then there is nothing to do
    assert records(application) == {sha256_of(key): right}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "in the past"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at", "timezone"),
        ({"member_id": "mem_nobody"}, "member_id", "no such member"),
        ({"scopes": []}, "scopes", "at least 1"),
        ({"scopes": ["everything"]}, "scopes.0", "must be"),
        ({"name": " "}, "name", "at least 1"),
        ({"name": "a\0b"}, "name", "must match"),
        ({"nmae": "x"}, "nmae", "no such field"),
    ],
)
async def test_a_wrong_key_request_names_its_field(
    client: httpx.AsyncClient, fields: dict[str, Any], field: str, message: str
) -> None:
    document = problem(await client.post("/v1/api-keys", json={"name": "x", **fields}), 422, "invalid_request")

    assert [error["field"] for error in document["errors"]] == [field]
    assert message in document["errors"][0]["message"]


async def test_a_key_cannot_give_more_than_it_has(client: httpx.AsyncClient, client_with: MakeClient) -> None:
    small = client_with((await new_key(client, scopes=["account:write", "endpoints:read"]))["key"])

    document = problem(
        await small.post("/v1/api-keys", json={"name": "x", "scopes": ["endpoints:write"]}), 422, "invalid_request"
    )
    assert document["errors"][0]["field"] == "scopes.0"
    assert (await new_key(small))["scopes"] == ["endpoints:read", "account:write"]


# --- the same request again -----------------------------------------------------------------


async def test_a_repeated_key_request_gets_the_same_key_though_it_is_stored_nowhere(
    client: httpx.AsyncClient, database: Any
) -> None:
    async def request() -> httpx.Response:
        return await client.post("/v1/api-keys", json={"name": "x"}, headers={"Idempotency-Key": "one"})

    first = await request()
    second = await request()

    assert (first.status_code, first.text) == (second.status_code, second.text) == (201, second.text)
    assert is_key(first.json()["key"])
    assert await database.fetchval("select count(*) from api_keys where name = 'x'") == 1
    assert first.json()["key"] not in str(await database.fetch("select * from idempotency_keys"))


async def test_an_idempotency_key_belongs_to_one_request_and_one_api_key(
    client: httpx.AsyncClient, client_with: MakeClient
) -> None:
    headers = {"Idempotency-Key": "one"}
    await client.post("/v1/workspaces", json={"slug": "a"}, headers=headers)

    problem(await client.post("/v1/workspaces", json={"slug": "b"}, headers=headers), 422, "idempotency_mismatch")
    problem(await client.post("/v1/members", json={"slug": "a"}, headers=headers), 422, "invalid_request")
    other = client_with((await new_key(client))["key"])
    assert (await other.post("/v1/workspaces", json={"slug": "b"}, headers=headers)).status_code == 201


async def test_the_same_request_many_times_at_once_does_its_work_once(client: httpx.AsyncClient) -> None:
    async def request() -> httpx.Response:
        return await client.post("/v1/workspaces", json={"slug": "busy"}, headers={"Idempotency-Key": "k"})

    answers = await asyncio.gather(*(request() for _ in range(6)))

    assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}


@pytest.mark.parametrize("text", ["", "a b", "é", "x" * 256])
async def test_an_idempotency_key_must_be_plain_text(client: httpx.AsyncClient, text: str) -> None:
    answer = await client.post(
        "/v1/workspaces", json={"slug": "a"}, headers=[(b"Idempotency-Key", text.encode("latin-1"))]
    )

    assert problem(answer, 422, "invalid_request")["errors"][0]["field"] == "Idempotency-Key"


# --- organizations and workspaces -----------------------------------------------------------


async def test_an_organization_comes_with_an_owner_who_can_begin(
    client: httpx.AsyncClient, client_with: MakeClient
) -> None:
    made = (await client.post("/v1/organizations", json={"name": "Acme", "owner_email": "Ada@Acme.example"})).json()
    owner = client_with(made["api_key"]["key"])

    me = (await owner.get("/v1/me")).json()
    assert (me["organization"], me["role"], me["member_id"]) == ("Acme", "owner", made["owner"]["id"])
    assert made["owner"]["email"] == "ada@acme.example"
    assert "platform:admin" not in me["scopes"]
    problem(await owner.get("/v1/organizations"), 403, "forbidden")
    assert (await owner.post("/v1/workspaces", json={"slug": "acme"})).status_code == 201
    assert [item["name"] for item in (await client.get("/v1/organizations")).json()["items"]] == ["Operator", "Acme"]
    taken = problem(await client.post("/v1/organizations", json={"name": "ACME"}), 422, "invalid_request")
    assert taken["errors"][0]["field"] == "name"


async def test_workspaces_are_unique_on_the_platform_and_can_be_deleted_and_made_again(
    client: httpx.AsyncClient, client_with: MakeClient
) -> None:
    made = (await client.post("/v1/organizations", json={"name": "Acme"})).json()
    acme = client_with(made["api_key"]["key"])

    taken = problem(await acme.post("/v1/workspaces", json={"slug": "default"}), 422, "invalid_request")
    assert "is taken" in taken["errors"][0]["message"]
    problem(await acme.delete("/v1/workspaces/default"), 404, "not_found")
    for _ in range(2):
        assert (await acme.post("/v1/workspaces", json={"slug": "vision"})).status_code == 201
        assert (await acme.delete("/v1/workspaces/vision")).status_code == 204
    problem(await acme.delete("/v1/workspaces/vision"), 404, "not_found")


async def test_a_workspace_with_endpoints_stays(client: httpx.AsyncClient, endpoint: dict[str, Any]) -> None:
    document = problem(await client.delete("/v1/workspaces/default"), 409, "conflict")

    assert "terminate them first" in document["detail"]


async def test_lists_come_in_parts(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await client.post("/v1/workspaces", json={"slug": f"w{number}"})
    seen: list[str] = []
    cursor: str | None = None
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        part = (await client.get("/v1/workspaces", params=parameters)).json()
        assert len(part["items"]) <= 2
        seen += [item["slug"] for item in part["items"]]
        cursor = part["next_cursor"]
        if cursor is None:
            break

    assert seen == ["default", "w0", "w1", "w2", "w3", "w4"]
    wrong = await client.get("/v1/workspaces", params={"cursor": "nonsense"})
    assert problem(wrong, 422, "invalid_request")["errors"][0]["field"] == "cursor"
    for limit in ("0", "201", "many"):
        wrong = await client.get("/v1/workspaces", params={"limit": limit})
        assert problem(wrong, 422, "invalid_request")["errors"][0]["field"] == "limit"


# --- members --------------------------------------------------------------------------------


async def test_a_new_role_changes_at_once_what_the_members_keys_may_do(
    client: httpx.AsyncClient, client_with: MakeClient, application: Application
) -> None:
    member = await new_member(client, "developer")
    made = await new_key(client, member_id=member["id"])
    user = client_with(made["key"])
    await eventually(lambda: "endpoints:invoke" in scopes_at_gateway(application, made["key"]))

    changed = await client.patch(f"/v1/members/{member['id']}", json={"role": "viewer"})

    assert (changed.status_code, changed.json()["role"]) == (200, "viewer")
    problem(await user.post("/v1/endpoints", json={}), 403, "forbidden")
    await eventually(lambda: "endpoints:invoke" not in scopes_at_gateway(application, made["key"]))
    await client.patch(f"/v1/members/{member['id']}", json={"role": "developer"})
    await eventually(lambda: "endpoints:invoke" in scopes_at_gateway(application, made["key"]))


async def test_the_keys_of_a_removed_member_are_revoked(
    client: httpx.AsyncClient, client_with: MakeClient, application: Application
) -> None:
    member = await new_member(client, "developer")
    made = await new_key(client, member_id=member["id"])
    user = client_with(made["key"])
    assert (await user.get("/v1/me")).status_code == 200
    await eventually(lambda: sha256_of(made["key"]) in records(application))

    assert (await client.delete(f"/v1/members/{member['id']}")).status_code == 204

    problem(await user.get("/v1/me"), 401, "unauthenticated")
    await eventually(lambda: sha256_of(made["key"]) not in records(application))
    problem(await client.delete(f"/v1/members/{member['id']}"), 404, "not_found")
    assert (await new_member(client, "viewer"))["id"] != member["id"]  # the address is free again


async def test_the_last_owner_stays_and_admins_cannot_touch_owners(
    client: httpx.AsyncClient, client_with: MakeClient
) -> None:
    me = (await client.get("/v1/me")).json()
    problem(await client.delete(f"/v1/members/{me['member_id']}"), 409, "conflict")
    problem(await client.patch(f"/v1/members/{me['member_id']}", json={"role": "admin"}), 409, "conflict")

    admin = await new_member(client, "admin")
    as_admin = client_with((await new_key(client, member_id=admin["id"]))["key"])
    problem(await as_admin.delete(f"/v1/members/{me['member_id']}"), 403, "forbidden")
    problem(await as_admin.patch(f"/v1/members/{admin['id']}", json={"role": "owner"}), 403, "forbidden")
    problem(await as_admin.post("/v1/api-keys", json={"name": "x", "member_id": me["member_id"]}), 403, "forbidden")
    assert (await as_admin.patch(f"/v1/members/{admin['id']}", json={"name": "Ada King"})).json()["name"] == "Ada King"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "not an address", "name": "x", "role": "viewer"}, "email"),
        ({"email": "a@b.example", "name": "x", "role": "king"}, "role"),
        ({"email": "a@b.example", "role": "viewer"}, "name"),
        ({"email": "owner@localhost", "name": "x", "role": "viewer"}, "email"),
    ],
)
async def test_a_wrong_member_request_names_its_field(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    document = problem(await client.post("/v1/members", json=body), 422, "invalid_request")

    assert [error["field"] for error in document["errors"]] == [field]


async def test_what_belongs_to_others_does_not_exist(client: httpx.AsyncClient, client_with: MakeClient) -> None:
    made = (await client.post("/v1/organizations", json={"name": "Acme"})).json()
    acme = client_with(made["api_key"]["key"])
    me = (await client.get("/v1/me")).json()

    problem(await acme.patch(f"/v1/members/{me['member_id']}", json={"name": "x"}), 404, "not_found")
    problem(await acme.delete(f"/v1/members/{me['member_id']}"), 404, "not_found")
    problem(await acme.delete(f"/v1/api-keys/{me['key_id']}"), 404, "not_found")
    assert [item["email"] for item in (await acme.get("/v1/members")).json()["items"]] == ["owner@localhost"]
    assert [item["name"] for item in (await acme.get("/v1/api-keys")).json()["items"]] == ["first key"]
    foreign = await acme.post("/v1/api-keys", json={"name": "x", "member_id": me["member_id"]})
    assert problem(foreign, 422, "invalid_request")["errors"][0]["field"] == "member_id"
