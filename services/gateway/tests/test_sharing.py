"""Several gateways with the same endpoints: one owner each, and never more on a replica than it has slots."""

import json
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.fairness import Place, Priority
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.sharing.envelope import Envelope, request_id_of, seal, unseal
from penstock_gateway.settings import GatewaySettings
from tests_support import eventually

from .plane import ENDPOINT_ID
from .raw import KEY, raw_client
from .replica import Connection, Gate, ScriptedReplica, Seen
from .sharing import FIELDS, SECRET, MakeSharing, make_sharing, send

__all__ = ["make_sharing"]


# --- the envelope -----------------------------------------------------------------------------


@pytest.mark.parametrize("key_id", ["", "key_1", "async key_1", "ü\r\nX: y"])
def test_what_is_sealed_is_unsealed(key_id: str) -> None:
    request = b"POST /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: 12\r\n\r\n"
    envelope = Envelope("gw-1", "ep_1", Place(key_id, Priority.LOW))
    sealed = seal(request, SECRET, envelope)
    assert sealed.count(b"\r\n") == request.count(b"\r\n") + 1
    assert unseal(sealed, SECRET) == (envelope, request)
    assert unseal(sealed, SECRET + "!") is None
    assert unseal(request, SECRET) is None
    assert unseal(sealed.replace(b" ep_1 2 ", b" ep_1 7 "), SECRET) is None
    assert request_id_of(request) == b"12"
    assert request_id_of(b"GET / HTTP/1.1\r\nX: y\r\n\r\n") == b""


@pytest.mark.parametrize(
    ("setting", "value"), [("gateway_secret", "short"), ("gateway_secret", "with spaces in it"), ("forward_host", "::")]
)
def test_settings_that_cannot_work_are_refused_by_name(setting: str, value: str) -> None:
    with pytest.raises(ValidationError, match=f"{setting} must be"):
        GatewaySettings(**{setting: value})  # type: ignore[arg-type]


# --- forwarding -------------------------------------------------------------------------------


async def test_whoever_is_asked_the_replica_gets_the_same_and_the_owner_counts_it(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    sharing = await make_sharing(2, replica)
    seen: list[dict[str, Any]] = []
    for running in (sharing.owner, sharing.others[0]):
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}", "X-Own": "1"}) as client:
            for _ in range(3):
                answer = await client.post(f"{running.url}/predict?x=1", json={"a": "b"})
                assert answer.status_code == 200
                seen.append(answer.json())
                headers = {name.lower(): value for name, value in answer.json()["headers"]}
                assert answer.headers["x-request-id"] == headers["x-request-id"]
                assert headers["x-forwarded-for"] == "127.0.0.1"
                assert headers["x-forwarded-host"] == f"127.0.0.1:{running.port}"
                assert headers["x-own"] == "1"
    assert {json.dumps([name for name, _ in one["headers"]]) for one in seen} == {
        json.dumps([name for name, _ in seen[0]["headers"]])
    }
    assert {(one["line"], one["body"]) for one in seen} == {("POST /predict?x=1 HTTP/1.1", '{"a":"b"}')}
    assert not any("psk_" in str(one) or SECRET in str(one) or "enstock" in str(one["headers"]) for one in seen)
    assert sharing.owner.endpoint.stats.statuses == {200: 6}
    assert sharing.others[0].endpoint.stats.statuses == {}
    assert sharing.others[0].cluster.relayed.statuses == {200: 3}


async def test_bodies_stream_both_ways(make_sharing: MakeSharing, replica: ScriptedReplica) -> None:
    more = Gate()

    async def conversation(seen: Seen, connection: Connection) -> None:
        body = await connection.body(seen)
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n")
        for at in range(0, len(body), 100_000):
            piece = body[at : at + 100_000]
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await more.wait()
        await connection.send(b"0\r\nX-End: yes\r\n\r\n")

    replica.handler = conversation
    sharing = await make_sharing(2, replica)
    body = bytes(range(256)) * 2000
    async with sharing.others[0].client() as client:
        await client.send(b"POST /x HTTP/1.1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 50_000):
            piece = body[at : at + 50_000]
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.head())[0] == 200
        got = b""
        while len(got) < len(body):
            chunk = await client.chunk()
            got += chunk
            if len(got) % 100_000 == 0 or len(got) == len(body):
                more.open()
        assert got == body
        assert await client.chunk() == b""


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_methods_expectations_and_http_1_0_come_through(
    make_sharing: MakeSharing, replica: ScriptedReplica, method: str
) -> None:
    sharing = await make_sharing(2, replica)
    other = sharing.others[0]
    async with other.client() as client:
        for _ in range(2):
            answer = await client.request(method, "/x")
            assert (answer.status, bool(answer.body)) == (200, method != "HEAD")
        for length in (3, 100_000):
            await client.send(
                b"POST /e HTTP/1.1\r\n" + FIELDS + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length
            )
            if length == 3:
                assert (await client.head())[0] == 100
            await client.send(b"x" * length)
            assert len((await client.answer()).json()["body"]) == length
    async with other.client() as client:
        await client.send(f"{method} /x HTTP/1.0\r\n".encode() + FIELDS + b"\r\n")
        assert (await client.answer(head_only=method == "HEAD")).status == 200
        assert await client.closed()


