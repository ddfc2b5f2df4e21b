"""One endpoint: its route, its queue and its numbers, and what happens when they change."""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from penstock_common.contracts.records import Route
from penstock_gateway.domain import SERVING, Refusal, not_running, overloaded
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.replica import Replica, parse_address
from penstock_gateway.queueing import EndpointQueue
from penstock_gateway.stats import EndpointStats

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context


class Endpoint:
    """Carries out what the queue decides. Its timer runs only while something waits or is ejected."""

    __slots__ = ("_context", "_timer", "_timer_s", "closed", "queue", "route", "stats")

    def __init__(self, context: "Context", route: Route) -> None:
        self.route = route
        self.stats = EndpointStats()
        self.closed: Refusal | None = None
        self.queue: EndpointQueue[Exchange, Replica] = EndpointQueue(
            lambda replica_id, address, limit: Replica(context, replica_id, address, limit),
            eject_s_min=context.limits.eject_s_min,
            eject_s_max=context.limits.eject_s_max,
        )
        self._context = context
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.update(route)

    # --- the route changes ----------------------------------------------------------------

    def update(self, route: Route) -> None:
        """Take over a newer route: those who wait start if they can, or are told that they cannot.

        Raises ValueError, and changes nothing, when the route holds an address that is none.
        """
        for replica in route.replicas:
            parse_address(replica.address)
        self.route = route
        self.closed = None if route.state in SERVING else not_running(route)
        if self.closed is not None:
            self._close(self.closed)
            return
        starts, gone = self.queue.configure(
            route.replicas,
            concurrency=route.target_concurrency,
            limit=route.queue_limit,
            timeout_s=route.queue_timeout_s,
        )
        for left in gone:
            left.close_idle()
        self._start(starts)
        self._arm()

    def remove(self) -> None:
        """The route is gone: the endpoint was terminated."""
        self.closed = not_running(self.route.model_copy(update={"state": "terminated", "reason": ""}))
        self._close(self.closed)

    def _close(self, refusal: Refusal) -> None:
        waited, gone = self.queue.close()
        for replica in gone:
            replica.close_idle()
        for exchange in waited:
            exchange.refuse(refusal)
        self._arm()

    # --- requests come and go -------------------------------------------------------------

    def admit(self, exchange: Exchange, request: bytes) -> None:
        """Start the request, let it wait, or refuse it. `request` is the head that the replica gets."""
        exchange.endpoint = self
        exchange.request = request
        if self.closed is not None:
            exchange.refuse(self.closed)
            return
        queue = self.queue
        replica = queue.take()
        if replica is not None:
            exchange.start(replica, exchange.arrived_s)
        elif queue.wait(exchange, exchange.arrived_s):
            exchange.stage = Stage.WAITING
            self._arm()
        else:
            exchange.refuse(overloaded(self.route, queue.view(), "queue_full"))

    def readmit(self, exchange: Exchange) -> None:
        """Start a request whose connection never opened elsewhere, or let it wait as the first in line."""
        if self.closed is not None:
            exchange.refuse(self.closed)
            return
        replica = self.queue.take()
        if replica is not None:
            exchange.start(replica, monotonic())
        else:
            self.queue.wait_first(exchange, exchange.arrived_s)
            exchange.stage = Stage.WAITING
            self._arm()

    def leave(self, exchange: Exchange) -> None:
        """A waiting request is given up."""
        self.queue.leave(exchange)

    def release(self, replica: Replica, service_s: float | None, now_s: float, *, answered: bool) -> None:
        """A request has ended: its slot goes to the next in line."""
        following = self.queue.release(replica, service_s)
        if following is not None:
            following.start(replica, now_s)
        if answered and replica.failures:
            self._start(self.queue.recover(replica))

    def eject(self, replica: Replica) -> None:
        """The replica failed: it gets nothing for a while."""
        self.queue.eject(replica, monotonic())
        replica.close_idle()
        self._arm()

    # --- parts ----------------------------------------------------------------------------

    def _start(self, starts: list[tuple[Exchange, Replica]]) -> None:
        now_s = monotonic()
        for exchange, replica in starts:
            exchange.start(replica, now_s)

    def _arm(self) -> None:
        at_s = self.queue.next_event_s()
        if self._timer is not None:
            # A timer that is early looks again and goes on; only one that is late is replaced.
            if at_s is not None and self._timer_s <= at_s:
                return
            self._timer.cancel()
            self._timer = None
        if at_s is not None:
            self._timer_s = at_s
            self._timer = self._context.loop.call_later(max(0.001, at_s - monotonic()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now_s = monotonic()
        self._start(self.queue.readmit(now_s))
        expired = self.queue.expire(now_s)
        if expired:
            refusal = overloaded(self.route, self.queue.view(), "queue_timeout")
            for exchange in expired:
                exchange.refuse(refusal)
        self._arm()
