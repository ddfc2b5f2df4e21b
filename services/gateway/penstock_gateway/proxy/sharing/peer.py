"""Another gateway, seen as a replica that takes any number of requests, and the connections to it.

A request that the other gateway has not started on a replica may be placed anew: it says so before it starts one.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from penstock_gateway.domain import Refusal
from penstock_gateway.proxy.replica import Replica
from penstock_gateway.proxy.response_head import ResponseHead
from penstock_gateway.proxy.sharing.envelope import MOVED, STARTED_LINE, Envelope, seal
from penstock_gateway.proxy.upstream import UpstreamConnection
from penstock_gateway.stats import EndpointStats

if TYPE_CHECKING:
    from penstock_gateway.proxy.exchange import Exchange
    from penstock_gateway.proxy.sharing.cluster import Cluster
    from penstock_gateway.proxy.sharing.endpoint import SharedEndpoint

CONNECTIONS_MAX = 1_000_000
OWNER_CHANGED = Refusal(
    503,
    "owner_changed",
    "another gateway took this endpoint over while the request, with its long body, waited: send it again",
    retry_after_s=1,
)


class Peer(Replica):
    """Another gateway."""

    __slots__ = ("_cluster", "_links")

    def __init__(self, cluster: "Cluster", gateway_id: str, address: str) -> None:
        super().__init__(cluster.context, gateway_id, address, CONNECTIONS_MAX)
        self._cluster = cluster
        self._links: set[PeerLink] = set()

    def _make_connection(self) -> UpstreamConnection:
        return PeerLink(self._cluster, self)

    def opened(self, link: "PeerLink") -> None:
        self._links.add(link)

    def closed(self, link: "PeerLink") -> None:
        self._links.discard(link)

    def cut(self) -> None:
        """It is dead: whatever is under way to it ends."""
        for link in list(self._links):
            link.cut()


class PeerLink(UpstreamConnection):
    """A connection to another gateway. How long that may be silent is its own business: while it lives, it
    applies the limits; when it is dead, the connection is cut."""

    __slots__ = ("_cluster", "_started", "_whole")

    def __init__(self, cluster: "Cluster", peer: Peer) -> None:
        super().__init__(cluster.context, peer)
        self._limits = cluster.limits
        self._cluster = cluster
        self._started = False
        self._whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("Peer", self.replica).opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        cast("Peer", self.replica).closed(self)
        exchange = self.exchange
        if exchange is not None and self._whole and not self._started and not self._buffer:
            self._give_back(exchange)
        super().connection_lost(error)

    def begin(self, exchange: "Exchange") -> None:
        # What is whole is kept until the other gateway starts it, which costs no more than waiting here would.
        self._started = False
        self._whole = exchange.request_done
        request, pending, held_bytes = exchange.request, exchange.pending, exchange.held_bytes
        exchange.request = seal(request, self._cluster.secret, self._envelope(exchange))
        super().begin(exchange)
        exchange.request = request
        if self._whole:
            exchange.pending, exchange.held_bytes = pending, held_bytes

    def cut(self) -> None:
        self._transport.abort()

    def _envelope(self, exchange: "Exchange") -> Envelope:
        elsewhere = cast("Elsewhere", exchange.endpoint)
        return Envelope(self.replica.replica_id, elsewhere.endpoint_id, exchange.place)

    def _pass_interim(self, exchange: "Exchange", head: ResponseHead) -> None:
        if STARTED_LINE in head.lines:
            self._is_started(exchange)
        else:
            super()._pass_interim(exchange, head)

    def _answer(self, exchange: "Exchange", raw: bytes, head: ResponseHead, rest: bytes) -> None:
        if head.status == MOVED and self._cluster.moved_line in head.lines:
            self._give_back(exchange)
            self.drop()
            return
        self._is_started(exchange)
        super()._answer(exchange, raw, head, rest)

    def _is_started(self, exchange: "Exchange") -> None:
        if not self._started:
            self._started = True
            exchange.pending, exchange.held_bytes = [], 0

    def _give_back(self, exchange: "Exchange") -> None:
        """The other gateway has not started it."""
        self.exchange = None
        if self._whole:
            exchange.come_back()
        else:
            exchange.fail_upstream(OWNER_CHANGED)


class Elsewhere:
    """What an exchange takes for its endpoint while another gateway has it. Counted there, not here."""

    __slots__ = ("_endpoint", "stats")

    def __init__(self, endpoint: "SharedEndpoint", stats: EndpointStats) -> None:
        self._endpoint = endpoint
        self.stats = stats

    @property
    def endpoint_id(self) -> str:
        return self._endpoint.route.endpoint_id

    def readmit(self, exchange: "Exchange") -> None:
        """The other gateway was not reached, or does not own the endpoint."""
        self._endpoint.take_back(exchange)

    def release(self, replica: Replica, service_s: float | None, now_s: float, *, answered: bool) -> None:
        """Another gateway has no slots to count."""

    def eject(self, replica: Replica) -> None:
        """Whether another gateway lives is found out by its heartbeats."""