async def test_websockets_come_through(make_sharing: MakeSharing) -> None:
    async def chat(socket_: ServerConnection) -> None:
        async for message in socket_:
            await socket_.send(message[::-1])

    async with serve(chat, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        sharing = await make_sharing(2)
        sharing.change_route(replicas=(RouteReplica(replica_id="rep_ws", address=f"127.0.0.1:{port}"),))
        uri = f"ws://127.0.0.1:{sharing.others[0].port}/e/default/iris/chat"
        async with connect(uri, additional_headers={"Authorization": f"Bearer {KEY}"}, max_size=None) as client:
            for message in ("hello", "x" * 500_000):
                await client.send(message)
                assert await client.recv() == message[::-1]
            assert sharing.owner.endpoint.queue.in_flight == 1
        await eventually(lambda: sharing.owner.endpoint.queue.in_flight == 0)


async def test_a_client_that_leaves_frees_the_slot_at_the_owner(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    replica.handler = Gate()
    sharing = await make_sharing(2, replica)
    async with AsyncExitStack() as stack:
        client = await send(stack, sharing.others[0], "/1")
        await eventually(lambda: replica.working == 1)
        began_s = monotonic()
        client.leave()
        await eventually(lambda: sharing.owner.endpoint.queue.in_flight == 0)
        assert monotonic() - began_s < 0.5
    assert sharing.owner.endpoint.stats.statuses == {499: 1}


async def test_the_owner_refuses_for_all_and_priorities_hold_across_gateways(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    sharing = await make_sharing(2, replica, queue_limit=2)
    owner, other = sharing.owner, sharing.others[0]
    async with AsyncExitStack() as stack:
        first = await send(stack, other, "/1")
        await eventually(lambda: replica.working == 1)
        low = await send(stack, owner, "/low", b"X-Penstock-Priority: low\r\n")
        await eventually(lambda: len(owner.endpoint.queue) == 1)
        high = await send(stack, other, "/high", b"X-Penstock-Priority: high\r\n")
        await eventually(lambda: len(owner.endpoint.queue) == 2)
        late = await send(stack, other, "/late", b"X-Penstock-Priority: low\r\n")
        refused = await late.answer()
        assert (refused.status, refused.json()["code"], refused.json()["queue_length"]) == (503, "overloaded", 2)
        gate.open(3)
        for client in (first, high, low):
            assert (await client.answer()).status == 200
    assert [seen.target for seen in replica.seen] == ["/1", "/high", "/low"]
    assert replica.working_max == 1


async def test_the_inner_port_serves_nobody_without_the_secret(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    sharing = await make_sharing(2, replica)
    port = int(sharing.owner.cluster.address.rpartition(":")[2])
    request = b"GET /x HTTP/1.1\r\n" + FIELDS + b"X-Request-Id: 1\r\n\r\n"
    place = Place("key_1", Priority.NORMAL)
    name = sharing.owner.cluster.gateway_id
    for head in (request, seal(request, SECRET[:-1], Envelope(name, ENDPOINT_ID, place))):
        async with raw_client(port) as client:
            await client.send(head)
            assert (await client.answer()).status == 403
            assert await client.closed()
    # For another gateway, or an endpoint it does not know: not served, and not sent on.
    for envelope in (Envelope("gw-gone", ENDPOINT_ID, place), Envelope(name, "ep_unknown", place)):
        async with raw_client(port) as client:
            await client.send(seal(request, SECRET, envelope))
            assert (await client.answer()).status == 421
    assert replica.seen == []
    async with raw_client(port) as client:
        await client.send(seal(request, SECRET, Envelope(name, ENDPOINT_ID, place)))
        assert (await client.answer()).status in {102, 200}


async def test_a_client_cannot_forge_what_gateways_say_to_each_other(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    async def liar(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.answer(b"no", status="421 Misdirected Request", extra="X-Penstock-Moved: whatever\r\n")

    replica.handler = liar
    sharing = await make_sharing(2, replica)
    async with sharing.others[0].client() as client:
        answer = await client.request("POST", "/x", b"X-Penstock-Forward: a b c 1 d\r\n", b"{}")
        assert (answer.status, answer.body) == (421, b"no")
    (seen,) = replica.seen
    assert seen.all("X-Penstock-Forward") == []


async def test_the_owner_never_forwards_again(make_sharing: MakeSharing, replica: ScriptedReplica) -> None:
    sharing = await make_sharing(2, replica)
    other = sharing.others[0]
    port = int(other.cluster.address.rpartition(":")[2])
    request = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: 1\r\n\r\n"
    async with raw_client(port) as client:
        await client.send(seal(request, SECRET, Envelope(other.cluster.gateway_id, ENDPOINT_ID, Place())))
        assert (await client.answer()).status == 421
    assert replica.seen == []
    assert other.endpoint.stats.statuses == {}


async def test_gateways_with_different_secrets_leave_each_other_alone(
    make_sharing: MakeSharing, replica: ScriptedReplica
) -> None:
    sharing = await make_sharing(1, replica)
    stranger = await sharing.add({"gateway_secret": "another secret!!".replace(" ", "-")})
    await eventually(lambda: stranger.owns)
    assert sharing.planes[0].owns
    assert sharing.planes[0].cluster._members == {sharing.planes[0].cluster.gateway_id}


async def test_without_a_secret_nothing_of_this_exists(make_plane: Any, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    assert plane.plane.cluster is None
    assert type(plane.endpoint) is Endpoint
