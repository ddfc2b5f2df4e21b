"""Streams of server-sent events, without a database."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from penstock_api.domain.problems import Problem
from penstock_api.streams import StreamPlaces, Wakeups, follow
from penstock_api.views.endpoints import LogLine
from tests_support import eventually


@dataclass
class FakeFeed:
    """Lines in a list."""

    lines: list[LogLine] = field(default_factory=list)
    topic: str = "logs:ep_1"
    event_name: str = "log"
    reads: int = 0

    def add(self, number: int) -> None:
        at = datetime(2026, 3, 1, tzinfo=UTC)
        self.lines.append(LogLine(id=number, at=at, replica_id="rep_1", text=f"line\n{number}"))

    async def after(self, last_id: int) -> Sequence[LogLine]:
        self.reads += 1
        return [line for line in self.lines if line.id > last_id][:2]


async def allowed() -> bool:
    return True


async def refused() -> bool:
    return False


@pytest.fixture
def feed() -> FakeFeed:
    found = FakeFeed()
    for number in (1, 2, 3):
        found.add(number)
    return found


async def test_a_stream_gives_what_there_is_and_then_what_comes(feed: FakeFeed) -> None:
    wakeups = Wakeups()
    stream = follow(feed, 1, wakeups, heartbeat_s=60, still_allowed=allowed)  # type: ignore[arg-type]

    assert await anext(stream) == b"retry: 1000\n\n"
    assert await anext(stream) == (
        b'id: 2\nevent: log\ndata: {"id":2,"at":"2026-03-01T00:00:00Z","replica_id":"rep_1","text":"line\\n2"}\n\n'
    )
    assert (await anext(stream)).startswith(b"id: 3\n")

    waiting = asyncio.ensure_future(anext(stream))
    reads = feed.reads
    await eventually(lambda: feed.reads > reads)
    feed.add(4)
    wakeups.wake("logs:ep_2")
    wakeups.wake("logs:ep_1")
    assert (await waiting).startswith(b"id: 4\n")
    await stream.aclose()


async def test_silence_is_filled_with_comments(feed: FakeFeed) -> None:
    stream = follow(feed, 3, Wakeups(), heartbeat_s=0.01, still_allowed=allowed)  # type: ignore[arg-type]
    await anext(stream)

    assert await anext(stream) == b": still here\n\n"
    assert await anext(stream) == b": still here\n\n"
    await stream.aclose()


async def test_a_stream_ends_when_the_caller_may_no_longer_read(feed: FakeFeed) -> None:
    stream = follow(feed, 3, Wakeups(), heartbeat_s=0.01, still_allowed=refused)  # type: ignore[arg-type]

    parts = [part async for part in stream]

    assert parts == [b"retry: 1000\n\n", b": still here\n\n"]


async def test_streams_end_when_the_process_stops(feed: FakeFeed) -> None:
    wakeups = Wakeups()
    stream = follow(feed, 3, wakeups, heartbeat_s=60, still_allowed=allowed)  # type: ignore[arg-type]
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream, None))
    await eventually(lambda: feed.reads)

    wakeups.stop()

    assert await waiting is None
    late = follow(feed, 0, wakeups, heartbeat_s=60, still_allowed=allowed)  # type: ignore[arg-type]
    assert [part async for part in late] == [b"retry: 1000\n\n"]


def test_places_are_bounded_in_all_and_for_each_organization() -> None:
    places = StreamPlaces(in_all=3, per_organization=2)
    with places.taken_by("a"), places.taken_by("a"):
        with pytest.raises(Problem) as refusal, places.taken_by("a"):
            pass
        assert refusal.value.kind.status == 503
        assert refusal.value.retry_after_s is not None
        with places.taken_by("b"), pytest.raises(Problem), places.taken_by("c"):
            pass
    with places.taken_by("a"), places.taken_by("b"), places.taken_by("c"):
        pass
