"""Webhooks: delivered to a real server, signed, tried again, and never sent where they must not go."""

import asyncio
import base64
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock_gateway.deferred import lifecycle, webhooks
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.deferred.webhooks import WebhookSender
from tests_support import Servers, eventually
from tests_support.servers import free_port

from .deferring import ASYNC, SECRET, MakeGateway, make_gateway, reaches, start, status
from .raw import HOST, KEY
from .replica import Connection, Gate, MakeReplica, ScriptedReplica, Seen, says

pytestmark = pytest.mark.connected

__all__ = ["make_gateway"]

LOCAL = {"webhook_allow_http": True, "webhook_allow_private": True}


def webhook(receiver: ScriptedReplica, path: str = "/told?of=it") -> bytes:
    return f"Penstock-Webhook: http://127.0.0.1:{receiver.port}{path}\r\n".encode()


def verified(seen: Seen, secret: str) -> dict[str, Any]:
    """What a webhook says, after the check that its receiver makes."""
    signed = f"{seen.one('webhook-id')}.{seen.one('webhook-timestamp')}.".encode() + seen.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert hmac.compare_digest(seen.one("webhook-signature"), expected)
    age_s = datetime.now(UTC).timestamp() - int(seen.one("webhook-timestamp"))
    assert -1 <= age_s < 60
    found: dict[str, Any] = json.loads(seen.body)
    return found


