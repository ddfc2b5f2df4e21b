"""The public HTTP server: uvicorn inside a service that owns the signals."""

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from penstock_common.ops import EmbeddedServer

_BACKLOG = 512
HEAD_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 4096


class PublicServer:
    """Serves `app` on `host:port`; port 0 takes a free one, found in `port`."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, grace_s: float) -> None:
        """Takes the address at once. Raises OSError when it is taken by others."""
        self._socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            # h11 bounds what it keeps of an unfinished head; the faster parser keeps all that comes.
            http="h11",
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            limit_concurrency=CONNECTIONS_MAX,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
        self._server = EmbeddedServer(config)
        self._finished = asyncio.Event()
        self._finished.set()

    async def serve(self) -> None:
        """Answer requests until `stop`. Those that came before, since the address was taken, have waited."""
        self._finished.clear()
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._finished.set()

    async def stop(self) -> None:
        """Take no more requests, and finish those in hand."""
        self._server.should_exit = True
        await self._finished.wait()
        self._socket.close()
