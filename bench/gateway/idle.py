"""10,000 idle keep-alive connections: the memory they take. Each has carried one request."""

import asyncio
import socket
import struct
from typing import cast

from bench.gateway.workload import IDLE_CONNECTIONS, Request
from bench.processes import Child, Failed

OPENING = 50
"""Connections that are being opened at the same time."""
DEADLINE_S = 60.0
SETTLE_S = 1.0


class Idler(asyncio.Protocol):
    """Asks once, and then holds the connection open."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Closed with a reset, or ten thousand ports would stay taken for a minute.
        reset = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(data.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if not self.answered.done():
            self.answered.set_result(False)


async def measure(child: Child, request: Request, port: int) -> float:
    """Additional memory of all connections, in MB. Raises Failed when one was refused or closed."""
    data = request.encoded(port)
    before_mb = child.rss_mb()
    idlers: list[Idler] = []

    async def open_some(count: int) -> None:
        for _ in range(count):
            idler = Idler(data)
            await asyncio.get_running_loop().create_connection(lambda idler=idler: idler, "127.0.0.1", port)  # type: ignore[misc]
            idlers.append(idler)
            if not await idler.answered:
                raise Failed(f"connection {len(idlers)} of {IDLE_CONNECTIONS} was refused")

    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(open_some(IDLE_CONNECTIONS // OPENING) for _ in range(OPENING)))
            await asyncio.sleep(SETTLE_S)
        closed = sum(idler.closed for idler in idlers)
        if closed:
            raise Failed(f"{closed} of {IDLE_CONNECTIONS} idle connections were closed")
        return child.rss_mb() - before_mb
    except TimeoutError:
        raise Failed(f"only {len(idlers)} connections were answered within {DEADLINE_S:g} s") from None
    except OSError as error:
        raise Failed(f"connection {len(idlers) + 1} of {IDLE_CONNECTIONS} failed: {error!r}") from error
    finally:
        for idler in idlers:
            idler.transport.abort()
