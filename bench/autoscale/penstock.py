"""The gateway's own decider, asked as the gateway asks it: when a queue forms, and every second."""

from bench.autoscale import kpa
from bench.autoscale.simulation import Seen

from penstock_gateway.autoscaling.deciding import State, Stats, begin, decide
from penstock_gateway.autoscaling.policy import HEADROOM, Policy

TICK_S = 1.0
IDLE_TIMEOUT_S = kpa.STABLE_WINDOW_S + kpa.ZERO_GRACE_S
"""As long as Knative keeps the last replica. All else is as an endpoint has it by default."""


class Penstock:
    """One endpoint's decider. `headroom` is what is swept."""

    tick_s = TICK_S
    when_pressed = True

    def __init__(self, *, headroom: float = HEADROOM, most: int) -> None:
        self._policy = Policy(minimum=0, maximum=most, idle_timeout_s=IDLE_TIMEOUT_S, headroom=headroom)
        self._state: State | None = None

    def look(self, seen: Seen) -> int:
        stats = Stats(
            in_flight=seen.in_flight,
            queued=seen.queued,
            ready=seen.ready,
            desired=seen.wanted,
            last_request_s=seen.last_request_s,
            service_s=seen.service_s,
        )
        decision, self._state = decide(stats, self._state or begin(stats, seen.now_s), self._policy, seen.now_s)
        return decision.replicas
