"""One gateway's traffic: listens, and drains at the stop."""

import asyncio
from typing import TYPE_CHECKING

from penstock_gateway.proxy.admission import Admission
from penstock_gateway.proxy.certificates import Certificates
from penstock_gateway.proxy.client import ClientConnection
from penstock_gateway.proxy.context import Context
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.proxy.listener import HANDSHAKE_S, Listener
from penstock_gateway.proxy.sharing.cluster import Cluster
from penstock_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from penstock_gateway.deferred.door import Door

DRAIN_CHECK_S = 0.02


class DataPlane:
    """One gateway's traffic. Make it inside a running event loop.

    `gateway_id` is what it is called among several. Raises OSError when the settings name TLS files that cannot be
    used.
    """

    def __init__(self, settings: GatewaySettings, *, gateway_id: str = "gw-alone", timer_step_s: float = 1.0) -> None:
        self.context = Context(settings, timer_step_s=timer_step_s)
        self.cluster: Cluster | None = None
        self.door: Door | None = None
        """Where requests go that are answered later; without one they are answered at once."""
        if settings.gateway_secret is None:
            self.directory = Directory(self.context)
        else:
            self.cluster = Cluster(self, gateway_id, settings.gateway_secret.get_secret_value())
            self.directory = Directory(self.context, make_endpoint=self.cluster.make_endpoint)
        self.certificates: Certificates | None = None
        if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
            self.certificates = Certificates(settings.tls_certificate_file, settings.tls_key_file)
        self.admission = Admission(
            self.directory, settings.domain, scheme="http" if self.certificates is None else "https"
        )
        self._settings = settings
        self._clients: set[ClientConnection] = set()
        self._listener = Listener(
            self.context.loop,
            lambda: ClientConnection(self),
            tls=None if self.certificates is None else self.certificates.context,
            handshake_timeout_s=settings.head_timeout_s,
        )

    # --- life -----------------------------------------------------------------------------

    async def listen(self) -> int:
        """Take requests; returns the port. Raises OSError when the address cannot be had."""
        if self.certificates is not None:
            self.context.spawn(self.certificates.run())
        if self.cluster is not None:
            await self.cluster.open()
        return await self._listener.open(self._settings.gateway_host, self._settings.gateway_port)

    async def drain(self, limit_s: float) -> None:
        """Take no new connections, finish what is open for at most `limit_s`, then cut off the rest."""
        self.context.draining = True
        if self.cluster is not None:
            self.cluster.leave()
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
        if self.cluster is not None:
            await self.cluster.close()
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
