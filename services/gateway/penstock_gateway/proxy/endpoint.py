"""One endpoint: its route, its queue and its numbers, and what happens when they change."""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from penstock_common.contracts.records import Route
from penstock_gateway.domain import SERVING, Refusal, not_running, not_started, overloaded
from penstock_gateway.fairness import Place
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.replica import Replica, parse_address
from penstock_gateway.proxy.route_check import RouteCheck, plain_body
from penstock_gateway.queueing import EndpointQueue
from penstock_gateway.stats import EndpointStats

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context


class Endpoint:
    """Carries out what the queue decides. Its timer runs only while something waits or is ejected.

    `last_request_s` is when the monotonic clock showed the last request that was let in (`/ping` is none).
    """

    __slots__ = ("_check", "_context", "_timer", "_timer_s", "closed", "last_request_s", "queue", "route", "stats")

    def __init__(self, context: "Context", route: Route) -> None:
        self.route = route
        self.stats = EndpointStats()
        self.closed: Refusal | None = None
        self.last_request_s = monotonic()
        self.queue: EndpointQueue[Exchange, Replica] = EndpointQueue(
            lambda replica_id, address, limit: Replica(context, replica_id, address, limit),
            eject_s_min=context.limits.eject_s_min,
            eject_s_max=context.limits.eject_s_max,
            start_timeout_s=context.limits.start_timeout_s,
        )
        self._check = RouteCheck(())
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
        if route.routes != self._check.routes:
            self._check = RouteCheck(route.routes)
        self.closed = None if route.state in SERVING else not_running(route)
        if self.closed is not None:
            self._close(self.closed)
            return
        starts, gone = self.queue.configure(
            route.replicas,
            concurrency=route.scaling.target_concurrency,
            limit=route.scaling.queue_limit,
            timeout_s=route.scaling.queue_timeout_s,
            now_s=monotonic(),
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

    def admit(self, exchange: Exchange, request: bytes, place: Place) -> None:
        """Start the request, let it wait, or refuse it. `request` is the head that the replica gets."""
        exchange.endpoint = self
        exchange.request = request
        exchange.place = place
        if self.closed is not None:
            exchange.refuse(self.closed)
            return
        replica = self.queue.take()
        if replica is not None:
            self.last_request_s = exchange.arrived_s
            exchange.start(replica, exchange.arrived_s)
            return
        refusal = self._refused_asleep(exchange)
        if refusal is not None:
            exchange.refuse(refusal)
        else:
            self._wait(exchange)

    def readmit(self, exchange: Exchange) -> None:
        """Start a request whose connection never opened elsewhere, or let it wait as the first in line."""
        if self.closed is not None:
            exchange.refuse(self.closed)
            return
        replica = self.queue.take()
        if replica is not None:
            exchange.start(replica, monotonic())
        else:
            first = not len(self.queue)
            self.queue.wait_first(exchange, exchange.place, exchange.arrived_s)
            self._waits(exchange, first=first)
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

    # --- load -----------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests, open streams and tunnels at the replicas of the route, draining ones included."""
        return self.queue.in_flight

    @property
    def busy_replicas(self) -> tuple[str, ...]:
        """Ids of the replicas of the route that work on anything, draining ones included."""
        return tuple(replica.replica_id for replica in self.queue.replicas.values() if replica.in_flight)

    # --- parts ----------------------------------------------------------------------------

    def _wait(self, exchange: Exchange) -> None:
        """Let the request wait; in a full queue it may take the place of another, or is refused."""
        queue, place, now_s = self.queue, exchange.place, exchange.arrived_s
        first = not len(queue)
        displaced: Exchange | None = None
        if not queue.wait(exchange, place, now_s):
            displaced = queue.displace(exchange, place, now_s)
            if displaced is None:
                exchange.refuse(overloaded(self.route, queue.view(), "queue_full"))
                return
        self.last_request_s = now_s
        self._waits(exchange, first=first)
        if displaced is not None:
            # Last of all: the next request of that client may come at once, and ask for a place too.
            displaced.refuse(overloaded(self.route, queue.view(), "queue_full"))

    def _waits(self, exchange: Exchange, *, first: bool) -> None:
        exchange.stage = Stage.WAITING
        if first:
            # Whoever joins later is also due later: one timer, and one wake-up, for all of them.
            self._arm()
            self._context.pressed(self)

    def _refused_asleep(self, exchange: Exchange) -> Refusal | None:
        """What the replica would refuse does not wake a sleeping endpoint."""
        if self.route.state != "idle" or self.queue.ready:
            return None
        head = exchange.head
        body: bytes | None = None
        if exchange.request_done and exchange.held_bytes <= self._context.limits.held_bytes_max:
            body = plain_body(exchange.pending, chunked=head.chunked)
        return self._check.refusal(head.method, exchange.request.split(b" ", 2)[1], body)

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
            if self.queue.ready:
                refusal = overloaded(self.route, self.queue.view(), "queue_timeout")
            else:
                refusal = not_started(self.route, self.queue.view(), self.queue.start_timeout_s)
            for exchange in expired:
                exchange.refuse(refusal)
        self._arm()
