"""First events and tokens, as the bodies of answers say them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_gateway.proxy.measuring import EVENTS, JSON, TAIL_BYTES, Meter, measured_media, usage_in
from tests_support import eventually

from .plane import MakePlane, RunningPlane
from .raw import AUTHORIZATION
from .replica import Connection, Gate, Handler, ScriptedReplica, Seen

USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 3}}
ANSWER = {"id": "1", "choices": [{"message": {"content": 'say "usage": {"prompt_tokens": 1}'}}], "usage": USAGE}
CHUNKED = "Transfer-Encoding: chunked\r\n"


def event(content: str | None, usage: dict[str, Any] | None = None) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return f"data: {json.dumps({'choices': choices, 'usage': usage})}\n\n".encode()


STREAM = [event(word) for word in ("one", "two", "three")] + [event(None, USAGE), b"data: [DONE]\n\n"]


def pair(tail: bytes) -> tuple[int, int] | None:
    usage = usage_in(tail)
    return None if usage is None else (usage.prompt_tokens, usage.completion_tokens)


# --- pure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Content-Type: text/event-stream", EVENTS),
        ("content-type:text/Event-Stream; charset=utf-8", EVENTS),
        ("Content-Type: application/json", JSON),
        ("Content-Type: application/problem+json", b""),
        ("Content-Type: application/json-seq", b""),
        ("X-Content-Type: application/json", b""),
        ("Content-Type: text/plain", b""),
    ],
)
def test_only_json_and_events_are_looked_at(line: str, expected: bytes) -> None:
    assert measured_media(f"HTTP/1.1 200 OK\r\n{line}\r\nA: b\r\n\r\n".encode()) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (json.dumps(ANSWER), (7, 11)),
        (json.dumps(ANSWER, indent=2), (7, 11)),
        (b"".join(STREAM).decode(), (7, 11)),
        ('{"usage": {"prompt_tokens": 5}}', (5, 0)),
        ('{"usage": {"prompt_tokens": 5, "completion_tokens": 1}, "more": {"usage": null}}', (5, 1)),
        ('{"usage": {"prompt_tokens": 5, "completion_tokens": 1}, "more": {"usage": {}}}', (5, 1)),
        ('{"usage": null}', None),
        ('{"usage": {"prompt_tokens": 5', None),
        ('{"usage": {"prompt_tokens": "5", "completion_tokens": 1}}', None),
        ('{"usage": {"prompt_tokens": true, "completion_tokens": 1}}', None),
        ('{"usage": {"prompt_tokens": -1, "completion_tokens": 1}}', None),
        ('{"usage": {"prompt_tokens": 1e3, "completion_tokens": 1}}', None),
        ('{"usage": {"prompt_tokens": 1, "completion_tokens": ' + "9" * 3000 + "}}", None),
        ('{"usage": ' + '{"a":' * 700, None),
        ('{"usage": {"prompt_tokens": 5}}' + " " * TAIL_BYTES, None),
        ("", None),
    ],
)
def test_the_last_whole_usage_counts_and_what_is_malformed_does_not(
    body: str, expected: tuple[int, int] | None
) -> None:
    assert pair(body.encode()) == expected


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_body_is_too_odd(before: bytes, after: bytes) -> None:
    usage_in(before + b'"usage": {' + after)


@given(st.lists(st.integers(1, 5000), max_size=30))
def test_however_a_body_is_cut_its_end_is_what_counts(sizes: list[int]) -> None:
    body = b"x" * 20_000 + json.dumps(ANSWER).encode()
    meter = Meter(JSON)
    for size in sizes:
        meter.take((body[:size],))
        body = body[size:]
    meter.take((body,))
    assert len(meter._tail) <= 3 * TAIL_BYTES
    if len(body) > 300:
        assert meter.usage() == (7, 11)


def test_an_event_begins_with_its_data_and_not_with_a_comment() -> None:
    meter = Meter(EVENTS)
    for piece in (b": data: no\n\n", b"event: chat\nda"):
        meter.take((piece,))
        assert not meter.begun()
    meter.take((b"ta: x",))
    assert meter.begun()
    assert not meter.waits


# --- on the way -------------------------------------------------------------------------------


def streaming(pieces: list[bytes], gate: Gate, *, chunked: bool) -> Handler:
    """Sends each piece when the gate lets it go; the body ends with the connection unless it is chunked."""

    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        fields = f"Content-Type: text/event-stream\r\n{CHUNKED if chunked else ''}\r\n"
        await connection.send(b"HTTP/1.1 200 OK\r\n" + fields.encode())
        for piece in pieces:
            await gate.wait()
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await connection.send(b"0\r\n\r\n")
        else:
            connection.writer.close()

    return handler


def tokens(plane: RunningPlane) -> tuple[int, int]:
    return plane.endpoint.stats.prompt_tokens, plane.endpoint.stats.completion_tokens


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_stream_is_timed_to_its_first_event_and_its_tokens_are_counted(
    make_plane: MakePlane, replica: ScriptedReplica, chunked: bool
) -> None:
    gate = Gate()
    replica.handler = streaming([b": hello\n\n", *STREAM], gate, chunked=chunked)
    plane = await make_plane(replica)
    stats = plane.endpoint.stats
    async with plane.client() as client:
        await client.send(b"GET /e/default/iris/x HTTP/1.1\r\nHost: a\r\n" + AUTHORIZATION + b"\r\n")
        await client.head()
        gate.open()
        await client.reader.readuntil(b"hello\n\n")
        assert stats.first_token.count == 0
        gate.open()
        await client.reader.readuntil(b"one")
        assert stats.first_token.count == 1
        gate.open(len(STREAM))
        await client.reader.readuntil(b"[DONE]")
        await eventually(lambda: stats.statuses == {200: 1})
    assert stats.first_token.count == 1
    assert stats.first_byte.total_us <= stats.first_token.total_us <= stats.latency.total_us
    assert tokens(plane) == (7, 11)


async def test_equal_answers_are_counted_each(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    async def chat(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        body = json.dumps(ANSWER).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await connection.send(head.encode() + body)

    replica.handler = chat
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(5):
            assert (await client.request("POST", body=b"{}")).json() == ANSWER
    assert tokens(plane) == (35, 55)
    assert plane.endpoint.stats.first_token.count == 0


@pytest.mark.parametrize("fields", ["HTTP/1.1 400 Bad\r\nContent-Type: application/json", "HTTP/1.1 200 OK\r\nX: y"])
async def test_failures_and_other_kinds_of_answer_have_no_tokens(
    make_plane: MakePlane, replica: ScriptedReplica, fields: str
) -> None:
    async def chat(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        body = json.dumps(ANSWER).encode()
        await connection.send(f"{fields}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    replica.handler = chat
    plane = await make_plane(replica)
    async with plane.client() as client:
        for _ in range(3):
            assert (await client.request("POST", body=b"{}")).json() == ANSWER
    assert tokens(plane) == (0, 0)


async def test_a_stream_that_its_client_leaves_has_no_tokens(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    gate = Gate()
    gate.open(2)
    replica.handler = streaming(STREAM, gate, chunked=True)
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET /e/default/iris/x HTTP/1.1\r\nHost: a\r\n" + AUTHORIZATION + b"\r\n")
        await client.reader.readuntil(b"two")
    await eventually(lambda: plane.endpoint.stats.statuses == {499: 1})
    assert tokens(plane) == (0, 0)
    assert plane.endpoint.stats.first_token.count == 1
