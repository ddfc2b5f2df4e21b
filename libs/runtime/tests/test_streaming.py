"""Streams: the forms they take, how they end, and what stops them."""

import asyncio
from collections.abc import Mapping

import httpx
import pytest

from tests_support import eventually

from .conftest import OPENED, Gate, Replica, Start, field, route

EVENTS = {"accept": "text/event-stream"}

FORMS = """
def words():
    yield "one "
    yield ""
    yield "zwei ü"

async def awords():
    for word in words():
        yield word

def blobs():
    yield bytes([0, 255])
    yield bytearray(b"x")

def rows():
    state = {"n": 0}
    for n in range(40):
        state["n"] = n
        yield state

async def arows():
    for row in rows():
        yield row

def returned():
    return map(lambda n: [n], range(3))

async def areturned():
    return returned()

def returns_async():
    return arows()

def nothing():
    yield from ()

async def anothing():
    if False:
        yield
"""


@pytest.mark.parametrize(
    ("function", "content_type", "body"),
    [
        ("words", "text/plain; charset=utf-8", "one zwei ü".encode()),
        ("awords", "text/plain; charset=utf-8", "one zwei ü".encode()),
        ("blobs", "application/octet-stream", b"\x00\xffx"),
        ("rows", "application/x-ndjson", b"".join(b'{"n":%d}\n' % n for n in range(40))),
        ("arows", "application/x-ndjson", b"".join(b'{"n":%d}\n' % n for n in range(40))),
        ("returned", "application/x-ndjson", b"[0]\n[1]\n[2]\n"),
        ("areturned", "application/x-ndjson", b"[0]\n[1]\n[2]\n"),
        ("returns_async", "application/x-ndjson", b"".join(b'{"n":%d}\n' % n for n in range(40))),
        ("nothing", "text/plain; charset=utf-8", b""),
        ("anothing", "text/plain; charset=utf-8", b""),
    ],
)
async def test_the_first_chunk_decides_the_form(start: Start, function: str, content_type: str, body: bytes) -> None:
    replica = await start(FORMS, route("/stream", function)).ready()
    for _ in range(2):  # the slot is free again
        answer = await replica.client.post("/stream")
        assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
        assert answer.content == body
        assert "content-length" not in answer.headers


async def test_a_client_that_accepts_events_gets_json_as_events_and_text_as_it_is(start: Start) -> None:
    replica = await start(FORMS, *(route(f"/{name}", name) for name in ("returned", "words", "nothing"))).ready()

    answer = await replica.client.post("/returned", headers=EVENTS)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text == "data: [0]\n\ndata: [1]\n\ndata: [2]\n\n"
    assert (await replica.client.post("/words", headers=EVENTS)).text == "one zwei ü"
    assert (await replica.client.post("/nothing", headers=EVENTS)).headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("keyword", ["def", "async def"])
async def test_chunks_arrive_while_the_model_still_works(start: Start, keyword: str, gate: Gate) -> None:
    wait = "open(gate).close()" if keyword == "def" else "await opened(gate)"
    source = f"""{OPENED}
{keyword} tokens(gate):
    yield {{"token": 1}}
    {wait}
    yield {{"token": 2}}
    """
    replica = await start(source, route("/tokens", "tokens", field("gate", "str"))).ready()
    async with replica.client.stream("POST", "/tokens", json={"gate": gate.path}) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == '{"token":1}'
        gate.open()
        assert await anext(lines) == '{"token":2}'


async def test_a_plain_generator_stays_in_one_thread(start: Start) -> None:
    source = """
    import threading
    def threads():
        for _ in range(50):
            yield [threading.get_ident()]
    """
    replica = await start(source, route("/threads", "threads"), concurrency=4).ready()
    assert len(set((await replica.post("/threads")).text.split())) == 1


# --- failures -------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["def", "async def"])
async def test_a_generator_that_raises_before_its_first_chunk_is_a_500(start: Start, keyword: str) -> None:
    source = f"""
    {keyword} predict():
        raise SystemExit("no weights")
        yield 1
    """
    replica = await start(source, route("/predict", "predict")).ready()
    answer = await replica.post("/predict")
    assert (answer.status_code, answer.json()["detail"]) == (500, "SystemExit: no weights")


async def read_stream(replica: Replica, got: bytearray, headers: Mapping[str, str] | None = None) -> None:
    """Adds the stream's bytes to what was got, up to its end or its failure."""
    async with replica.client.stream("POST", "/predict", headers=headers) as answer:
        async for part in answer.aiter_bytes():
            got += part


@pytest.mark.parametrize("keyword", ["def", "async def"])
@pytest.mark.parametrize("last", ["raise ValueError('late')", "yield object()"])
async def test_a_stream_that_fails_is_cut_so_that_nobody_takes_it_for_complete(
    start: Start, keyword: str, last: str
) -> None:
    source = f"""
    {keyword} predict():
        yield {{"n": 1}}
        {last}
    """
    replica = await start(source, route("/predict", "predict")).ready()
    got = bytearray()
    with pytest.raises(httpx.RemoteProtocolError):
        await read_stream(replica, got)
    assert got == b'{"n":1}\n'
    assert replica.errors.startswith("POST /predict failed (request -): ")
    assert "ASGI" not in replica.errors
    assert (await replica.client.get("/ping")).status_code == 200


