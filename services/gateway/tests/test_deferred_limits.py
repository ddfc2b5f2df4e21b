"""How much is kept of asynchronous requests, for how long, and for whom."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime

import pytest

from penstock_gateway.deferred import attempt
from tests_support import Servers, eventually

from .deferring import (
    ASYNC,
    MakeGateway,
    make_gateway,
    messages_kept,
    reaches,
    result,
    seen_body,
    start,
)
from .plane import key_record, route
from .raw import AUTHORIZATION, HOST, KEY
from .replica import Connection, ScriptedReplica, Seen, echo

pytestmark = pytest.mark.connected

__all__ = ["make_gateway"]


async def test_a_result_is_kept_for_the_stated_time(
    make_gateway: MakeGateway, replica: ScriptedReplica, clean_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "RESULT_SLACK_S", 0)
    gateway = await make_gateway(replica, deferred={"deferred_retention_s": 2})
    async with gateway.running.client() as client:
        path = await start(client)
        said = await reaches(client, path, "succeeded")
        finished_at, expires_at = (datetime.fromisoformat(said[name]) for name in ("finished_at", "expires_at"))
        assert ((expires_at - finished_at).total_seconds(), said["retention_s"]) == (2, 2)

        async def gone() -> bool:
            return (await client.request("GET", path)).status == 404

        await eventually(gone)
        assert (await client.request("GET", f"{path}/result")).status == 404

        async def dropped() -> bool:
            return not (await messages_kept(clean_servers))[1]

        await eventually(dropped)


async def test_what_waits_is_bounded_for_an_endpoint_and_an_organization(make_gateway: MakeGateway) -> None:
    by_endpoint = await make_gateway(state="starting", deferred={"deferred_per_endpoint_max": 2})
    by_organization = await make_gateway(state="starting", deferred={"deferred_per_organization_max": 2})
    async with by_endpoint.running.client() as client, by_organization.running.client() as other:
        paths = [await start(client), await start(client)]
        refused = await client.request("POST", "/run", ASYNC)
        assert (refused.status, refused.json()["reason"]) == (503, "endpoint_full")
        assert int(refused.one("Retry-After")) > 0
        await eventually(lambda: len(by_organization.board) == 2)
        refused = await other.request("POST", "/run", ASYNC)
        assert (refused.status, refused.json()["reason"]) == (429, "organization_full")
        assert int(refused.one("Retry-After")) > 0
        await client.request("DELETE", paths[0])
        await start(client)


async def test_what_is_too_long_is_refused_or_fails(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    limits = {"deferred_body_bytes_max": 100_000, "deferred_result_bytes_max": 1000}
    gateway = await make_gateway(replica, deferred=limits)
    async with gateway.running.client() as client:
        refused = await client.request("POST", "/run", ASYNC, bytes(100_001))
        assert (refused.status, refused.json()["code"]) == (413, "body_too_large")
    async with gateway.running.client() as client:
        head = b"POST /run HTTP/1.1\r\nHost: iris.default.localhost\r\nAuthorization: Bearer " + KEY.encode()
        await client.send(head + b"\r\nTransfer-Encoding: chunked\r\n" + ASYNC + b"\r\n")
        await client.send(b"1ffff\r\n" + bytes(0x1FFFF))
        assert (await client.answer()).status == 413

    async def endless(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"4\r\nmore\r\n")

    replica.handler = endless
    async with gateway.running.client() as client:
        said = await reaches(client, await start(client), "failed")
        assert (said["code"], said["result"]) == ("result_too_large", None)
        await eventually(replica.connections[0].lost.is_set)
        replica.handler = echo
        assert seen_body(await result(client, await start(client, body=b"short"))) == "short"


async def test_an_idempotency_key_gives_the_same_inference_back(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    gateway = await make_gateway(replica)
    key = b"Idempotency-Key: 5e5d\r\n"
    async with gateway.running.client() as client:
        first = await start(client, headers=key)
        assert await start(client, headers=key) == first
        await reaches(client, first, "succeeded")
        again = await client.request("POST", "/run", ASYNC + key, b"{}")
        assert (again.status, again.one("Location"), again.json()["state"]) == (202, first, "succeeded")
        for target, body in (("/run", b"other"), ("/other", b"{}")):
            refused = await client.request("POST", target, ASYNC + key, body)
            assert (refused.status, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
        assert await start(client, headers=b"Idempotency-Key: 5e5e\r\n") != first
        wrong = await client.request("POST", "/run", ASYNC + b"Idempotency-Key: \xff\r\n", b"{}")
        assert wrong.status == 400
    # Several at once are one as well.
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(gateway.running.client()) for _ in range(8)]
        same = await asyncio.gather(*(start(one, headers=b"Idempotency-Key: at-once\r\n") for one in clients))
        assert len(set(same)) == 1
        await reaches(clients[0], same[0], "succeeded")
    assert len(replica.seen) == 3


async def test_status_and_result_need_what_the_endpoint_needs(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    gateway = await make_gateway(replica)
    directory = gateway.running.plane.directory
    directory.put_key(key_record("psk_of_another_organization", organization_id="org_2"))
    directory.put_key(key_record("psk_without_the_scope", scopes=("endpoints:read",)))
    directory.put_route(route(endpoint_id="ep_2", endpoint="other"))
    async with gateway.running.client() as client:
        path = await start(client)
        await reaches(client, path, "succeeded")

        async def asks(authorization: str, method: str = "GET") -> int:
            lines = f"{method} {path} HTTP/1.1\r\nHost: iris.default.localhost\r\n{authorization}\r\n"
            await client.send(lines.encode())
            return (await client.answer()).status

        for method in ("GET", "DELETE"):
            assert await asks("", method) == 401
            assert await asks("Authorization: Bearer psk_of_another_organization\r\n", method) == 404
            assert await asks("Authorization: Bearer psk_without_the_scope\r\n", method) == 403
        assert (await client.request("GET", path, host=b"Host: other.default.localhost\r\n")).status == 404
        gateway.running.change_route(public=True)
        assert await asks("") == 200


async def test_what_is_not_there_is_404_and_what_is_not_served_405(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        path = await start(client)
        await reaches(client, path, "succeeded")
        for unknown in ("/.inferences", "/.inferences/x", f"{path[:-4]}0000", f"{path}/other", f"{path}/result/x"):
            assert (await client.request("GET", unknown)).status == 404, unknown
        for method, target in (("POST", path), ("DELETE", f"{path}/result"), ("POST", "/.inferences/webhook-secret")):
            refused = await client.request(method, target)
            assert (refused.status, "GET" in refused.one("Allow")) == (405, True)
        assert (await client.request("HEAD", path)).status == 200
        head = await client.request("HEAD", f"{path}/result")
        assert (head.status, int(head.one("Content-Length")) > 0) == (200, True)
        # A path that only begins alike is the model's own.
        assert (await client.request("GET", "/.inferences2")).status == 200


async def test_a_result_is_given_no_faster_than_its_reader_takes_it(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    size = 16 * 1024 * 1024

    async def large(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.answer(bytes(size))

    replica.handler = large
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        path = await start(client)
        await reaches(client, path, "succeeded")
        (connection,) = gateway.running.plane._clients
        client.stop_reading()
        await client.send(f"GET {path}/result HTTP/1.1\r\n".encode() + HOST + AUTHORIZATION + b"\r\n")
        held: list[int] = []

        async def stands_still() -> bool:
            held.append(connection._transport.get_write_buffer_size())
            return len(held) > 20 and held[-1] == held[-20] > 0

        await eventually(stands_still)
        assert max(held) < 2 * 1024 * 1024
        client.go_on_reading()
        assert len((await client.answer()).body) == size


async def test_streams_that_are_nearly_full_take_nothing_new(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    gateway = await make_gateway(replica)
    assert 0 <= await gateway.deferred._keep.fullness() < 0.1
    gateway.deferred._accepting.fullness = 0.95
    async with gateway.running.client() as client:
        refused = await client.request("POST", "/run", ASYNC)
        assert (refused.status, refused.json()["reason"]) == (503, "gateway_full")
