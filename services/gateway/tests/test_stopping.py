"""The end of a gateway: what is open finishes, and the next process takes over without a lost request."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests_support import eventually
from tests_support.servers import free_port

from .certificates import make_pair
from .plane import MakePlane
from .process import Process, saved
from .raw import AUTHORIZATION, HOST, KEY
from .replica import Connection, Gate, ScriptedReplica, Seen

FIELDS = HOST + AUTHORIZATION

WORK_S = 0.002
"""How long a replica works on a request."""


async def test_a_stop_finishes_what_is_open_and_takes_nothing_new(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    gate = replica.handler = Gate()
    plane = await make_plane(replica, settings={"drain_idle_s": 0.05})
    async with plane.client() as busy, plane.client() as idle, plane.client() as waiting:
        await busy.send(b"GET /1 HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: replica.working == 1)
        await waiting.send(b"GET /2 HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: len(plane.endpoint.queue) == 1)
        assert (await idle.request("GET", "/ping")).status == 200
        draining = asyncio.create_task(plane.plane.drain(10))
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", plane.port)
        gate.open(2)
        for client in (busy, waiting):
            answer = await client.answer()
            assert (answer.status, answer.closes) == (200, True)
            assert await client.closed()
        await asyncio.wait_for(draining, 5)


async def test_an_open_connection_gets_its_next_request_answered_with_a_close(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, settings={"drain_idle_s": 5})
    async with plane.client() as client:
        for _ in range(3):
            assert not (await client.request()).closes
        draining = asyncio.create_task(plane.plane.drain(10))
        await eventually(lambda: plane.plane.context.draining)
        assert (await client.request()).closes
        assert await client.closed()
        await asyncio.wait_for(draining, 5)


async def test_a_stop_cuts_off_what_does_not_end_in_time(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    async def until_lost(seen: Seen, connection: Connection) -> None:
        await connection.reader.read()

    replica.handler = until_lost
    plane = await make_plane(replica)
    async with plane.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await eventually(lambda: replica.working == 1)
        await plane.plane.drain(0.1)
        assert await client.closed()
    await eventually(lambda: replica.open_connections == 0)


# --- real processes, without NATS -------------------------------------------------------------


async def test_a_gateway_that_starts_while_nats_is_away_serves_what_it_knew(
    tmp_path: Path, replica: ScriptedReplica
) -> None:
    saved(tmp_path, replica)
    port = free_port()
    async with Process(tmp_path, port) as process, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}/e/default/iris/predict"
        answer = await client.post(url, json=[1], headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200
        assert (await client.post(url, json=[1])).status_code == 401
        assert await process.stop() == 0


async def test_a_gateway_without_snapshot_and_nats_answers_503(tmp_path: Path) -> None:
    port = free_port()
    async with Process(tmp_path, port), httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/e/default/iris/predict")
        assert (answer.status_code, answer.json()["code"]) == (503, "starting_up")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_one_process_takes_over_from_another_without_losing_a_request(
    tmp_path: Path, replica: ScriptedReplica, scheme: str
) -> None:
    pair = make_pair(tmp_path, "gateway")
    settings = pair.settings if scheme == "https" else {}
    verify: ssl.SSLContext = pair.trusted()

    async def briefly(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await asyncio.sleep(WORK_S)
        await connection.answer()

    replica.handler = briefly
    saved(tmp_path, replica)
    port = free_port()
    url = f"{scheme}://127.0.0.1:{port}/e/default/iris/x"
    headers = {"Authorization": f"Bearer {KEY}"}
    failures: list[object] = []
    counts = {"kept": 0, "fresh": 0}
    over = asyncio.Event()

    async def load(kind: str) -> None:
        limits = httpx.Limits(max_keepalive_connections=0 if kind == "fresh" else 1)
        async with httpx.AsyncClient(headers=headers, limits=limits, verify=verify, timeout=10) as client:
            while not over.is_set():
                try:
                    answer = await client.post(url, content=b"{}")
                except httpx.HTTPError as error:
                    failures.append(error)
                else:
                    counts[kind] += 1
                    if answer.status_code != 200:
                        failures.append(answer.text)

    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(Process(tmp_path, port, settings))
        loads = [asyncio.create_task(load(kind)) for kind in ("kept", "kept", "fresh", "fresh")]
        for _ in range(2):
            new = await stack.enter_async_context(Process(tmp_path, port, settings))
            assert await old.stop() == 0
            counts.update(kept=0, fresh=0)
            await eventually(lambda: min(counts.values()) > 50)
            old = new
        over.set()
        await asyncio.gather(*loads)
    assert failures == []
