"""The autoscaler: looks at each endpoint, decides, and tells the scheduler until the route shows it.

It looks at once when a request begins to wait, and else once a tick. Every endpoint has at most one
question in flight. A wish that was lost, refused or came too early is asked again.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from opentelemetry.trace import Span, Status, StatusCode

from penstock_common.contracts.questions import ScaleEndpoint, ScaleReply
from penstock_common.contracts.records import Route
from penstock_common.telemetry import tracer
from penstock_gateway.autoscaling.deciding import Decision, State, Stats, begin, decide
from penstock_gateway.autoscaling.policy import policy_at
from penstock_gateway.domain import SERVING

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

TICK_S = 1.0
PRESSED_S = 0.02
"""A queue that forms again and again makes it look at most this often."""
ASK_AGAIN_S = 5.0
"""How often a wish is repeated that the route does not show."""
RETRY_S_MIN = 0.25
RETRY_S_MAX = 5.0
DECISIONS_MAX = 50
LOOKS_AT_ONCE = 50
"""After so many endpoints, requests get their turn."""


class Waiting(Protocol):
    """Part of a queue that is looked at."""

    service_s: float | None

    def __len__(self) -> int: ...


class Scaled(Protocol):
    """Part of an endpoint that is looked at. `last_request_s` is by the clock that the autoscaler uses."""

    @property
    def route(self) -> Route: ...
    @property
    def queue(self) -> Waiting: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def last_request_s(self) -> float: ...
    @property
    def busy_replicas(self) -> Iterable[str]: ...


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that differed from the one before it."""

    at: datetime
    before: int
    load: int
    decision: Decision


Wish = tuple[int, int, frozenset[str], frozenset[str]]
"""What the scheduler is told: replicas, minimum, which replicas the route shows as draining, and which of
those are still busy. A drain that the route has just shown is confirmed at once, so that it can end."""


class _Watched:
    """What is kept of one endpoint while its route exists."""

    __slots__ = (
        "asked",
        "asked_s",
        "asking",
        "changed_from",
        "decided",
        "due_s",
        "endpoint",
        "looked_s",
        "not_before_s",
        "retry_s",
        "state",
        "version_min",
    )

    def __init__(self, endpoint: Scaled) -> None:
        self.endpoint = endpoint
        self.state: State | None = None
        self.decided: deque[Decided] = deque(maxlen=DECISIONS_MAX)
        self.looked_s = -PRESSED_S
        self.due_s: float | None = None
        """When to look before the next tick."""
        self.changed_from: int | None = None
        """Replicas before the decisions that the scheduler was not told of yet."""
        self.asked: Wish | None = None
        """What the scheduler took last."""
        self.asked_s = 0.0
        self.asking: asyncio.Task[None] | None = None
        self.not_before_s = 0.0
        self.retry_s = RETRY_S_MIN
        self.version_min = 0
        """Version of the route that a new wish has to be made from."""

    def forget(self) -> None:
        """The endpoint does not run, or another gateway owns it: what comes after is a new beginning."""
        self.state = None
        self.changed_from = None
        self.asked = None
        self.version_min = 0
        self.not_before_s = 0.0
        self.retry_s = RETRY_S_MIN


