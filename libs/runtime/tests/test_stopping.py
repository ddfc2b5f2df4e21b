"""Stopping: SIGTERM drains and exits with 0, whatever the model does."""

import asyncio
import signal
import sys

import httpx
import pytest

from tests_support import eventually

from .conftest import OPENED, Gate, Start, field, route

GATED = (
    OPENED
    + """

def plain(gate):
    print("called")
    open(gate).close()
    return "done"

async def on_loop(gate):
    print("called")
    await opened(gate)
    return "done"

def stream(gate):
    yield "called "
    print("called")
    open(gate).close()
    yield "done"
"""
)
GATE = field("gate", "str")

IMPATIENT = (
    sys.executable,
    "-c",
    "import sys, penstock_runtime.__main__ as program, penstock_runtime.serving as serving\n"
    "serving.DRAIN_S = serving.LEAVE_S = 0.3\n"
    "sys.exit(program.main())",
)
"""A replica that gives work in flight less time than a test would like to wait."""


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("function", "expected"), [("plain", '"done"'), ("on_loop", '"done"'), ("stream", "called done")]
)
async def test_what_is_in_flight_is_finished_and_the_exit_code_is_0(
    start: Start, gate: Gate, function: str, expected: str, signal_number: int
) -> None:
    replica = await start(GATED, route("/wait", function, GATE)).ready()
    answer = asyncio.create_task(replica.post("/wait", gate=gate.path))
    await eventually(lambda: "called" in replica.output)

    replica.process.send_signal(signal_number)

    async def refused() -> bool:
        async with httpx.AsyncClient() as stranger:
            try:
                await stranger.get(f"http://{replica.address}/ping")
            except httpx.ConnectError:
                return True
            except httpx.TransportError:  # it was accepted in the moment of closing
                return False
        return False

    await eventually(refused)
    assert not answer.done()
    gate.open()
    assert (await answer).text == expected
    assert await replica.ended() == 0
    assert replica.errors == ""


async def test_an_idle_replica_ends_at_once_though_connections_are_open(start: Start) -> None:
    replica = await start(GATED, route("/wait", "plain", GATE)).ready()
    replica.process.terminate()
    assert await replica.ended(deadline_s=5) == 0
    assert replica.errors == ""


@pytest.mark.parametrize("function", ["plain", "on_loop"])
async def test_what_does_not_finish_in_time_is_answered_503(start: Start, gate: Gate, function: str) -> None:
    replica = await start(GATED, route("/wait", function, GATE), command=IMPATIENT).ready()
    answer = asyncio.create_task(replica.post("/wait", gate=gate.path))
    await eventually(lambda: "called" in replica.output)
    replica.process.terminate()
    assert ((await answer).status_code, (await answer).json()["code"]) == (503, "stopping")
    assert await replica.ended() == 0


async def test_a_stream_that_does_not_finish_in_time_is_cut(start: Start, gate: Gate) -> None:
    replica = await start(GATED, route("/wait", "stream", GATE), command=IMPATIENT).ready()
    answer = asyncio.create_task(replica.post("/wait", gate=gate.path))
    await eventually(lambda: "called" in replica.output)
    replica.process.terminate()
    with pytest.raises(httpx.RemoteProtocolError):
        await answer
    assert await replica.ended() == 0


async def test_threads_and_signal_handlers_of_the_model_do_not_keep_it_from_ending(start: Start) -> None:
    source = """
    import signal, sys, threading
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    threading.Thread(target=threading.Event().wait).start()
    def predict(): ...
    """
    replica = await start(source, route("/predict", "predict"), command=IMPATIENT).ready()
    replica.process.terminate()
    assert await replica.ended() == 0


async def test_exit_handlers_of_the_model_run(start: Start) -> None:
    source = "import atexit\natexit.register(print, 'tidied up')\ndef predict(): ...\n"
    replica = await start(source, route("/predict", "predict")).ready()
    replica.process.terminate()
    assert await replica.ended() == 0
    assert replica.output.endswith("tidied up\n")


async def test_a_replica_that_still_loads_ends_at_once_and_says_where_it_was(start: Start) -> None:
    source = """
    import threading
    print("loading")
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass
    """
    replica = start(source, route("/predict", "predict"))
    await eventually(lambda: "loading" in replica.output)
    replica.process.terminate()
    assert await replica.ended(deadline_s=5) == 0
    assert replica.errors.startswith("Stopped before the model was loaded; it was at predict.py line ")
