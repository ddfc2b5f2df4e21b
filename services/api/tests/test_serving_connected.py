"""The real HTTP server: streams, their end, and the end of the whole process."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from penstock_api.app import Application, build_server
from penstock_api.settings import ApiSettings
from penstock_common.contracts.events import EndpointRunning, EndpointStarting
from penstock_common.contracts.questions import InspectSource, SourceInspection
from penstock_common.ids import REPLICA, new_id
from tests_support import eventually, running

pytestmark = pytest.mark.connected

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def served(settings: ApiSettings, key: str, others: Any) -> AsyncIterator[tuple[Application, str]]:
    """The API on a real port, and its address."""
    application, server = build_server(settings)
    async with running(application.service):
        yield application, f"http://127.0.0.1:{server.port}"


@pytest.fixture
async def web(served: tuple[Application, str], key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=served[1], headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
async def endpoint_id(web: httpx.AsyncClient, body: dict[str, Any]) -> str:
    answer = await web.post("/v1/endpoints", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@dataclass
class Stream:
    """What came of a stream so far."""

    events: list[dict[str, str]] = field(default_factory=list)
    comments: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def data(self) -> list[dict[str, Any]]:
        return [json.loads(event["data"]) for event in self.events]

    def take(self, block: str) -> None:
        lines = [line for line in block.split("\n") if line]
        self.comments += sum(line.startswith(":") for line in lines)
        event = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        if "data" in event:
            self.events.append(event)


@asynccontextmanager
async def streaming(web: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Stream]:
    stream = Stream()

    async def read() -> None:
        rest = ""
        async for text in answer.aiter_text():
            *blocks, rest = (rest + text).split("\n\n")
            for block in blocks:
                stream.take(block)
        stream.ended.set()

    async with web.stream("GET", path, headers={**STREAM, **headers}) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        reading = asyncio.create_task(read())
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def fact(endpoint_id: str, version: int) -> dict[str, Any]:
    return {"endpoint_id": endpoint_id, "organization_id": "org_1", "version": version, "at": AT}


# --- streams --------------------------------------------------------------------------------


async def test_events_are_streamed_as_they_happen_and_resumed_where_they_broke_off(
    web: httpx.AsyncClient, endpoint_id: str, others: Any
) -> None:
    path = f"/v1/endpoints/{endpoint_id}/events"
    async with streaming(web, path) as stream:
        await eventually(lambda: len(stream.events) == 1)
        await others.publish(EndpointStarting(**fact(endpoint_id, 1)))
        await eventually(lambda: len(stream.events) == 2)
    assert [event["event"] for event in stream.events] == ["lifecycle"] * 2
    assert [item["type"] for item in stream.data] == ["endpoint.requested", "endpoint.starting"]
    assert [int(event["id"]) for event in stream.events] == [item["id"] for item in stream.data]

    await others.publish(EndpointRunning(**fact(endpoint_id, 2), ready_replicas=1))
    async with streaming(web, path, **{"Last-Event-ID": stream.events[-1]["id"]}) as resumed:
        await eventually(lambda: resumed.events)
    assert [item["phase"] for item in resumed.data] == ["running"]


async def test_logs_begin_with_the_last_lines_and_go_on_live(
    web: httpx.AsyncClient, endpoint_id: str, others: Any
) -> None:
    replica_id = new_id(REPLICA)
    path = f"/v1/endpoints/{endpoint_id}/logs"
    await others.publish_lines(endpoint_id, replica_id, ["one", "two", "three"])
    await eventually(lambda: _has_lines(web, path, 3))

    async with streaming(web, f"{path}?tail=2") as stream:
        await eventually(lambda: len(stream.events) == 2)
        await others.publish_lines(endpoint_id, replica_id, ["four\nfive"], offset=3)
        await eventually(lambda: len(stream.events) == 3)
    assert [item["text"] for item in stream.data] == ["two", "three", "four\nfive"]
    assert stream.events[0]["event"] == "log"

    async with streaming(web, f"{path}?follow=true&tail=0") as live:
        await others.publish_lines(endpoint_id, replica_id, ["six"], offset=4)
        await eventually(lambda: live.events)
    assert [item["text"] for item in live.data] == ["six"]
    async with streaming(web, path, **{"Last-Event-ID": stream.events[0]["id"]}) as resumed:
        await eventually(lambda: len(resumed.events) == 3)
    assert [item["text"] for item in resumed.data] == ["three", "four\nfive", "six"]


async def _has_lines(web: httpx.AsyncClient, path: str, count: int) -> bool:
    return len((await web.get(path)).json()["items"]) == count


async def test_a_thousand_lines_arrive_in_order_and_none_is_missed(
    web: httpx.AsyncClient, endpoint_id: str, others: Any
) -> None:
    replicas = [new_id(REPLICA) for _ in range(4)]
    async with streaming(web, f"/v1/endpoints/{endpoint_id}/logs") as stream:
        for offset in range(0, 250, 25):
            for replica_id in replicas:
                texts = [f"{offset + place}" for place in range(25)]
                await others.publish_lines(endpoint_id, replica_id, texts, offset=offset)
        await eventually(lambda: len(stream.events) == 1000, deadline_s=30)

    ids = [item["id"] for item in stream.data]
    assert ids == sorted(set(ids))
    for replica_id in replicas:
        assert [item["text"] for item in stream.data if item["replica_id"] == replica_id] == [
            str(number) for number in range(250)
        ]


@pytest.mark.parametrize(
    ("suffix", "headers", "field"),
    [
        ("/events", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("/logs", {"Last-Event-ID": "9" * 30}, "Last-Event-ID"),
        ("/logs?tail=-1", {}, "tail"),
        ("/logs?replica_id=x", {}, "replica_id"),
    ],
)
async def test_a_wrong_request_for_a_stream_is_a_problem(
    web: httpx.AsyncClient, endpoint_id: str, suffix: str, headers: dict[str, str], field: str
) -> None:
    answer = await web.get(f"/v1/endpoints/{endpoint_id}{suffix}", headers={**STREAM, **headers})

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_client_that_leaves_frees_its_place(
    web: httpx.AsyncClient, served: tuple[Application, str], endpoint_id: str
) -> None:
    places = served[0].api.places
    async with streaming(web, f"/v1/endpoints/{endpoint_id}/events") as stream:
        await eventually(lambda: stream.events)
        assert places.taken == 1

    await eventually(lambda: places.taken == 0)


async def test_streams_end_when_their_key_is_revoked(
    make_settings: Any, key: str, others: Any, body: dict[str, Any]
) -> None:
    application, server = build_server(make_settings("api", ApiSettings, api_port=0, stream_heartbeat_s=0.05))
    base_url = f"http://127.0.0.1:{server.port}"
    async with (
        running(application.service),
        httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as web,
    ):
        made = (await web.post("/v1/api-keys", json={"name": "x"})).json()
        endpoint = (await web.post("/v1/endpoints", json=body)).json()
        with_key = {"Authorization": f"Bearer {made['key']}"}
        async with streaming(web, f"/v1/endpoints/{endpoint['id']}/logs", **with_key) as stream:
            await eventually(lambda: stream.comments > 1)
            await web.delete(f"/v1/api-keys/{made['id']}")
            await asyncio.wait_for(stream.ended.wait(), 10)


async def test_no_more_streams_than_there_are_places(
    make_settings: Any, key: str, others: Any, body: dict[str, Any]
) -> None:
    application, server = build_server(make_settings("api", ApiSettings, api_port=0, streams_per_organization=1))
    base_url = f"http://127.0.0.1:{server.port}"
    async with (
        running(application.service),
        httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as web,
    ):
        endpoint = (await web.post("/v1/endpoints", json=body)).json()
        path = f"/v1/endpoints/{endpoint['id']}/events"
        async with streaming(web, path) as stream:
            await eventually(lambda: stream.events)
            refused = await web.get(path, headers=STREAM)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert refused.headers["retry-after"]
            assert refused.headers["content-type"] == "application/problem+json"


async def test_when_the_database_drops_every_connection_requests_and_streams_come_back(
    web: httpx.AsyncClient, endpoint_id: str, others: Any, database: Any
) -> None:
    path = f"/v1/endpoints/{endpoint_id}/events"
    async with streaming(web, path) as stream:
        await eventually(lambda: stream.events)
        await database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = current_user and pid <> $1",
            database.get_server_pid(),
        )

        answers = [await web.get("/v1/me") for _ in range(3)]
        assert {answer.status_code for answer in answers} <= {200, 503}
        await eventually(lambda: _answers(web))
        await others.publish(EndpointStarting(**fact(endpoint_id, 1)))
        await eventually(lambda: stream.ended.is_set() or len(stream.events) == 2, deadline_s=20)
    async with streaming(web, path) as again:
        await eventually(lambda: len(again.events) == 2)


# --- bounds ---------------------------------------------------------------------------------


async def test_a_key_that_asks_too_often_is_told_to_wait(make_settings: Any, key: str, others: Any) -> None:
    settings = make_settings("api", ApiSettings, api_port=0, requests_per_s=0.1, requests_burst=2)
    application, server = build_server(settings)
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        running(application.service),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers) as web,
    ):
        answers = [await web.get("/v1/me") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 10


async def test_requests_beyond_the_bound_are_asked_to_come_back(
    make_settings: Any, key: str, others: Any, body: dict[str, Any]
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: InspectSource) -> SourceInspection:
        asked.set()
        await go_on.wait()
        return SourceInspection()

    await others.answer(InspectSource, slow)
    application, server = build_server(make_settings("api", ApiSettings, api_port=0, requests_at_once=1))
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        running(application.service),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=30) as web,
    ):
        creating = asyncio.create_task(web.post("/v1/endpoints", json=body))
        await asyncio.wait_for(asked.wait(), 10)
        refused = await web.get("/v1/me")
        go_on.set()
        created = await creating

    assert (refused.status_code, refused.json()["code"]) == (503, "busy")
    assert created.status_code == 503


async def test_the_document_is_served_without_a_key(web: httpx.AsyncClient) -> None:
    answer = await web.get("/openapi.json", headers={"Authorization": ""})

    assert answer.status_code == 200
    assert answer.json()["info"]["title"] == "Penstock"


# --- the end --------------------------------------------------------------------------------


def environment(settings: ApiSettings) -> dict[str, str]:
    """The settings as a process gets them."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    for name, value in settings.model_dump(exclude_none=True).items():
        plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        found[f"PENSTOCK_{name.upper()}"] = str(plain)
    return found


