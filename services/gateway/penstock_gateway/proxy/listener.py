"""The listening sockets, and how one gateway hands them over to the next without losing a connection.

With SO_REUSEPORT a new gateway listens on the same port beside the old one, and the kernel spreads new
connections over both. The old one then stops in three steps: it asks the kernel to give all new
connections to the other socket (a one-line filter), takes those that are already its own, and closes.
"""

import asyncio
import ctypes
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress

BACKLOG = 4096
HANDSHAKE_S = 0.1
"""Connections that are just being made when new ones go elsewhere have this long to be complete."""

_ATTACH_FILTER = 51  # SO_ATTACH_REUSEPORT_CBPF, absent from the socket module
_DETACH_FILTER = 68  # SO_DETACH_REUSEPORT_BPF
_RETURN_1 = struct.pack("HBBI", 0x06, 0, 0, 1)
"""Classic BPF: `ret #1`. The newcomer is the second of the sockets; if there is no second, the kernel
ignores the answer."""


class Listener:
    """Listens on every address that a host name stands for; with `tls`, over TLS, where the handshake may take
    `handshake_timeout_s`. Others may listen on the same port while it is `shared`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        shared: bool = True,
        tls: ssl.SSLContext | None = None,
        handshake_timeout_s: float = 10.0,
    ) -> None:
        self._loop = loop
        self._make_protocol = make_protocol
        self._shared = shared
        self._tls = tls
        # A time for the handshake is an error without TLS.
        self._handshake_timeout_s = handshake_timeout_s if tls is not None else None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listening = _bind(family, (address[0], port, *address[2:]), shared=self._shared)
            self._sockets.append(listening)
            port = listening.getsockname()[1]
        for listening in self._sockets:
            # The server gets a duplicate: closing it must not close what `close` still has to empty.
            server = await self._loop.create_server(
                self._make_protocol,
                sock=listening.dup(),
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_timeout_s,
            )
            self._servers.append(server)
        return port

    async def close(self, *, handshake_s: float) -> None:
        """Stop accepting, without losing a connection that the kernel has already made for us."""
        for listening in self._sockets:
            _prefer_the_other(listening)
        await asyncio.sleep(handshake_s)
        for server in self._servers:
            server.close()
        await asyncio.gather(*(self._empty(listening) for listening in self._sockets))
        self._servers.clear()
        self._sockets.clear()

    async def _empty(self, listening: socket.socket) -> None:
        accepted: list[socket.socket] = []
        with suppress(OSError):
            while True:
                accepted.append(listening.accept()[0])
        listening.close()
        # Side by side: with TLS each is ready only when its client has shaken hands.
        await asyncio.gather(*(self._adopt(connection) for connection in accepted))

    async def _adopt(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_timeout_s
            )


def _bind(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        # A filter that an earlier hand-over left behind would give everything to us.
        with suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
    except OSError:
        listening.close()
        raise
    return listening


def _prefer_the_other(listening: socket.socket) -> None:
    """Kernels that know no such filter go on spreading; then a connection may be lost at the close."""
    program = ctypes.create_string_buffer(_RETURN_1, len(_RETURN_1))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
