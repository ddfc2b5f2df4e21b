"""How many replicas an endpoint needs, decided from what is in flight and what waits. Pure.

The load is requests in flight plus requests that wait; completed ones never count. In order:

1. *Steady*: the mean load of the last minute or so, and twice its root more (square-root staffing:
   Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", 1981), but no more
   than the highest load of late: callers that take turns get no spare replicas.
2. *Queue*: a slot at once for each request that waits, except those that the ready replicas will have
   begun before another replica could start, as measured.
3. *Delay*: of all these, the highest within `scale_down_delay_s` holds.
4. *Panic*, after Knative's KPA (knative/serving, pkg/autoscaler/scaling/autoscaler.go): a load of twice
   what is ready is met at once, with room for what comes meanwhile, and for a minute after it nothing
   is taken away. Other than there, what panic asked for does not enter the delay: it was a backlog.
5. The bounds. Then what is more than needed goes in steps.
"""

import math
from dataclasses import dataclass, replace

from penstock_gateway.autoscaling.policy import Policy

MEAN_S = 60.0
"""Memory of the mean load: what is this old counts for about a third of what is new. As Knative's stable window."""
PEAK_S = 300.0
"""Memory of the highest load: it comes down towards the mean by two thirds in this time."""
TRIFLE = 0.05
"""Of a replica: so much of the mean is not worth another one."""
PANIC_MEAN_S = 6.0
"""The same of the mean that panic looks at. As Knative's panic window."""
PANIC_THRESHOLD = 2.0
"""Panic begins when the load is this many times what is ready. As Knative's panic-threshold-percentage."""
PANIC_HOLD_S = 60.0
"""How long after that nothing is taken away. As Knative's."""
PANIC_GROWTH = 1.5
"""Panic asks for this many times the load: one that doubles at once has seldom come to its end."""
STEP_S = 5.0
"""Replicas are taken away at most this often,"""
STEP_SHARE = 4
"""and then one, or one in so many."""
START_WEIGHT = 0.25
"""Weight of the newest start in the mean time that a start takes."""
PATIENCE_S_MAX = 30.0
"""Requests that would wait longer than this are given slots, however slowly replicas start."""
SHORT_S = 2.0
"""Requests shorter than this share a slot while they wait: as many as it works off in that time."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What is known of an endpoint at one moment. Times are of the clock that gives `now_s`."""

    in_flight: int
    """Requests that replicas work on, open streams included."""
    queued: int
    ready: int
    """Replicas that take new requests."""
    desired: int
    """Replicas that the scheduler aims for."""
    last_request_s: float | None = None
    service_s: float | None = None
    """Mean time that a request takes, in seconds; None before the first."""

    @property
    def load(self) -> int:
        return self.in_flight + self.queued


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be, how many of them must be, and why."""

    replicas: int
    minimum: int
    reason: str


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of a value over time, the past weighing less and less."""

    mean: float = 0.0
    weight: float = 0.0
    """From 0 to 1: how much of the memory is filled. Before it is full, the mean is over what there is."""

    def after(self, elapsed_s: float, value: float, memory_s: float) -> "Average":
        """With `value` having held for the last `elapsed_s`."""
        fades = math.exp(-elapsed_s / memory_s)
        weight = self.weight * fades + 1 - fades
        if not weight:
            return self
        return Average(self.mean + (value - self.mean) * (1 - fades) / weight, weight)


@dataclass(frozen=True, slots=True)
class State:
    """What a decider remembers of an endpoint. Bounded: no tuple is longer than there can be replicas, and one."""

    replicas: int
    """As decided last."""
    seen_s: float
    active_s: float
    """When there was last a request, as far as is known."""
    window: tuple[tuple[float, int], ...]
    """What was needed when, within the delay: falling, because a lower need before a higher one decides nothing."""
    load: float = 0.0
    """Slots that were asked for when last seen, by all requests and by those that the steady mean counts."""
    steady_load: float = 0.0
    peak: float = 0.0
    """The highest of the latter of late."""
    recent: Average = Average()
    steady: Average = Average()
    panic_s: float | None = None
    """When the load was last a panic's; None outside of panic."""
    stepped_s: float = -math.inf
    ready: int = 0
    starting_s: tuple[float, ...] = ()
    """For each replica that was asked for and is not ready: since when."""
    start_s: float | None = None
    """Mean time that a start took, in seconds."""


