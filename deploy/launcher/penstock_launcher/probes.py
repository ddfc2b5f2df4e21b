"""Asking a process whether it is ready."""

import asyncio
import re
from contextlib import suppress

PROBE_S = 2.0
_HOSTS_UP = re.compile(rb'^penstock_scheduler_hosts\{state="up"\} +0*[1-9]', re.MULTILINE)


async def answers_ready(port: int) -> bool:
    """Whether `GET /readyz` on this machine's `port` is 200."""
    first_line, _, _ = (await _answer(port, "/readyz")).partition(b"\r\n")
    return b" 200 " in first_line


async def host_has_joined(scheduler_port: int) -> bool:
    """Whether the metrics of the scheduler, whose operators' port this is, count a host that is up."""
    return _HOSTS_UP.search(await _answer(scheduler_port, "/metrics")) is not None


async def accepts(port: int) -> bool:
    """Whether something on this machine accepts connections on `port`."""
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _answer(port: int, path: str) -> bytes:
    """Head and body of the answer to a GET; empty when there was none in time."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                return await reader.read()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return b""
