"""Server-sent events: many streams in one process, woken by one listening PostgreSQL connection."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from penstock_api.domain.problems import BUSY, Problem
from penstock_api.handlers.history import Feed

RETRY_MS = 1_000
"""How long a client that was cut off waits before it comes back."""


class Wakeups:
    """Passes notifications of the database on to the streams that wait for them."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.stopping = asyncio.Event()

    @contextmanager
    def on(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever there may be something new on `topic`."""
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        if self.stopping.is_set():
            event.set()
        try:
            yield event
        finally:
            others = self._waiting[topic]
            others.discard(event)
            if not others:
                del self._waiting[topic]

    def wake(self, topic: str) -> None:
        for event in self._waiting.get(topic, ()):
            event.set()

    def wake_all(self) -> None:
        for topic in self._waiting:
            self.wake(topic)

    def stop(self) -> None:
        """Let every stream end, now and from now on."""
        self.stopping.set()
        self.wake_all()


class StreamPlaces:
    """Bounds the streams of a process, and of each organization in it."""

    def __init__(self, *, in_all: int, per_organization: int) -> None:
        self._in_all = in_all
        self._per_organization = per_organization
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many streams are open."""
        return self._taken.total()

    @contextmanager
    def taken_by(self, organization_id: str) -> Iterator[None]:
        """A place for one stream. Raises Problem when there is none."""
        if self.taken >= self._in_all or self._taken[organization_id] >= self._per_organization:
            raise Problem(BUSY, "Too many streams are open: close one, or try again later.", retry_after_s=10)
        self._taken[organization_id] += 1
        try:
            yield
        finally:
            self._taken[organization_id] -= 1
            if self._taken[organization_id] == 0:
                del self._taken[organization_id]


async def follow(
    feed: Feed,
    last_id: int,
    wakeups: Wakeups,
    *,
    heartbeat_s: float,
    still_allowed: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[bytes, None]:
    """The stream's bytes: all there is behind `last_id`, then what comes, until the process stops.

    In silence there is a comment every `heartbeat_s`. At least that often it is checked whether the
    caller may still read.
    """
    yield f"retry: {RETRY_MS}\n\n".encode()
    loop = asyncio.get_running_loop()
    check_at = loop.time() + heartbeat_s
    with wakeups.on(feed.topic) as woken:
        while not wakeups.stopping.is_set():
            woken.clear()
            part = await feed.after(last_id)
            for item in part:
                yield f"id: {item.id}\nevent: {feed.event_name}\ndata: {item.model_dump_json()}\n\n".encode()
                last_id = item.id
            if loop.time() >= check_at:
                if not await still_allowed():
                    return
                check_at = loop.time() + heartbeat_s
            if part:
                continue
            try:
                # Not wait_for, which can lose a cancellation that comes together with the event.
                async with asyncio.timeout(heartbeat_s):
                    await woken.wait()
            except TimeoutError:
                yield b": still here\n\n"