@dataclass(frozen=True, slots=True)
class _Wish:
    replicas: int
    reason: str


def begin(stats: Stats, now_s: float) -> State:
    """The state before the first decision: what is met here counts as needed just now, so it is kept for
    the delay, and for the idle timeout."""
    replicas = max(stats.desired, stats.ready)
    return State(replicas=replicas, seen_s=now_s, active_s=now_s, window=((now_s, replicas),), ready=stats.ready)


def decide(stats: Stats | None, state: State, policy: Policy, now_s: float) -> tuple[Decision, State]:
    """The decision at `now_s` and the state to give next time. `stats` None, for unknown, changes nothing."""
    if stats is None:
        minimum = min(policy.minimum, state.replicas)
        return Decision(state.replicas, minimum, "kept: the load is not known"), state
    state = _observed(state, stats, policy, now_s)
    if policy.minimum == 0 and stats.load == 0 and _sleeps(state, policy, now_s):
        reason = f"no request for {policy.idle_timeout_s:g} s"
        state = replace(state, window=((now_s, 0),), panic_s=None)
        return _decided(_Wish(0, reason), state, policy, now_s)
    needed = _clamped(_needed(stats, state, policy), policy)
    window = _window(state.window, needed.replicas, policy.scale_down_delay_s, now_s)
    state = replace(state, window=window, panic_s=_panic_s(state, stats, policy, now_s))
    wish = _delayed(needed, window, policy)
    if state.panic_s is not None:
        wish = _panicking(wish, stats, state, policy)
    return _decided(_stepped(_clamped(wish, policy), state, policy, now_s), state, policy, now_s)


# --- looking --------------------------------------------------------------------------------


def _observed(state: State, stats: Stats, policy: Policy, now_s: float) -> State:
    """Time has passed: the averages grow by what was seen last, and starts that ended are measured."""
    elapsed_s = max(0.0, now_s - state.seen_s)
    risen = max(0, stats.ready - state.ready)
    start_s = state.start_s
    for began_s in state.starting_s[:risen]:
        took_s = max(0.0, now_s - began_s)
        start_s = took_s if start_s is None else start_s + (took_s - start_s) * START_WEIGHT
    waiting = stats.queued * _share(stats)
    # More than the ready replicas could work on besides is the backlog of a start, and soon gone.
    steady_load = stats.in_flight + min(waiting, stats.ready * policy.concurrency)
    steady = state.steady.after(elapsed_s, state.steady_load, MEAN_S)
    peak = steady.mean + (state.peak - steady.mean) * math.exp(-elapsed_s / PEAK_S)
    active_s = max(state.active_s, stats.last_request_s or -math.inf, now_s if stats.load else -math.inf)
    return replace(
        state,
        seen_s=max(now_s, state.seen_s),
        active_s=active_s,
        recent=state.recent.after(elapsed_s, state.load, PANIC_MEAN_S),
        steady=steady,
        load=stats.in_flight + waiting,
        steady_load=steady_load,
        peak=max(peak, state.steady_load),
        ready=stats.ready,
        starting_s=state.starting_s[risen:],
        start_s=start_s,
    )


def _share(stats: Stats) -> float:
    """How much of a slot a request that waits is worth."""
    return 1.0 if stats.service_s is None else min(1.0, stats.service_s / SHORT_S)


def _sleeps(state: State, policy: Policy, now_s: float) -> bool:
    return state.replicas == 0 or now_s - state.active_s >= policy.idle_timeout_s


# --- needs ----------------------------------------------------------------------------------


def _needed(stats: Stats, state: State, policy: Policy) -> _Wish:
    """What the load of now and of late needs, above the bounds or below."""
    mean = state.steady.mean
    enough = min(mean + policy.headroom * math.sqrt(mean), max(mean, state.peak))
    replicas = max(math.ceil(mean / policy.concurrency - TRIFLE), math.floor(enough / policy.concurrency + 0.5))
    wish = _Wish(replicas, f"the load was {mean:.3g} of late, and {enough:.3g} is to be expected at times")
    if stats.queued:
        queue = math.ceil((stats.in_flight + _left(stats, state, policy)) / policy.concurrency)
        if queue > wish.replicas:
            wish = _Wish(queue, _waiting(stats, policy))
    return wish


