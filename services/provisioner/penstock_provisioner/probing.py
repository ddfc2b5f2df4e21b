"""Asking a replica whether it is well: GET /ping."""

import asyncio
import contextlib

_STATUS_BYTES_MAX = 4096
_READY_PING_S = 5.0
_READY_INTERVAL_S_FIRST = 0.025
_READY_INTERVAL_S_MAX = 0.5
_READY_INTERVAL_GROWTH = 1.25


async def ping(address: str, timeout_s: float) -> bool:
    """Whether the replica at `host:port` answers 200 within `timeout_s`."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, int(port), limit=_STATUS_BYTES_MAX)
            try:
                writer.write(f"GET /ping HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False
    return status.split()[1:2] == [b"200"]


async def until_ready(address: str) -> None:
    """Return once the replica answers.

    Its socket listens before it is loaded: a ping waits there and is answered the moment it is, so
    few pings are needed. One that is refused is followed by another, soon at first, then more rarely.
    """
    interval_s = _READY_INTERVAL_S_FIRST
    while not await ping(address, _READY_PING_S):
        await asyncio.sleep(interval_s)
        interval_s = min(interval_s * _READY_INTERVAL_GROWTH, _READY_INTERVAL_S_MAX)


async def until_unresponsive(address: str, *, interval_s: float, timeout_s: float, misses: int) -> None:
    """Return once `misses` pings in a row went unanswered."""
    missed = 0
    while missed < misses:
        await asyncio.sleep(interval_s)
        missed = 0 if await ping(address, timeout_s) else missed + 1
