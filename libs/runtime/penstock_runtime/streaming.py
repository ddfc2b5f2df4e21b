"""Streams: what a generator yields, as the bytes of a chunked answer.

The first chunk decides the form of the whole stream: text and bytes are sent as they are; all else is JSON,
one value a line (application/x-ndjson), or one value an event for a client that accepts text/event-stream.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import NamedTuple

from penstock_runtime.encoding import BINARY, UnencodableResult, encode_json
from penstock_runtime.failures import failure_of, guarded, log_failure

TEXT = "text/plain; charset=utf-8"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"

_CHUNKS_AHEAD_MAX = 16
_END = object()


class Framing(NamedTuple):
    """How the chunks of one stream become bytes."""

    content_type: str
    encode: Callable[[object], bytes]


def framing_for(first: object, accepts_events: bool) -> Framing:
    """The framing of a stream that begins with this chunk."""
    if isinstance(first, str):
        return Framing(TEXT, _as_is)
    if isinstance(first, (bytes, bytearray, memoryview)):
        return Framing(BINARY, _as_is)
    if accepts_events:
        return Framing(EVENTS, lambda chunk: b"data: " + encode_json(chunk) + b"\n\n")
    return Framing(LINES, lambda chunk: encode_json(chunk) + b"\n")


def error_event(problem: bytes) -> bytes:
    """The last event of a stream of events that failed."""
    return b"event: error\ndata: " + problem + b"\n\n"


class AsyncStream:
    """The chunks of an async generator. It runs on the loop, one chunk at a time, as they are sent."""

    def __init__(self, chunks: AsyncIterator[object], accepts_events: bool) -> None:
        self._chunks = chunks
        self._accepts_events = accepts_events
        self._framing: Framing | None = None
        self._first: bytes | None = None

    async def open(self) -> str:
        """Waits for the first chunk; answers the stream's content type. Raises ModelError, UnencodableResult."""
        first = await self._next_chunk()
        if first is _END:
            return _empty_content_type(self._accepts_events)
        self._framing = framing_for(first, self._accepts_events)
        self._first = self._encode(self._framing, first)
        return self._framing.content_type

    async def next_part(self) -> bytes | None:
        """The next bytes, or None at the end. Raises ModelError, UnencodableResult."""
        if self._framing is None:
            return None
        if self._first is not None:
            part, self._first = self._first, None
            return part
        chunk = await self._next_chunk()
        return None if chunk is _END else self._encode(self._framing, chunk)

    async def close(self) -> None:
        """Stops the generator where it is, if it still runs; its `finally` blocks run."""
        if isinstance(self._chunks, AsyncGenerator):
            await guarded(self._chunks.aclose())

    async def _next_chunk(self) -> object:
        return await guarded(anext(self._chunks, _END))

    @staticmethod
    def _encode(framing: Framing, chunk: object) -> bytes:
        try:
            return framing.encode(chunk)
        except Exception as error:
            raise failure_of(error) from error


class ThreadStream:
    """The chunks of a plain generator, which runs in one thread from its start to its end.

    It may be a few chunks ahead of the client, and waits when it is further ahead.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, accepts_events: bool) -> None:
        self._loop = loop
        self._accepts_events = accepts_events
        self._arrived: asyncio.Queue[Framing | bytes | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(_CHUNKS_AHEAD_MAX)
        self._closed = False

    async def open(self) -> str:
        """Waits for the first chunk; answers the stream's content type. Raises ModelError, UnencodableResult."""
        first = await self._arrived.get()
        if isinstance(first, Framing):
            return first.content_type
        if isinstance(first, Exception):
            raise first
        self._arrived.put_nowait(None)  # there is no chunk, only the end
        return _empty_content_type(self._accepts_events)

    async def next_part(self) -> bytes | None:
        """The next bytes, or None at the end. Raises ModelError, UnencodableResult."""
        part = await self._arrived.get()
        self._room.release()
        if isinstance(part, Exception):
            raise part
        assert not isinstance(part, Framing)
        return part

    async def close(self) -> None:
        """Stops the generator, as `leave` does."""
        self.leave()

    def leave(self) -> None:
        """Tells the generator to stop at its next chunk; its `finally` blocks run in its thread."""
        self._closed = True
        self._room.release()

    def pump(self, chunks: Iterator[object]) -> None:
        """Runs in the thread: takes chunks until the end, or until nobody wants more. Never raises."""
        outcome: Exception | None = None
        try:
            self._pump(chunks)
        except BaseException as error:
            outcome = failure_of(error)
        try:
            if isinstance(chunks, Generator):
                chunks.close()
        except BaseException as error:
            outcome = outcome or failure_of(error)
        if self._closed and outcome is not None:
            log_failure("A stream failed after its client had left", outcome)
        self._post(outcome)

    def _pump(self, chunks: Iterator[object]) -> None:
        framing: Framing | None = None
        for chunk in chunks:
            if framing is None:
                framing = framing_for(chunk, self._accepts_events)
                self._post(framing)
            part = framing.encode(chunk)  # at once: the model may change the very object for its next chunk
            self._room.acquire()
            if self._closed:
                return
            self._post(part)

    def _post(self, item: Framing | bytes | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is leaving
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)


def _as_is(chunk: object) -> bytes:
    if isinstance(chunk, str):
        try:
            return chunk.encode()
        except UnicodeEncodeError as error:
            raise UnencodableResult(f"The function yielded text that is not valid Unicode: {error}.") from error
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk)
    raise UnencodableResult(
        f"The function yielded a value of type {type(chunk).__name__} after text or bytes: "
        "yield chunks of one kind in a stream."
    )


def _empty_content_type(accepts_events: bool) -> str:
    return EVENTS if accepts_events else TEXT