async def test_a_stream_of_events_that_fails_says_so_in_a_last_event(start: Start) -> None:
    source = """
    def predict():
        yield {"n": 1}
        raise ValueError("late")
    """
    replica = await start(source, route("/predict", "predict")).ready()
    got = bytearray()
    with pytest.raises(httpx.RemoteProtocolError):
        await read_stream(replica, got, EVENTS)
    first, last, end = got.decode().split("\n\n")
    assert (first, end) == ('data: {"n":1}', "")
    assert last.startswith('event: error\ndata: {"type":"urn:penstock:problem:model_error"')


async def test_text_and_json_in_one_stream_is_an_error(start: Start) -> None:
    source = """
    def predict():
        yield "text"
        yield {"n": 1}
    """
    replica = await start(source, route("/predict", "predict")).ready()
    with pytest.raises(httpx.RemoteProtocolError):
        await replica.post("/predict")
    assert "The function yielded a value of type dict after text or bytes" in replica.errors


# --- clients that leave ---------------------------------------------------------------------

ENDLESS = """
import asyncio, sys, time

def plain(pause):
    try:
        while True:
            yield {"n": 1}
            time.sleep(pause)
    finally:
        print("stopped", flush=True)

async def on_loop(pause):
    try:
        while True:
            yield {"n": 1}
            await asyncio.sleep(pause)
    finally:
        print("stopped", flush=True)

async def greedy(pause):
    try:
        while True:
            yield {"n": 1}
    finally:
        print("stopped", flush=True)

async def call(pause):
    try:
        await asyncio.Event().wait()
    finally:
        print("stopped", flush=True)

def quick():
    return "quick"
"""


@pytest.mark.parametrize(
    ("function", "pause"), [("plain", 0.0), ("plain", 0.01), ("on_loop", 0.0), ("on_loop", 0.01), ("greedy", 0.0)]
)
async def test_a_client_that_leaves_stops_the_generator_and_frees_its_slot(
    start: Start, function: str, pause: float
) -> None:
    replica = await start(
        ENDLESS, route("/stream", function, field("pause", "float")), route("/quick", "quick")
    ).ready()

    async with replica.client.stream("POST", "/stream", json={"pause": pause}) as answer:
        assert await anext(answer.aiter_lines()) == '{"n":1}'
        assert (await replica.client.get("/ping")).status_code == 200

    assert (await replica.post("/quick")).json() == "quick"
    await eventually(lambda: "stopped" in replica.output)
    await eventually(lambda: "POST /stream 499 " in replica.output)
    assert replica.errors == ""


async def test_a_client_that_leaves_cancels_an_async_call(start: Start) -> None:
    replica = await start(ENDLESS, route("/call", "call", field("pause", "float")), route("/quick", "quick")).ready()
    with pytest.raises(httpx.ReadTimeout):
        await replica.client.post("/call", json={"pause": 0}, timeout=0.2)
    assert (await replica.post("/quick")).json() == "quick"
    await eventually(lambda: "POST /call 499 " in replica.output)
    assert "stopped" in replica.output
    assert replica.errors == ""


async def test_a_client_that_leaves_the_line_is_never_served(start: Start, gate: Gate) -> None:
    source = """
    def wait(gate):
        print("called")
        open(gate).close()
    """
    replica = await start(source, route("/wait", "wait", field("gate", "str"))).ready()
    first = asyncio.create_task(replica.post("/wait", gate=gate.path))
    await eventually(lambda: "called" in replica.output)
    with pytest.raises(httpx.ReadTimeout):
        await replica.client.post("/wait", json={"gate": gate.path}, timeout=0.2)
    await eventually(lambda: "POST /wait 499 " in replica.output)
    gate.open()
    assert (await first).status_code == 200
    assert (await replica.post("/wait", gate=gate.path)).status_code == 200
    assert replica.output.count("called") == 2


async def test_a_plain_call_whose_client_left_keeps_its_slot_until_it_is_done(start: Start, gate: Gate) -> None:
    source = """
    running = 0
    def wait(gate):
        global running
        running += 1
        seen = running
        open(gate).close()
        running -= 1
        return seen
    """
    replica = await start(source, route("/wait", "wait", field("gate", "str"))).ready()
    with pytest.raises(httpx.ReadTimeout):
        await replica.client.post("/wait", json={"gate": gate.path}, timeout=0.2)
    second = asyncio.create_task(replica.post("/wait", gate=gate.path))
    gate.open()
    assert (await second).json() == 1


async def test_a_slow_client_holds_a_plain_generator_back(start: Start) -> None:
    source = """
    made = 0
    def stream():
        global made
        while made < 1000:
            made += 1
            yield bytes(1_000_000)
    def count(): return made
    """
    replica = await start(
        source, route("/stream", "stream"), route("/count", "count", verb="GET"), concurrency=2
    ).ready()
    async with replica.client.stream("POST", "/stream") as answer:
        assert answer.status_code == 200
        counts = [(await replica.client.get("/count")).json() for _ in range(200)]
    assert counts[-1] < 100


async def test_a_generator_that_fails_while_it_is_stopped_is_in_the_log(start: Start) -> None:
    source = """
    def plain():
        try:
            while True:
                yield {"n": 1}
        finally:
            raise ValueError("at the end")
    """
    replica = await start(source, route("/stream", "plain")).ready()
    async with replica.client.stream("POST", "/stream") as answer:
        await anext(answer.aiter_lines())
    await eventually(lambda: "A stream failed after its client had left: ValueError: at the end" in replica.errors)
    assert (await replica.client.get("/ping")).status_code == 200
