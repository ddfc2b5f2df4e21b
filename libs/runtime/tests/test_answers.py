"""What a replica answers, by real processes over real HTTP."""

import asyncio
import json
import re
from contextlib import suppress

import httpx
import pytest

from .conftest import Start, field, route


async def test_sync_and_async_functions_answer_by_position_and_by_keyword(start: Start) -> None:
    source = """
    def ratio(a, b):
        return {"ratio": a / b}

    async def aratio(a, b):
        return {"ratio": a / b}
    """
    body = [field("b", "float"), field("a", "float")]
    replica = await start(
        source,
        route("/keyword", "ratio", *body),
        route("/position", "ratio", *body, positional=True),
        route("/async/keyword", "aratio", *body),
        route("/async/position", "aratio", *body, positional=True),
    ).ready()

    answers = {
        path: (await replica.post(path, a=1, b=4)).json()["ratio"]
        for path in ("/keyword", "/position", "/async/keyword", "/async/position")
    }

    assert answers == {"/keyword": 0.25, "/position": 4, "/async/keyword": 0.25, "/async/position": 4}


async def test_get_and_post_of_one_path_are_two_routes(start: Start) -> None:
    source = """
    def shown(): return "shown"
    def changed(to): return to
    """
    replica = await start(
        source, route("/", "shown", verb="GET"), route("/", "changed", field("to", "str"), verb="POST")
    ).ready()
    assert (await replica.client.get("/?ignored=1")).json() == "shown"
    assert (await replica.post("/", to="x")).json() == "x"


async def test_numpy_results_are_json_and_bytes_are_binary(start: Start) -> None:
    source = """
    import numpy as np
    def scores(): return {"scores": np.array([0.5, np.nan]), "best": np.int64(0)}
    def image(): return bytes(range(256))
    def nothing(): return None
    """
    routes = [route(f"/{name}", name, verb="GET") for name in ("scores", "image", "nothing")]
    replica = await start(source, *routes).ready()

    assert (await replica.client.get("/scores")).json() == {"scores": [0.5, None], "best": 0}
    image = await replica.client.get("/image")
    assert (image.content, image.headers["content-type"]) == (bytes(range(256)), "application/octet-stream")
    assert (await replica.client.get("/nothing")).json() is None


async def test_a_function_behind_a_decorator_or_a_returned_coroutine_is_awaited(start: Start) -> None:
    source = """
    import functools
    def logged(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs): return function(*args, **kwargs)
        return wrapper

    @logged
    async def predict(a): return a + 1
    """
    replica = await start(source, route("/predict", "predict", field("a", "int"))).ready()
    assert (await replica.post("/predict", a=1)).json() == 2


async def test_the_sources_folder_is_the_working_directory_and_is_first_on_the_path(start: Start) -> None:
    source = {
        "predict.py": "import colour\nwith open('weights.txt') as file: weights = file.read()\n"
        "def predict(): return [weights, colour.name]\n",
        "weights.txt": "0.5",
        "colour.py": "name = 'red'\n",
    }
    replica = await start(source, route("/predict", "predict", verb="GET")).ready()
    assert (await replica.client.get("/predict")).json() == ["0.5", "red"]


# --- requests that cannot be answered --------------------------------------------------------

ECHO = "def echo(text): return text\n"


async def test_an_unknown_path_names_the_routes_there_are(start: Start) -> None:
    replica = await start(ECHO, route("/echo", "echo", field("text", "str"))).ready()
    answer = await replica.post("/ech")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "unknown_path"
    assert answer.json()["detail"] == "No route /ech; this endpoint answers POST /echo."


