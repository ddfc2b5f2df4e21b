"""One replica as the data plane sees it: its slots, its kept connections, and how to open another."""

import asyncio
import logging
import re
from typing import TYPE_CHECKING

from penstock_gateway.proxy.response_head import PreparedAnswer
from penstock_gateway.proxy.upstream import UpstreamConnection
from penstock_gateway.queueing import ReplicaSlots

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context
    from penstock_gateway.proxy.exchange import Exchange

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(?:(?P<host>[A-Za-z0-9_.-]{1,253})|\[(?P<ip6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")
FRESH_S = 0.1
"""A connection used less than this long ago is not checked again before use."""


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`. Raises ValueError."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{address!r} is not an address of the form host:port")
    return match["ip6"] or match["host"], int(match["port"])


class Replica(ReplicaSlots):
    """A pool never holds more connections than the replica has slots: each served a request once."""

    __slots__ = ("_context", "_host", "_idle", "_port", "answer", "missed")

    def __init__(self, context: "Context", replica_id: str, address: str, limit: int) -> None:
        super().__init__(replica_id, address, limit)
        self._host, self._port = parse_address(address)
        self._context = context
        self.answer: PreparedAnswer | None = None
        """The replica's last answer: the next often has an equal head."""
        self.missed = 1
        """How many answers in a row had another, and one."""
        self._idle: list[UpstreamConnection] = []

    def checkout(self, now_s: float) -> UpstreamConnection | None:
        """A kept connection that still stands, the one used last first; None when there is none."""
        idle = self._idle
        while idle:
            upstream = idle.pop()
            if now_s - upstream.idle_since_s < FRESH_S or not upstream.is_stale(now_s):
                return upstream
            upstream.close()
        return None

    def keep(self, upstream: UpstreamConnection) -> None:
        """Keep a connection for the next request, unless the replica is leaving."""
        if self.draining or len(self._idle) >= self.limit:
            upstream.close()
        else:
            self._idle.append(upstream)

    def lost(self, upstream: UpstreamConnection) -> None:
        """A kept connection was closed."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close_idle(self) -> None:
        """Close what is kept: the replica leaves, and its open requests finish on their own."""
        while self._idle:
            self._idle.pop().close()

    def connect(self, exchange: "Exchange") -> None:
        """Open a connection and send `exchange` on it."""
        self._context.spawn(self._connect(exchange))

    def _make_connection(self) -> UpstreamConnection:
        return UpstreamConnection(self._context, self)

    async def _connect(self, exchange: "Exchange") -> None:
        loop = self._context.loop
        try:
            async with asyncio.timeout(self._context.limits.connect_timeout_s):
                _, upstream = await loop.create_connection(self._make_connection, self._host, self._port)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError; the other comes of odd host names
            log.info(
                "a replica does not accept connections",
                extra={"replica_id": self.replica_id, "address": self.address, "error": repr(error)},
            )
            exchange.on_connect_failed(self)
            return
        exchange.on_connected(upstream)
