"""Process: answers every request with a stream of events, at a steady rate. Argument: PORT.

The first event goes out with the head, at once; the others one by one. All streams share one timer:
those of the same millisecond are written together, so that 500 streams make steps of 25 writes.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop
from bench.gateway.workload import EVENTS_PER_S, EVENTS_PER_STREAM

PERIOD_MS = 1000 // EVENTS_PER_S
LATE_MS_MAX = 200
EVENT = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"token "},"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class Wheel:
    """The open streams, by the millisecond of the period in which their events are due."""

    def __init__(self) -> None:
        self.slots: list[set[Stream]] = [set() for _ in range(PERIOD_MS)]
        self._loop = asyncio.get_running_loop()
        self._done_ms = self.now_ms()

    def now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def turn(self) -> None:
        """Write what is due, and come back in a millisecond."""
        now_ms = self.now_ms()
        for at_ms in range(max(self._done_ms + 1, now_ms - LATE_MS_MAX), now_ms + 1):
            for stream in list(self.slots[at_ms % PERIOD_MS]):
                stream.write_event()
        self._done_ms = now_ms
        self._loop.call_later(0.001, self.turn)


class Stream(asyncio.Protocol):
    """A connection, and the stream on it if there is one."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._slot: set[Stream] | None = None
        self._left = 0
        self._received = b""
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = _LENGTH.search(self._received, 0, end)
        if len(self._received) >= end + (int(length[1]) if length else 0):
            self._received = b""
            self._transport.write(HEAD + CHUNK)
            self._left = EVENTS_PER_STREAM - 1
            self._slot = self._wheel.slots[self._wheel.now_ms() % PERIOD_MS]
            self._slot.add(self)

    def write_event(self) -> None:
        """The next event; none while the reader is slow."""
        if self._paused:
            return
        self._left -= 1
        if self._left:
            self._transport.write(CHUNK)
        else:
            self._leave()
            self._transport.write(CHUNK + DONE)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._slot is not None:
            self._slot.discard(self)
            self._slot = None


async def serve(port: int) -> None:
    """Serve for ever."""
    wheel = Wheel()
    wheel.turn()
    server = await asyncio.get_running_loop().create_server(lambda: Stream(wheel), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