@pytest.mark.parametrize(("verb", "path", "allow"), [("GET", "/echo", "POST"), ("POST", "/ping", "GET")])
async def test_a_wrong_verb_is_a_405_that_allows_the_right_one(start: Start, verb: str, path: str, allow: str) -> None:
    replica = await start(ECHO, route("/echo", "echo", field("text", "str"))).ready()
    answer = await replica.client.request(verb, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["code"] == "method_not_allowed"


async def test_a_body_that_does_not_match_is_refused_with_every_field(start: Start) -> None:
    replica = await start(ECHO, route("/echo", "echo", field("text", "str"))).ready()
    answer = await replica.post("/echo", text=5, tone="loud")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == ["text", "tone"]
    broken = await replica.client.post("/echo", content=b'{"text": ')
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_json")


async def test_a_body_that_is_too_large_is_refused_and_one_at_the_limit_is_not(start: Start) -> None:
    replica = await start(ECHO, route("/echo", "echo", field("text", "str")), max_body_bytes=1000).ready()
    largest = json.dumps({"text": "x" * (1000 - len('{"text": ""}'))}).encode()

    async def pieces() -> object:
        for start_at in range(0, len(largest) + 1, 100):
            yield (largest + b" ")[start_at : start_at + 100]

    assert (await replica.client.post("/echo", content=largest)).status_code == 200
    declared = await replica.client.post("/echo", content=largest + b" ")
    chunked = await replica.client.post("/echo", content=pieces())  # type: ignore[arg-type]
    for answer in (declared, chunked):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert (await replica.post("/echo", text="x")).status_code == 200


async def test_a_request_that_would_change_protocols_is_refused_rather_than_misread(start: Start) -> None:
    replica = await start(ECHO, route("/echo", "echo", field("text", "str"))).ready()
    headers = {"connection": "upgrade", "upgrade": "h2c"}
    answer = await replica.client.post("/echo", json={"text": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "upgrade_refused")
    assert replica.errors == ""


async def test_a_large_body_is_read_whole(start: Start) -> None:
    replica = await start("def length(text): return len(text)\n", route("/", "length", field("text", "str"))).ready()
    assert (await replica.post("/", text="x" * 3_000_000)).json() == 3_000_000


# --- a model that fails ---------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["def", "async def"])
@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("raise ValueError('bad shape')", "ValueError: bad shape"),
        ("raise StopIteration", "StopIteration"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("raise Broken", "Broken: (its message cannot be shown: __str__ raised)"),
        ("raise ValueError('\\ud800')", "ValueError: \\ud800"),
    ],
)
async def test_an_exception_is_a_500_with_a_traceback_in_the_log_and_the_replica_lives_on(
    start: Start, keyword: str, statement: str, detail: str
) -> None:
    source = f"""
    import asyncio
    class Broken(Exception):
        def __str__(self): raise RuntimeError

    {keyword} predict():
        {statement}
    """
    replica = await start(source, route("/predict", "predict")).ready()

    answer = await replica.client.post("/predict", headers={"x-request-id": "req-1"})

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "model_error"
    if (keyword, statement) == ("async def", "raise StopIteration"):
        detail = "RuntimeError: coroutine raised StopIteration"  # so Python itself has it
    assert answer.json()["detail"] == detail
    assert replica.errors.startswith("POST /predict failed (request req-1): " + detail)
    assert "Traceback (most recent call last):\n  File" in replica.errors
    assert f'/predict.py", line 7, in predict\n    {statement}' in replica.errors
    assert "penstock_runtime" not in replica.errors
    assert (await replica.client.post("/predict")).status_code == 500
    assert (await replica.client.get("/ping")).status_code == 200


async def test_a_result_that_json_cannot_hold_is_a_500_that_says_so(start: Start) -> None:
    source = """
    def sync(): return {"image": b"x"}
    async def on_loop(): return {"image": b"x"}
    class Odd:
        def tolist(self): raise ValueError("no list")
    async def odd(): return Odd()
    """
    replica = await start(source, *(route(f"/{name}", name) for name in ("sync", "on_loop", "odd"))).ready()
    for path in ("/sync", "/on_loop"):
        answer = await replica.post(path)
        assert (answer.status_code, answer.json()["code"]) == (500, "unencodable_result")
        assert "bytes inside JSON at result['image']" in answer.json()["detail"]
    assert (await replica.post("/odd")).json()["detail"] == "ValueError: no list"


async def test_a_task_of_the_model_that_exits_ends_the_replica_with_an_error_not_in_silence(start: Start) -> None:
    source = """
    import asyncio
    tasks = []
    async def leave(): raise SystemExit(0)
    async def predict():
        tasks.append(asyncio.create_task(leave()))
    """
    replica = await start(source, route("/predict", "predict")).ready()
    with suppress(httpx.TransportError):  # whether the answer or the end comes first is left to chance
        await replica.post("/predict")
    assert await replica.ended() == 1
    assert "The model's code ended the server: a task that it had started raised SystemExit: 0." in replica.errors


# --- at the same time -----------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["def", "async def"])
async def test_at_most_as_many_calls_as_configured_run_at_once(start: Start, keyword: str) -> None:
    pause = "time.sleep(0.05)" if keyword == "def" else "await asyncio.sleep(0.05)"
    source = f"""
    import asyncio, time
    running = 0
    most = 0
    {keyword} predict():
        global running, most
        running += 1
        most = max(most, running)
        {pause}
        running -= 1
        return most
    """
    replica = await start(source, route("/predict", "predict"), concurrency=3).ready()
    answers = await asyncio.gather(*(replica.post("/predict") for _ in range(12)))
    assert max(answer.json() for answer in answers) == 3


async def test_ping_is_answered_while_every_slot_is_busy(start: Start) -> None:
    source = """
    import threading
    gate = threading.Event()
    def wait(): gate.wait(20)
    """
    replica = await start(source, route("/wait", "wait")).ready()
    waiting = [asyncio.create_task(replica.post("/wait")) for _ in range(3)]
    for _ in range(3):
        assert (await replica.client.get("/ping")).json() == {"status": "ok"}
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()


# --- the log --------------------------------------------------------------------------------


async def test_every_request_but_ping_is_one_line_with_its_id(start: Start) -> None:
    replica = await start(ECHO, route("/echo", "echo", field("text", "str"))).ready()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for headers in (
        {"x-request-id": "req-7", "traceparent": trace},
        {"traceparent": trace},
        {"x-request-id": "two words", "traceparent": "nonsense"},
    ):
        await replica.client.post("/echo", json={"text": "a"}, headers=headers)
    await replica.client.post("/a%20b%0Ac")

    first, *lines = replica.output.splitlines()
    assert first == f"team/model: serving POST /echo on {replica.address}"
    assert [re.sub(r"[\d.]+ms", "Nms", line) for line in lines] == [
        "POST /echo 200 Nms req-7",
        "POST /echo 200 Nms 4bf92f3577b34da6a3ce929d0e0e4736",
        "POST /echo 200 Nms -",
        "POST /a%20b%0Ac 404 Nms -",
    ]


async def test_what_the_model_prints_is_in_the_log_at_once_even_binary(start: Start) -> None:
    source = """
    import os, sys
    def speak():
        print("half of a pair: \\ud800")
        print("to stderr", file=sys.stderr)
        os.write(1, bytes([0, 255, 10]))
        sys.stdout = None
    """
    replica = await start(source, route("/speak", "speak")).ready()
    assert (await replica.post("/speak")).status_code == 200
    output = (replica.folder / "stdout").read_bytes()
    assert b"half of a pair: \\ud800\n\x00\xff\nPOST /speak 200 " in output
    assert replica.errors == "to stderr\n"
