"""Who reaches which endpoint, over real connections."""

from datetime import UTC, datetime, timedelta

import pytest

from .plane import MakePlane, RunningPlane, key_record, ready, route
from .raw import HOST, KEY, Answer, RawClient
from .replica import ScriptedReplica

BY_PATH = "/e/default/iris/predict?x=1"


async def call(client: RawClient, target: str = "/predict", *, key: str | None = KEY, host: bytes = HOST) -> Answer:
    authorization = f"Authorization: Bearer {key}\r\n".encode() if key else b""
    await client.send(f"POST {target} HTTP/1.1\r\n".encode() + host + authorization + b"Content-Length: 2\r\n\r\n{}")
    return await client.answer()


def code(answer: Answer) -> str:
    return str(answer.json()["code"])


async def test_an_endpoint_answers_by_host_and_by_path(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        assert (await call(client)).status == 200
        assert (await call(client, BY_PATH, host=b"Host: 127.0.0.1:8080\r\n")).status == 200
    by_host, by_path = replica.seen
    assert by_host.target == "/predict"
    assert by_host.all("X-Forwarded-Prefix") == []
    assert by_path.target == "/predict?x=1"
    assert by_path.one("X-Forwarded-Prefix") == "/e/default/iris"
    assert by_path.one("Host") == "127.0.0.1:8080"


async def test_the_host_name_decides_before_the_path(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        assert (await call(client, "/e/other/endpoint")).status == 200
    assert replica.seen[0].target == "/e/other/endpoint"


@pytest.mark.parametrize("target", ["/", "/e/default/other/x", "/e/other/iris/x", "/predict"])
async def test_an_unknown_endpoint_is_404(make_plane: MakePlane, replica: ScriptedReplica, target: str) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        answer = await call(client, target, host=b"Host: localhost\r\n")
        assert (answer.status, code(answer), answer.closes) == (404, "not_found", False)


async def test_no_key_and_a_bad_key_are_401_and_say_how_to_send_one(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for key, expected in ((None, "no_api_key"), ("psk_wrong", "invalid_api_key"), ("other", "invalid_api_key")):
            answer = await call(client, key=key)
            assert (answer.status, code(answer)) == (401, expected)
            assert answer.one("WWW-Authenticate").startswith("Bearer")
    assert replica.seen == []


async def test_a_key_without_the_scope_is_403_and_one_of_another_organization_404(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    plane.plane.directory.put_key(key_record("psk_reader", scopes=("endpoints:read",)))
    plane.plane.directory.put_key(key_record("psk_stranger", organization_id="org_2"))
    async with plane.client() as client:
        answer = await call(client, key="psk_reader")
        assert (answer.status, code(answer)) == (403, "missing_scope")
        answer = await call(client, key="psk_stranger")
        unknown = await call(client, "/e/no/where", host=b"Host: localhost\r\n")
        assert answer.status == 404
        assert answer.json() == unknown.json()


async def test_a_revoked_key_is_refused_from_the_next_request_on_an_open_connection(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(5):
            assert (await call(client)).status == 200
        plane.plane.directory.remove_key(key_record().sha256)
        assert (await call(client)).status == 401
        plane.plane.directory.put_key(key_record())
        assert (await call(client)).status == 200


async def test_a_key_expires_on_an_open_connection(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    end = datetime.now(UTC) + timedelta(seconds=0.3)
    plane.plane.directory.put_key(key_record(expires_at=end))
    statuses = []
    async with plane.client() as client:
        while datetime.now(UTC) < end + timedelta(seconds=0.05):
            statuses.append((await call(client)).status)
        assert (await call(client)).status == 401
    assert statuses[0] == 200
    assert sorted(statuses) == statuses


async def test_a_public_endpoint_needs_no_key_and_keeps_one_from_its_replica(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, public=True)
    async with plane.client() as client:
        for key in (None, KEY, "psk_wrong", "a token of the model's own"):
            assert (await call(client, key=key)).status == 200
    sent = [seen.all("Authorization") for seen in replica.seen]
    assert sent == [[], [], [], ["Bearer a token of the model's own"]]


async def test_an_endpoint_made_private_asks_for_a_key_at_once(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica, public=True)
    async with plane.client() as client:
        for _ in range(3):
            assert (await call(client, key=None)).status == 200
        plane.change_route(public=False)
        assert (await call(client, key=None)).status == 401


async def test_a_route_that_goes_is_404_and_one_that_comes_is_served_on_an_open_connection(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            assert (await call(client)).status == 200
        plane.plane.directory.remove_route("ep_1")
        assert (await call(client)).status == 404
        plane.plane.directory.put_route(route(endpoint_id="ep_2", replicas=ready(replica)))
        assert (await call(client)).status == 200


async def test_a_gateway_without_any_snapshot_says_so_rather_than_404(make_plane: MakePlane) -> None:
    plane = await make_plane()
    plane.plane.directory.loaded = False
    async with plane.client() as client:
        answer = await call(client, "/e/other/endpoint", host=b"Host: localhost\r\n")
        assert (answer.status, code(answer), answer.one("Retry-After")) == (503, "starting_up", "1")


async def test_an_unknown_name_or_key_may_be_new_while_the_directory_may_be_out_of_date(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    directory = plane.plane.directory
    expired = key_record("psk_expired", expires_at=datetime.now(UTC) - timedelta(days=1))
    directory.put_key(expired)
    directory.is_current = lambda: False
    async with plane.client() as client:
        for answer in (
            await call(client, "/e/default/made-since/x", host=b"Host: localhost\r\n"),
            await call(client, key="psk_made_since"),
        ):
            assert (answer.status, code(answer), answer.one("Retry-After")) == (503, "starting_up", "1")
            assert not answer.closes
        assert (await call(client)).status == 200
        final = [code(await call(client, key=key)) for key in (None, "not a key of ours", "psk_expired")]
        assert final == ["no_api_key", "invalid_api_key", "invalid_api_key"]
        directory.is_current = lambda: True
        assert (await call(client, "/e/default/made-since/x", host=b"Host: localhost\r\n")).status == 404
        assert (await call(client, key="psk_made_since")).status == 401


async def ping(plane: RunningPlane, method: str = "GET", target: str = "/ping") -> Answer:
    async with plane.client() as client:
        return await client.request(method, target)


async def test_ping_is_answered_by_the_gateway(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    assert (await ping(plane)).json() == {"status": "ok"}
    assert (await ping(plane, target="/ping?x=1")).status == 200
    assert (await ping(plane, method="HEAD")).status == 200
    plane.change_route(state="idle", replicas=())
    assert (await ping(plane)).status == 200
    assert replica.seen == []


@pytest.mark.parametrize("state", ["queued", "starting", "stopping", "stopped", "failed", "terminating"])
async def test_ping_of_an_endpoint_that_is_not_up_is_503_with_its_state(make_plane: MakePlane, state: str) -> None:
    plane = await make_plane(state=state, reason="because")
    answer = await ping(plane)
    assert (answer.status, answer.json()["state"], answer.json()["reason"]) == (503, state, "because")


async def test_ping_of_a_private_endpoint_needs_a_key_as_all_else_does(make_plane: MakePlane) -> None:
    plane = await make_plane()
    async with plane.client() as client:
        await client.send(b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.answer()).status == 401


async def test_only_get_ping_is_the_gateways_own(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    for method, target in (("POST", "/ping"), ("GET", "/ping/x"), ("GET", "/pingpong")):
        assert (await ping(plane, method, target)).status == 200
    assert len(replica.seen) == 3


async def test_a_problem_has_every_member_that_clients_rely_on(make_plane: MakePlane) -> None:
    plane = await make_plane(state="failed", reason="exit code 1: no module named torch")
    async with plane.client() as client:
        answer = await call(client)
    problem = answer.json()
    assert problem["type"] == "urn:penstock:problem:not_running"
    assert problem["title"] == "Service Unavailable"
    assert problem["status"] == 503
    assert "no module named torch" in problem["detail"]
    assert problem["errors"] == []
    assert answer.one("Content-Type") == "application/problem+json"
    assert len(answer.all("Date")) == 1
    assert answer.all("Retry-After") == []
