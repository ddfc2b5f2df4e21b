"""500 open streams of 50 events a second each: what an event costs, and when the first one comes."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, cast

from bench.figures import percentile
from bench.gateway.workload import EVENTS_PER_S, EVENTS_PER_STREAM, STREAMS, Request
from bench.processes import Failed

SETTLE_S = 1.0
BEGIN_S = 10.0
"""Longest wait until every stream has begun; a candidate that is overloaded is measured without."""
_END = b"\r\n0\r\n\r\n"


class Tally:
    """What the readers saw since the last `reset`."""

    def __init__(self) -> None:
        self.stopped = False
        self.errors = 0
        self.begun = 0
        self.all_begun = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.events = 0
        self.first_event_s: list[float] = []


class Reader(asyncio.Protocol):
    """A client: asks for a stream, reads it, and asks for the next on the same connection."""

    def __init__(self, tally: Tally, request: bytes) -> None:
        self._tally = tally
        self._request = request
        self._tail = b""
        self._begun = False
        self.asked_s = 0.0
        """When the request was sent whose first event has not come; 0 while events come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        tally, tail = self._tally, self._tail
        if not tail and not data.startswith(b"HTTP/1.1 200"):
            self.transport.abort()
            return
        events = data.count(b"\n\n") + (tail[-1:] == b"\n" == data[:1])
        if events:
            tally.events += events
            if not self._begun:
                self._begun = True
                tally.begun += 1
                if tally.begun == STREAMS:
                    tally.all_begun.set()
            if self.asked_s:
                tally.first_event_s.append(perf_counter() - self.asked_s)
                self.asked_s = 0.0
        self._tail = data[-len(_END) :] if len(data) >= len(_END) else (tail + data)[-len(_END) :]
        if self._tail == _END:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._tally.stopped:
            self._tally.errors += 1

    def _ask(self) -> None:
        self._tail = b""
        self.asked_s = perf_counter()
        self.transport.write(self._request)


async def measure(request: Request, port: int, seconds: float, cpu_s: Callable[[], float]) -> dict[str, Any]:
    """`sse_events_per_s`, `sse_cpu_us_per_event` and `ttft_p99_ms`, over `seconds` with all streams open.

    A stream that still waits for its first event at the end counts with the time it has waited.
    Raises Failed when a stream was refused or cut off.
    """
    # Not the loop's own clock: uvloop's stands still within a millisecond.
    loop = asyncio.get_running_loop()
    tally = Tally()
    readers: list[Reader] = []
    gc.collect()
    gc.disable()
    try:
        # Evenly over the length of a stream, so that beginnings and ends stay evenly spread.
        began_s = perf_counter()
        for number in range(STREAMS):
            due_s = began_s + number * EVENTS_PER_STREAM / EVENTS_PER_S / STREAMS
            await asyncio.sleep(max(0.0, due_s - perf_counter()))
            reader = Reader(tally, request.encoded(port))
            readers.append(reader)
            await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
        with suppress(TimeoutError):
            await asyncio.wait_for(tally.all_begun.wait(), BEGIN_S)
        await asyncio.sleep(SETTLE_S)
        tally.reset()
        began_s, cpu_before_s = perf_counter(), cpu_s()
        await asyncio.sleep(seconds)
        took_s, used_s = perf_counter() - began_s, cpu_s() - cpu_before_s
    finally:
        tally.stopped = True
        for reader in readers:
            reader.transport.abort()
        gc.enable()
    if tally.errors:
        raise Failed(f"{tally.errors} of {STREAMS} streams were refused or cut off")
    waits_s = tally.first_event_s + [perf_counter() - reader.asked_s for reader in readers if reader.asked_s]
    return {
        "sse_events_per_s": tally.events / took_s,
        "sse_cpu_us_per_event": used_s / tally.events * 1e6 if tally.events else None,
        "ttft_p50_ms": percentile(waits_s, 50) * 1000,
        "ttft_p99_ms": percentile(waits_s, 99) * 1000,
        "first_events": len(tally.first_event_s),
        "cores_used": used_s / took_s,
    }
