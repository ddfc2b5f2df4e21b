"""One gateway's traffic: listens, and drains at the stop."""

import asyncio

from penstock_gateway.proxy.admission import Admission
from penstock_gateway.proxy.client import ClientConnection
from penstock_gateway.proxy.context import Context
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.proxy.listener import HANDSHAKE_S, Listener
from penstock_gateway.settings import GatewaySettings

DRAIN_CHECK_S = 0.02


class DataPlane:
    """One gateway's traffic. Make it inside a running event loop."""

    def __init__(self, settings: GatewaySettings, *, timer_step_s: float = 1.0) -> None:
        self.context = Context(settings, timer_step_s=timer_step_s)
        self.directory = Directory(self.context)
        self.admission = Admission(self.directory, settings.domain)
        self._settings = settings
        self._clients: set[ClientConnection] = set()
        self._listener = Listener(self.context.loop, lambda: ClientConnection(self))

    # --- life -----------------------------------------------------------------------------

    async def listen(self) -> int:
        """Take requests; returns the port. Raises OSError when the address cannot be had."""
        return await self._listener.open(self._settings.gateway_host, self._settings.gateway_port)

    async def drain(self, limit_s: float) -> None:
        """Take no new connections, finish what is open for at most `limit_s`, then cut off the rest."""
        self.context.draining = True
        loop = self.context.loop
        end_s = loop.time() + limit_s
        idle_end_s = loop.time() + min(self._settings.drain_idle_s, limit_s)
        await self._listener.close(handshake_s=min(HANDSHAKE_S, limit_s))
        while self._clients and loop.time() < end_s:
            if loop.time() >= idle_end_s:
                for client in list(self._clients):
                    client.close_if_idle()
            await asyncio.sleep(DRAIN_CHECK_S)
        for client in list(self._clients):
            client.cut()
        for endpoint in self.directory.endpoints.values():
            endpoint.remove()
        await self.context.stop()

    # --- connections ----------------------------------------------------------------------

    def opened(self, client: ClientConnection) -> bool:
        """Count a connection; False when there are too many."""
        self._clients.add(client)
        self.context.connections += 1
        return self.context.connections <= self._settings.connections_max

    def closed(self, client: ClientConnection) -> None:
        self._clients.discard(client)
        self.context.connections -= 1
