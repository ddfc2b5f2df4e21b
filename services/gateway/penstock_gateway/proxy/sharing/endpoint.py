"""An endpoint that several gateways share. Its owner alone puts requests on replicas.

When the owner changes, the old one starts nothing more of the endpoint from that moment on. Who waits there goes to
the new owner at once. What is under way is finished where it is, and each heartbeat tells how much of it there still
is on each replica; the new owner takes these slots for used. It starts with the first heartbeat in which the old one
shows that it knows of the new one, so there is never more on a replica than it has slots.
"""

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, cast

from penstock_common.contracts.records import Route
from penstock_gateway.domain import Refusal
from penstock_gateway.fairness import Place
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.replica import Replica
from penstock_gateway.proxy.sharing.envelope import MOVED, MOVED_HEADER
from penstock_gateway.proxy.sharing.peer import Elsewhere, Peer

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context
    from penstock_gateway.proxy.sharing.cluster import Cluster


def moved(secret: str) -> Refusal:
    """Said to a gateway that forwarded a request to one that does not own the endpoint."""
    return Refusal(MOVED, "moved", "another gateway owns this endpoint", headers=((MOVED_HEADER, secret),))


class SharedEndpoint(Endpoint):
    """`owner` is the other gateway that owns it, if any does."""

    __slots__ = ("_cluster", "_elsewhere", "_held", "_lent", "owner")

    def __init__(self, context: "Context", route: Route, cluster: "Cluster") -> None:
        self.owner: Peer | None = None
        self._cluster = cluster
        self._lent: Mapping[str, int] = {}
        self._held = True
        super().__init__(context, route)
        self._elsewhere = Elsewhere(self, cluster.relayed)
        cluster.settle(self)

    def settle(self, owner: Peer | None, lent: Mapping[str, int] | None) -> None:
        """Who owns it now, and which slots of its replicas others use; None for all: nothing may be started."""
        self.owner = owner
        held, self._held = self._held, lent is None
        self._lent = lent or {}
        self._start(self.queue.lend(lent))
        if owner is not None:
            self.pass_on()
        elif held and not self._held:
            # We may be new to it, and not know when there was a request last.
            self.last_request_s = monotonic()
            if len(self.queue):
                self._context.pressed(self)

    def pass_on(self) -> None:
        """Send those who wait here to the owner."""
        if self.owner is not None:
            for exchange in self.queue.hand_over():
                exchange.stage = Stage.NEW
                self._forward(exchange)

    def take_back(self, exchange: Exchange) -> None:
        """The owner was not reached, or is not the owner: let the request wait for what the next look shows."""
        exchange.endpoint = self
        if self.closed is not None:
            exchange.refuse(self.closed)
        elif self.owner is None:
            super().readmit(exchange)
        else:
            self.queue.wait_first(exchange, exchange.place, exchange.arrived_s)
            exchange.stage = Stage.WAITING
            self._cluster.stranded.add(self)
            self._arm()

    # --- as any endpoint, but for the owner -----------------------------------------------

    def update(self, route: Route) -> None:
        self._cluster.check(monotonic())
        super().update(route)

    def admit(self, exchange: Exchange, request: bytes, place: Place) -> None:
        if self.owner is None:
            self._cluster.check(exchange.arrived_s)
            super().admit(exchange, request, place)
            return
        exchange.endpoint = self
        exchange.request = request
        exchange.place = place
        if self.closed is not None:
            exchange.refuse(self.closed)
        else:
            self._forward(exchange)

    def readmit(self, exchange: Exchange) -> None:
        if self.owner is not None and self.closed is None:
            self._forward(exchange)
        else:
            self._cluster.check(monotonic())
            super().readmit(exchange)

    def release(self, replica: Replica, service_s: float | None, now_s: float, *, answered: bool) -> None:
        self._cluster.check(now_s)
        super().release(replica, service_s, now_s, answered=answered)
        if self.owner is not None:
            self._cluster.tell_soon()

    @property
    def in_flight(self) -> int:
        """The whole load, told by the owner."""
        return self.queue.in_flight + sum(self._lent.values()) if self.owner is None else 0

    @property
    def busy_replicas(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().busy_replicas, *self._lent)))

    @property
    def leftover(self) -> dict[str, int]:
        """What is still under way here, by replica."""
        return {replica.replica_id: replica.in_flight for replica in self.queue.replicas.values() if replica.in_flight}

    def _on_time(self) -> None:
        self._cluster.check(monotonic())
        super()._on_time()

    def _forward(self, exchange: Exchange) -> None:
        if self.owner is None:
            raise RuntimeError("nobody to forward to")
        if exchange.forwarded:
            exchange.endpoint = None
            exchange.refuse(self._cluster.moved)
            return
        exchange.endpoint = cast("Endpoint", self._elsewhere)
        self.last_request_s = now_s = monotonic()
        exchange.start(self.owner, now_s)