class Autoscaler:
    """`ask` brings a wish to the scheduler; whatever it raises is taken for a failure and tried again.

    `owns` tells whether this gateway scales an endpoint. `clock` is monotonic, in seconds; `wall` is the
    time of day, in UTC, for schedules.
    """

    def __init__(
        self,
        ask: Callable[[ScaleEndpoint], Awaitable[ScaleReply]],
        *,
        tick_s: float = TICK_S,
        owns: Callable[[str], bool] = lambda endpoint_id: True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ask = ask
        self._tick_s = tick_s
        self._owns = owns
        self._clock = clock
        self._wall = wall
        self._watched: dict[str, _Watched] = {}
        self._early: set[_Watched] = set()
        """Those to look at before the next tick."""
        self._woken = asyncio.Event()

    # --- what it is told ------------------------------------------------------------------

    def pressed(self, endpoint: Scaled) -> None:
        """A request began to wait where none waited. Cheap: it is called for every queue that forms."""
        watched = self._watched.get(endpoint.route.endpoint_id)
        if watched is not None:
            self._look_at(watched, watched.looked_s + PRESSED_S)

    def route_changed(self, endpoint: Scaled) -> None:
        """An endpoint is there, or has another route than before."""
        endpoint_id = endpoint.route.endpoint_id
        watched = self._watched.get(endpoint_id)
        if watched is None or watched.endpoint is not endpoint:
            self._drop(endpoint_id)
            watched = self._watched[endpoint_id] = _Watched(endpoint)
        self._look_at(watched, self._clock())

    def removed(self, endpoint: Scaled) -> None:
        """An endpoint is no more."""
        self._drop(endpoint.route.endpoint_id)

    def decisions(self, endpoint_id: str) -> tuple[Decided, ...]:
        """The last decisions that changed something, oldest first."""
        watched = self._watched.get(endpoint_id)
        return tuple(watched.decided) if watched is not None else ()

    # --- running --------------------------------------------------------------------------

    async def run(self) -> None:
        """Look, decide and ask, for ever."""
        tick_s = self._clock()
        try:
            while True:
                now_s = self._clock()
                if now_s >= tick_s:
                    tick_s = now_s + self._tick_s
                    await self.look(list(self._watched.values()))
                await self.look([one for one in self._early if one.due_s is None or one.due_s <= now_s])
                await self._wait(min([tick_s, *(one.due_s for one in self._early if one.due_s is not None)]))
        finally:
            asking = [one.asking for one in self._watched.values() if one.asking is not None]
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def look(self, watched: Iterable[_Watched] | None = None) -> None:
        """Look at all endpoints, or at some, and ask for what they need."""
        for number, one in enumerate(list(self._watched.values()) if watched is None else watched, start=1):
            one.due_s = None
            self._early.discard(one)
            endpoint_id = one.endpoint.route.endpoint_id
            try:
                if self._watched.get(endpoint_id) is one:
                    self._look(one)
            except Exception:
                # One endpoint that cannot be decided must not leave the others unscaled.
                log.exception("an endpoint cannot be scaled", extra={"endpoint_id": endpoint_id})
            if number % LOOKS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _look_at(self, one: _Watched, due_s: float) -> None:
        if one.due_s is None or due_s < one.due_s:
            one.due_s = due_s
            self._early.add(one)
            self._woken.set()

    async def _wait(self, until_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, until_s - self._clock())):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()
        # Let those who wait together be counted together.
        await asyncio.sleep(0)

    # --- one endpoint ---------------------------------------------------------------------

    def _look(self, one: _Watched) -> None:
        route, now_s = one.endpoint.route, self._clock()
        one.looked_s = now_s
        if route.state not in SERVING or not self._owns(route.endpoint_id):
            one.forget()
            return
        draining = {replica.replica_id for replica in route.replicas if replica.draining}
        if route.scaling.fixed and not draining and route.desired_replicas == route.scaling.min_replicas:
            one.forget()
            return
        stats = self._stats(one.endpoint)
        state = one.state or begin(stats, now_s)
        decision, one.state = decide(stats, state, policy_at(route.scaling, self._wall()), now_s)
        if decision.replicas != state.replicas:
            one.decided.append(Decided(self._wall(), state.replicas, stats.load, decision))
            one.changed_from = state.replicas if one.changed_from is None else one.changed_from
        busy = tuple(sorted(one.endpoint.busy_replicas))
        wish = (decision.replicas, decision.minimum, frozenset(draining), frozenset(draining.intersection(busy)))
        if one.asking is None and self._should_ask(one, wish, draining=bool(draining), now_s=now_s):
            question = ScaleEndpoint(
                endpoint_id=route.endpoint_id,
                route_version=route.version,
                replicas=decision.replicas,
                minimum=decision.minimum,
                busy=busy,
                reason=decision.reason,
            )
            one.asking = asyncio.create_task(self._tell(one, question, wish, one.changed_from))
            one.changed_from = None

    @staticmethod
    def _stats(endpoint: Scaled) -> Stats:
        return Stats(
            in_flight=endpoint.in_flight,
            queued=len(endpoint.queue),
            ready=sum(not replica.draining for replica in endpoint.route.replicas),
            desired=endpoint.route.desired_replicas,
            last_request_s=endpoint.last_request_s,
            service_s=endpoint.queue.service_s,
        )

    @staticmethod
    def _should_ask(one: _Watched, wish: Wish, *, draining: bool, now_s: float) -> bool:
        route = one.endpoint.route
        newer = 0 < one.version_min <= route.version
        if now_s < one.not_before_s and not newer:
            return False
        if wish != one.asked:
            return True
        shown = route.desired_replicas == wish[0] and not draining
        # Replicas above the minimum may have to give way: the scheduler must know which of them are busy now.
        lent = wish[0] > wish[1]
        return (lent or not shown) and now_s - one.asked_s >= ASK_AGAIN_S

    async def _tell(self, one: _Watched, question: ScaleEndpoint, wish: Wish, before: int | None) -> None:
        """Ask once. A decision that changed something has a span, and the question belongs to its trace."""
        try:
            if before is None:
                await self._ask_once(one, question, wish)
                return
            attributes: dict[str, str | int] = {
                "penstock.endpoint_id": question.endpoint_id,
                "penstock.replicas.before": before,
                "penstock.replicas": question.replicas,
                "penstock.reason": question.reason,
            }
            with _tracer.start_as_current_span("autoscale", attributes=attributes) as span:
                await self._ask_once(one, question, wish, span)
        finally:
            one.asking = None
            # What changed meanwhile was not asked for, and what failed is to be asked again.
            if self._watched.get(question.endpoint_id) is one:
                self._look_at(one, max(self._clock(), one.not_before_s))

    async def _ask_once(self, one: _Watched, question: ScaleEndpoint, wish: Wish, span: Span | None = None) -> None:
        try:
            reply = await self._ask(question)
        except Exception as error:  # NATS away, nobody answers, a refusal: the wish stands, whatever it was
            one.version_min = 0
            one.not_before_s = self._clock() + one.retry_s
            one.retry_s = min(one.retry_s * 2, RETRY_S_MAX)
            if span is not None:
                span.set_status(Status(StatusCode.ERROR, repr(error)))
            log.warning(
                "the scheduler could not be asked; trying again",
                extra={"endpoint_id": question.endpoint_id, "replicas": question.replicas, "error": repr(error)},
            )
            return
        one.retry_s = RETRY_S_MIN
        one.asked_s = self._clock()
        if reply.accepted:
            one.asked = wish
            one.not_before_s = 0.0
            one.version_min = 0
            return
        # Decided from an old route: again from the newer one when it comes, or when it seems lost.
        one.version_min = max(reply.version, question.route_version + 1)
        one.not_before_s = one.asked_s + ASK_AGAIN_S
        if span is not None:
            span.set_attribute("penstock.refused", reply.reason)

    def _drop(self, endpoint_id: str) -> None:
        watched = self._watched.pop(endpoint_id, None)
        if watched is None:
            return
        self._early.discard(watched)
        if watched.asking is not None:
            watched.asking.cancel()
