"""What the gateway benchmark sends and reads."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from bench.candidates.kinds import API_KEY, Upstreams
from bench.candidates.penstock import snapshot
from bench.gateway import stream_upstream
from bench.gateway.streams import Reader, Tally
from bench.gateway.workload import Request
from hypothesis import given
from hypothesis import strategies as st

from penstock_gateway import snapshots

ANSWER = stream_upstream.HEAD + stream_upstream.CHUNK * 3 + stream_upstream.DONE
EVENTS = 4


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def reading() -> tuple[Reader, Tally, Wire]:
    tally, wire = Tally(), Wire()
    reader = Reader(tally, b"ask")
    reader.connection_made(cast("asyncio.Transport", wire))
    return reader, tally, wire


@given(st.lists(st.integers(1, len(ANSWER) - 1), max_size=12))
def test_events_and_the_end_of_a_stream_are_seen_wherever_it_is_cut(cuts: list[int]) -> None:
    reader, tally, wire = reading()
    places = sorted({0, len(b"HTTP/1.1 200"), *cuts, len(ANSWER)} - set(range(1, len(b"HTTP/1.1 200"))))
    for begin, end in pairwise(places):
        reader.data_received(ANSWER[begin:end])
    assert tally.events == EVENTS
    assert len(tally.first_event_s) == 1
    assert wire.written == [b"ask", b"ask"]


def test_a_refused_stream_ends_the_connection_and_is_an_error() -> None:
    reader, tally, wire = reading()
    reader.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    assert wire.aborted
    reader.connection_lost(None)
    assert tally.errors == 1


def test_a_request_says_its_length_endpoint_and_key() -> None:
    head, _, body = Request("predict", "/predict", "{}").encoded(8080).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /predict HTTP/1.1"
    assert b"Host: predict.default.localhost:8080" in head
    assert f"Authorization: Bearer {API_KEY}".encode() in head
    assert head.endswith(b"Content-Length: 2")
    assert body == b"{}"


@pytest.mark.parametrize("concurrency", [1, 1024])
def test_the_gateway_can_start_from_the_snapshot_that_is_made_for_it(tmp_path: Path, concurrency: int) -> None:
    endpoints: dict[str, Any] = {"predict": Upstreams(("127.0.0.1:1", "127.0.0.1:2"), concurrency=concurrency)}
    path = tmp_path / "snapshot.json"
    snapshots.save(path, snapshot(endpoints))
    loaded = snapshots.load(path)
    assert loaded is not None
    (route,) = loaded.routes
    assert [replica.address for replica in route.replicas] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert route.scaling.target_concurrency == concurrency
    assert route.state == "running"