async def test_a_process_told_to_stop_finishes_what_it_has_in_hand_and_leaves_with_0(
    make_settings: Any, key: str, others: Any, body: dict[str, Any], unused_tcp_port: int
) -> None:
    settings = make_settings("api", ApiSettings, api_port=unused_tcp_port)
    asked, go_on = asyncio.Event(), asyncio.Event()
    pinned = others.answers[InspectSource]

    async def slow(question: InspectSource) -> Any:
        asked.set()
        await go_on.wait()
        return await pinned(question)

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock_api", env=environment(settings), stderr=asyncio.subprocess.PIPE
    )
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{unused_tcp_port}", headers=headers, timeout=30
        ) as web:
            await eventually(lambda: _answers(web), deadline_s=30)
            endpoint = (await web.post("/v1/endpoints", json=body)).json()
            await others.answer(InspectSource, slow)
            async with streaming(web, f"/v1/endpoints/{endpoint['id']}/events") as stream:
                await eventually(lambda: stream.events)
                creating = asyncio.create_task(web.post("/v1/endpoints", json={**body, "name": "second"}))
                await asyncio.wait_for(asked.wait(), 10)
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(stream.ended.wait(), 10)
                go_on.set()
                assert (await creating).status_code == 201
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
        _, log = await process.communicate()
    assert "Traceback" not in log.decode()


async def _answers(web: httpx.AsyncClient) -> bool:
    try:
        return (await web.get("/v1/me")).status_code == 200
    except httpx.TransportError:
        return False