def _left(stats: Stats, state: State, policy: Policy) -> float:
    """Slots for what still waits when another replica could have started, or longer than it should."""
    if stats.service_s is None or state.start_s is None:
        return stats.queued * _share(stats)
    patience_s = min(state.start_s, PATIENCE_S_MAX, policy.queue_wait_target_s or math.inf)
    begun = stats.ready * policy.concurrency * patience_s / max(stats.service_s, 1e-6)
    return max(0.0, stats.queued - begun) * _share(stats)


def _waiting(stats: Stats, policy: Policy) -> str:
    requests = "1 request waits" if stats.queued == 1 else f"{stats.queued} requests wait"
    replicas = "1 replica" if stats.ready == 1 else f"{stats.ready} replicas"
    return f"{requests} for {replicas} of concurrency {policy.concurrency}"


# --- rules ----------------------------------------------------------------------------------


def _window(
    window: tuple[tuple[float, int], ...], needed: int, delay_s: float, now_s: float
) -> tuple[tuple[float, int], ...]:
    higher = tuple((at_s, replicas) for at_s, replicas in window if replicas > needed and now_s - at_s <= delay_s)
    return (*higher, (now_s, needed))


def _delayed(needed: _Wish, window: tuple[tuple[float, int], ...], policy: Policy) -> _Wish:
    highest = window[0][1]
    if highest == needed.replicas:
        return needed
    return _Wish(
        highest, f"{highest} were needed within the last {policy.scale_down_delay_s:g} s; now {needed.replicas}"
    )


def _panic_s(state: State, stats: Stats, policy: Policy, now_s: float) -> float | None:
    surge = max(state.recent.mean, stats.in_flight + _left(stats, state, policy))
    if surge >= PANIC_THRESHOLD * max(1, stats.ready) * policy.concurrency:
        return now_s
    if state.panic_s is not None and now_s - state.panic_s > PANIC_HOLD_S:
        return None
    return state.panic_s


def _panicking(wish: _Wish, stats: Stats, state: State, policy: Policy) -> _Wish:
    load = max(state.recent.mean, state.load)
    replicas = math.ceil(load * PANIC_GROWTH / policy.concurrency)
    if replicas > max(wish.replicas, state.replicas):
        why = _waiting(stats, policy) if stats.queued else f"the load rose to {load:.3g}"
        return _Wish(replicas, f"{why}: more than twice what is ready, and it may grow")
    if state.replicas > wish.replicas:
        return _Wish(state.replicas, f"kept: within {PANIC_HOLD_S:g} s the load was twice what was ready")
    return wish


def _clamped(wish: _Wish, policy: Policy) -> _Wish:
    """Between the bounds. The first replica runs until the idle timeout, also when the minimum is 0."""
    least = max(1, policy.minimum)
    if wish.replicas < least:
        reason = (
            f"at least {policy.minimum} at this time"
            if policy.minimum
            else f"{wish.reason}; the last one waits for the idle timeout"
        )
        return _Wish(least, reason)
    if wish.replicas > policy.maximum:
        return _Wish(policy.maximum, f"{wish.reason}; {wish.replicas} would be needed, {policy.maximum} is the most")
    return wish


def _stepped(wish: _Wish, state: State, policy: Policy, now_s: float) -> _Wish:
    """Down in steps; nothing else is held back."""
    if wish.replicas >= state.replicas or state.replicas > policy.maximum:
        return wish
    if now_s - state.stepped_s < STEP_S:
        return _Wish(state.replicas, f"{wish.reason}; the next step down comes soon")
    step = state.replicas - max(1, state.replicas // STEP_SHARE)
    return wish if wish.replicas >= step else _Wish(step, f"{wish.reason}; step by step")


def _decided(wish: _Wish, state: State, policy: Policy, now_s: float) -> tuple[Decision, State]:
    fewer = wish.replicas < state.replicas
    missing = max(0, wish.replicas - state.ready)
    since_s = state.starting_s[:missing]
    state = replace(
        state,
        replicas=wish.replicas,
        stepped_s=now_s if fewer else state.stepped_s,
        starting_s=since_s + (now_s,) * (missing - len(since_s)),
    )
    return Decision(wish.replicas, min(policy.minimum, wish.replicas), wish.reason), state