async def test_the_outcome_is_told_signed_with_a_secret_that_only_the_organization_gets(
    make_gateway: MakeGateway, replica: ScriptedReplica, make_replica: MakeReplica
) -> None:
    receiver = await make_replica()
    receiver.handler = says(b"HTTP/1.1 204 No Content\r\n\r\n")
    gateway = await make_gateway(replica, deferred=LOCAL, public=True)
    async with gateway.running.client() as client:
        secret = (await client.request("GET", "/.inferences/webhook-secret")).json()["secret"]
        await client.send(b"GET /.inferences/webhook-secret HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.answer()).status == 403
        path = await start(client, headers=webhook(receiver))
        await eventually(lambda: receiver.seen)
        (seen,) = receiver.seen
        assert seen.line == "POST /told?of=it HTTP/1.1"
        assert seen.one("Content-Type") == "application/json"
        assert seen.one("Host") == f"127.0.0.1:{receiver.port}"
        told = verified(seen, secret)
        said = await status(client, path)

        async def delivered() -> bool:
            nonlocal said
            said = await status(client, path)
            return bool(said["webhook"]["delivered_at"])

        await eventually(delivered)
        assert (said["webhook"]["attempts"], said["webhook"]["next_attempt_at"]) == (1, None)
        assert told.pop("type") == "inference.succeeded"
        assert told.pop("timestamp") == said["finished_at"]
        del said["webhook"]
        assert told == said
    assert replica.seen[0].all("Penstock-Webhook") == []
    await eventually(lambda: len(gateway.board) == 0)


async def test_it_is_tried_again_under_the_same_id_until_it_arrives(
    make_gateway: MakeGateway, replica: ScriptedReplica, make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "WEBHOOK_WAITS_S", (0.05,) * 5)
    receiver = await make_replica()
    answers = [b"500 No", b"302 Found\r\nLocation: /elsewhere", b"429 Later", b"200 OK"]

    async def answer(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % answers[len(receiver.seen) - 1])

    receiver.handler = answer
    gateway = await make_gateway(replica, deferred=LOCAL)
    async with gateway.running.client() as client:
        path = await start(client, headers=webhook(receiver))
        await eventually(lambda: len(gateway.board) == 0)
        told = (await status(client, path))["webhook"]
    assert (told["attempts"], told["problem"]) == (4, None)
    assert [seen.target for seen in receiver.seen] == ["/told?of=it"] * 4
    assert len({seen.one("webhook-id") for seen in receiver.seen}) == 1
    assert len({seen.body for seen in receiver.seen}) == 1


@pytest.mark.parametrize(("answer", "attempts"), [(b"410 Gone", 1), (b"500 No", 3)])
async def test_it_is_given_up_after_some_attempts_or_when_the_receiver_says_so(
    make_gateway: MakeGateway,
    replica: ScriptedReplica,
    make_replica: MakeReplica,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    attempts: int,
) -> None:
    monkeypatch.setattr(lifecycle, "WEBHOOK_WAITS_S", (0.05, 0.05))
    receiver = await make_replica()
    receiver.handler = says(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % answer)
    gateway = await make_gateway(replica, deferred=LOCAL)
    async with gateway.running.client() as client:
        path = await start(client, headers=webhook(receiver))
        await eventually(lambda: len(gateway.board) == 0)
        told = (await status(client, path))["webhook"]
    assert (told["attempts"], told["delivered_at"]) == (attempts, None)
    assert told["problem"] == f"it answered {answer[:3].decode()}"
    assert len(receiver.seen) == attempts


async def test_what_is_still_to_be_told_survives_a_restart(
    make_gateway: MakeGateway,
    replica: ScriptedReplica,
    make_replica: MakeReplica,
    monkeypatch: pytest.MonkeyPatch,
    clean_servers: Servers,
) -> None:
    monkeypatch.setattr(lifecycle, "WEBHOOK_WAITS_S", (0.5,) * 20)
    receiver = ScriptedReplica()
    port = free_port()
    first = await make_gateway(replica, deferred=LOCAL)
    async with first.running.client() as client:
        path = await start(client, headers=f"Penstock-Webhook: http://127.0.0.1:{port}/\r\n".encode())

        async def tried() -> bool:
            return bool((await status(client, path))["webhook"]["attempts"])

        await eventually(tried)
        assert "could not be reached" in (await status(client, path))["webhook"]["problem"]
    await first.stop()
    clean_servers.nats.stop()
    clean_servers.nats.start()
    await receiver.start(port)
    try:
        second = await make_gateway(replica, deferred=LOCAL)
        await eventually(lambda: receiver.seen)
        await eventually(lambda: len(second.board) == 0)
    finally:
        await receiver.stop()
    assert len(replica.seen) == 1


async def test_a_cancelled_one_is_told_too(
    make_gateway: MakeGateway, replica: ScriptedReplica, make_replica: MakeReplica
) -> None:
    receiver = await make_replica()
    replica.handler = Gate()
    gateway = await make_gateway(replica, deferred=LOCAL)
    async with gateway.running.client() as client:
        path = await start(client, headers=webhook(receiver))
        await reaches(client, path, "running")
        await client.request("DELETE", path)
    await eventually(lambda: receiver.seen)
    assert json.loads(receiver.seen[0].body)["type"] == "inference.cancelled"
    await eventually(lambda: gateway.running.endpoint.in_flight == 0)


async def test_private_addresses_are_refused_unless_the_operator_allows_them(
    make_gateway: MakeGateway, replica: ScriptedReplica, make_replica: MakeReplica
) -> None:
    receiver = await make_replica()
    gateway = await make_gateway(replica, deferred={"webhook_allow_http": True})
    strict = await make_gateway(replica)
    without = await make_gateway(replica, deferred={"webhook_secret": None})
    async with gateway.running.client() as client:
        refused = await client.request("POST", "/run", ASYNC + webhook(receiver))
        assert (refused.status, refused.json()["errors"][0]["field"]) == (400, "Penstock-Webhook")
        assert "127.0.0.1 is not a public address" in refused.json()["detail"]
        # A name is looked up when it is connected to: here it stands for this machine.
        named = f"Penstock-Webhook: http://localhost:{receiver.port}/\r\n".encode()
        path = await start(client, headers=named)
        await eventually(lambda: len(gateway.board) == 0)
        told = (await status(client, path))["webhook"]
        assert (told["attempts"], told["delivered_at"]) == (1, None)
        assert "not public" in told["problem"]
    async with strict.running.client() as client:
        refused = await client.request("POST", "/run", ASYNC + named)
        assert "it must be an https address" in refused.json()["detail"]
    async with without.running.client() as client:
        refused = await client.request("POST", "/run", ASYNC + b"Penstock-Webhook: https://example.com/\r\n")
        assert (refused.status, "webhook_secret" in refused.json()["detail"]) == (400, True)
    assert receiver.seen == []
    assert KEY not in str(told)


# --- the sender alone -------------------------------------------------------------------------


def sender(tls: ssl.SSLContext | None = None, **changes: Any) -> WebhookSender:
    return WebhookSender(DeferredSettings(webhook_secret=SECRET, **{**LOCAL, **changes}), tls)


@asynccontextmanager
async def secure_receiver(folder: Path, name: str) -> AsyncIterator[tuple[int, ssl.SSLContext, list[bytes]]]:
    """A TLS server for `name`; its port, what trusts it, and what it was sent."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    arguments = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
    process = await asyncio.create_subprocess_exec(
        "openssl",
        *arguments.split(),
        *("-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", ssl=context)
    try:
        trusting = ssl.create_default_context(cafile=str(certificate))
        yield server.sockets[0].getsockname()[1], trusting, sent
    finally:
        server.close()


async def test_over_tls_the_name_must_be_the_one_that_was_written(tmp_path: Path) -> None:
    async with secure_receiver(tmp_path, "localhost") as (port, trusting, sent):
        url = f"https://localhost:{port}/told"
        assert await sender(trusting).send(url, "org_1", "msg_1", b"{}", 1) == webhooks.Attempted()
        assert sent[0].startswith(b"POST /told HTTP/1.1\r\nHost: localhost:%d\r\n" % port)
        for distrusting, address in ((None, url), (trusting, f"https://127.0.0.1:{port}/told")):
            attempted = await sender(distrusting).send(address, "org_1", "msg_1", b"{}", 1)
            assert (attempted.problem.startswith("TLS failed"), attempted.final) == (True, False)
        assert len(sent) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "did not answer with HTTP"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "did not answer with HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000, "did not answer with HTTP"),
        (b"", "did not answer with HTTP"),
    ],
)
async def test_only_an_http_answer_counts(replica: ScriptedReplica, answer: bytes, problem: str) -> None:
    replica.handler = says(answer, close=True)
    attempted = await sender().send(f"http://127.0.0.1:{replica.port}/", "org_1", "msg_1", b"{}", 1)
    assert problem in attempted.problem
    assert bool(problem) == bool(attempted.problem)


async def test_a_receiver_that_is_silent_is_left_after_a_while(replica: ScriptedReplica) -> None:
    replica.handler = Gate()
    attempted = await sender(webhook_timeout_s=0.1).send(
        f"http://127.0.0.1:{replica.port}/", "org_1", "msg_1", b"{}", 1
    )
    assert attempted.problem == "it did not answer within 0.1 s"
    await eventually(lambda: replica.connections)


async def test_the_address_connected_to_is_the_one_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for a public address at first and a private one later leads to the first, or nowhere."""
    answers = [["203.0.114.9"], ["203.0.114.9", "10.0.0.1"], ["::ffff:127.0.0.1"]]
    connected: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async def connect(host: str, port: int, **_: Any) -> None:
        connected.append(host)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", connect)
    strict = WebhookSender(DeferredSettings(webhook_secret=SECRET, webhook_allow_http=True), look_up=look_up)
    attempts = [await strict.send("http://turncoat.example/", "org_1", "msg_1", b"{}", 1) for _ in range(3)]
    assert connected == ["203.0.114.9"]
    assert [attempted.final for attempted in attempts] == [False, True, True]
    assert all("not public" in attempted.problem for attempted in attempts[1:])
