"""Requests over TLS: the same behaviour as without, and certificates that are renewed under load."""

import asyncio
import json
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.proxy.certificates import Certificates
from penstock_gateway.settings import GatewaySettings
from tests_support import eventually

from .certificates import Pair, make_pair
from .plane import MakePlane, RunningPlane
from .raw import AUTHORIZATION, HOST, KEY, RawClient
from .replica import Connection, Gate, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION
MIB = 1024 * 1024
BOUND_BYTES = 24 * MIB
"""As in test_streaming: what may be held of a stream that nobody reads."""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path, "first")


@asynccontextmanager
async def tls_client(port: int, trusted: ssl.SSLContext) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, limit=4 * MIB)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def url(plane: RunningPlane) -> str:
    return plane.url.replace("http:", "https:")


async def name_served(port: int, *trusted: Pair) -> str:
    """Common name of the certificate that a new connection is shown."""
    context = trusted[0].trusted()
    for other in trusted[1:]:
        context.load_verify_locations(str(other.certificate))
    async with tls_client(port, context) as client:
        shown = client.writer.get_extra_info("peercert")
        return str(dict(part[0] for part in shown["subject"])["commonName"])


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "missing"), [("tls_key_file", "tls_certificate_file"), ("tls_certificate_file", "tls_key_file")]
)
def test_one_file_without_the_other_is_refused_with_the_missing_one_named(given: str, missing: str) -> None:
    with pytest.raises(ValidationError, match=f"{missing} is not set"):
        GatewaySettings(**{given: Path("x.pem")})  # type: ignore[arg-type]


async def test_files_that_cannot_be_used_at_the_start_are_an_error(tmp_path: Path, make_plane: MakePlane) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(OSError, match=r".+"):
            await make_plane(settings={"tls_certificate_file": tmp_path / name, "tls_key_file": tmp_path / name})


async def test_a_key_with_a_password_is_an_error_and_asks_nobody(pair: Pair, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(pair.key), "-out", str(sealed), "-passout", "pass:secret"]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    with pytest.raises(ssl.SSLError):
        Certificates(pair.certificate, sealed)


# --- requests ---------------------------------------------------------------------------------


async def test_requests_come_through_and_say_https(make_plane: MakePlane, replica: ScriptedReplica, pair: Pair) -> None:
    plane = await make_plane(replica, settings=pair.settings)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, verify=pair.trusted()) as client:
        for number in range(3):
            answer = await client.post(f"{url(plane)}/predict", json={"number": number})
            assert answer.status_code == 200
            assert json.loads(answer.json()["body"]) == {"number": number}
        assert plane.plane.context.connections == 1
    seen = replica.seen[0]
    assert seen.one("X-Forwarded-Proto") == "https"
    assert "proto=https" in seen.one("Forwarded")
    assert seen.one("X-Forwarded-For") == "127.0.0.1"


async def test_only_http_1_1_over_tls_1_2_or_later_is_spoken(
    make_plane: MakePlane, replica: ScriptedReplica, pair: Pair
) -> None:
    plane = await make_plane(replica, settings=pair.settings)
    trusted = pair.trusted()
    trusted.set_alpn_protocols(["h2", "http/1.1"])
    async with tls_client(plane.port, trusted) as client:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert (await client.request()).status == 200
    enough = pair.trusted()
    enough.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tls_client(plane.port, enough) as client:
        assert (await client.request()).status == 200
    old = pair.trusted()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with tls_client(plane.port, old):
            pass
    async with plane.client() as plain:
        await plain.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        assert await plain.closed()
    assert len(replica.seen) == 2


async def test_a_connection_that_never_shakes_hands_is_cut_off(make_plane: MakePlane, pair: Pair) -> None:
    plane = await make_plane(settings={**pair.settings, "head_timeout_s": 0.2})
    async with plane.client() as client:
        await client.send(b"\x16\x03\x01")
        began_s = monotonic()
        assert await client.closed()
        assert monotonic() - began_s < 5


async def test_large_bodies_come_through_unchanged(make_plane: MakePlane, replica: ScriptedReplica, pair: Pair) -> None:
    async def echo_body(seen: Seen, connection: Connection) -> None:
        await connection.answer(await connection.body(seen))

    replica.handler = echo_body
    plane = await make_plane(replica, settings=pair.settings)
    body = bytes(range(256)) * (8 * MIB // 256)
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {KEY}"}, verify=pair.trusted(), timeout=60
    ) as client:
        assert (await client.post(f"{url(plane)}/x", content=body)).content == body


async def test_a_reader_that_stops_reading_stops_the_replica_and_not_our_memory(
    make_plane: MakePlane, replica: ScriptedReplica, pair: Pair
) -> None:
    sent = 0
    stands_since_s = monotonic()

    async def endless(seen: Seen, connection: Connection) -> None:
        nonlocal sent, stands_since_s
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536
            stands_since_s = monotonic()

    replica.handler = endless
    plane = await make_plane(replica, settings=pair.settings)
    async with tls_client(plane.port, pair.trusted()) as client:
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        assert (await client.head())[0] == 200
        client.stop_reading()
        await eventually(lambda: monotonic() - stands_since_s > 0.5)
        assert sent < BOUND_BYTES
        client.go_on_reading()
        await client.reader.readexactly(2 * MIB)
        client.leave()
        await asyncio.wait_for(replica.connections[0].lost.wait(), 5)
    await eventually(lambda: plane.endpoint.stats.statuses == {499: 1})


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_cancels_its_request(
    make_plane: MakePlane, replica: ScriptedReplica, pair: Pair, how: str
) -> None:
    replica.handler = Gate()
    plane = await make_plane(replica, settings=pair.settings)
    async with tls_client(plane.port, pair.trusted()) as client:
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: replica.working == 1)
        (client.leave if how == "reset" else client.writer.close)()
        await eventually(lambda: plane.endpoint.stats.statuses == {499: 1})
        assert plane.endpoint.queue.in_flight == 0


async def test_a_refused_request_is_answered_although_its_body_is_not_read(make_plane: MakePlane, pair: Pair) -> None:
    plane = await make_plane(settings={**pair.settings, "body_bytes_max": 10, "linger_s": 0.1})
    async with tls_client(plane.port, pair.trusted()) as client:
        await client.send(b"POST / HTTP/1.1\r\n" + FIELDS + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert (await client.answer()).status == 413
        assert await client.closed()


async def test_websockets_work(make_plane: MakePlane, pair: Pair) -> None:
    async def chat(socket_: ServerConnection) -> None:
        async for message in socket_:
            await socket_.send(message[::-1])

    async with serve(chat, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        plane = await make_plane(settings=pair.settings)
        plane.change_route(replicas=(RouteReplica(replica_id="rep_ws", address=f"127.0.0.1:{port}"),))
        uri = f"wss://127.0.0.1:{plane.port}/e/default/iris/chat"
        headers = {"Authorization": f"Bearer {KEY}"}
        async with connect(uri, additional_headers=headers, ssl=pair.trusted()) as client:
            await client.send("hello")
            assert await client.recv() == "olleh"


# --- renewal ----------------------------------------------------------------------------------


async def test_a_renewed_certificate_is_shown_and_open_connections_stay(
    make_plane: MakePlane, replica: ScriptedReplica, pair: Pair, tmp_path: Path
) -> None:
    other = make_pair(tmp_path, "second")
    plane = await make_plane(replica, settings=pair.settings)
    certificates = plane.plane.certificates
    assert certificates is not None
    following = asyncio.create_task(certificates.run(0.02))
    old = make_pair(tmp_path, "old")
    old.replace_with(pair)
    async with tls_client(plane.port, old.trusted()) as open_since_before:
        assert (await open_since_before.request()).status == 200
        pair.replace_with(other)

        async def renewed() -> bool:
            return await name_served(plane.port, old, other) == "second"

        await eventually(renewed)
        assert (await open_since_before.request()).status == 200
    following.cancel()


async def test_a_broken_pair_is_logged_once_and_the_old_one_stays_until_it_is_mended(
    make_plane: MakePlane, pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, third = make_pair(tmp_path, "second"), make_pair(tmp_path, "third")
    plane = await make_plane(settings=pair.settings)
    certificates = plane.plane.certificates
    assert certificates is not None
    first = make_pair(tmp_path, "copy")
    first.replace_with(pair)
    trusted = (first, other, third)

    def failures() -> int:
        return sum("cannot be used" in record.message for record in caplog.records)

    # The certificate of one and the key of another.
    pair.certificate.write_bytes(other.certificate.read_bytes())
    for _ in range(3):
        certificates.refresh()
        assert await name_served(plane.port, *trusted) == "first"
    assert failures() == 1
    pair.key.unlink()
    certificates.refresh()
    assert (await name_served(plane.port, *trusted), failures()) == ("first", 2)
    pair.replace_with(third)
    certificates.refresh()
    assert await name_served(plane.port, *trusted) == "third"
    assert failures() == 2
