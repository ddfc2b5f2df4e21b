"""The decider as timelines, and its promises for any load."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_gateway.autoscaling.deciding import (
    PANIC_HOLD_S,
    STEP_S,
    Average,
    Decision,
    State,
    Stats,
    begin,
    decide,
)
from penstock_gateway.autoscaling.policy import Policy

POLICY = Policy(minimum=0, maximum=16)


@dataclass
class Timeline:
    """An endpoint whose replicas start in `start_s`, looked at whenever a test says so."""

    policy: Policy = POLICY
    start_s: float = 5.0
    service_s: float | None = None
    now_s: float = 1000.0
    desired: int = 0
    ready: int = 0
    last_request_s: float | None = None
    starting: list[float] = field(default_factory=list)
    state: State | None = None
    decisions: list[Decision] = field(default_factory=list)

    def running(self, replicas: int) -> "Timeline":
        self.desired = self.ready = replicas
        return self

    def look(self, in_flight: int = 0, queued: int = 0) -> Decision:
        while self.starting and self.starting[0] <= self.now_s:
            self.starting.pop(0)
            self.ready += 1
        if in_flight or queued:
            self.last_request_s = self.now_s
        stats = Stats(in_flight, queued, self.ready, self.desired, self.last_request_s, self.service_s)
        decision, self.state = decide(stats, self.state or begin(stats, self.now_s), self.policy, self.now_s)
        self.desired = decision.replicas
        missing = decision.replicas - self.ready
        self.ready = min(self.ready, decision.replicas)
        self.starting = (self.starting + [self.now_s + self.start_s] * missing)[: max(0, missing)]
        self.decisions.append(decision)
        return decision

    def wait(self, seconds: float) -> "Timeline":
        self.now_s += seconds
        return self

    def watch(self, seconds: int, in_flight: int = 0, queued: int = 0) -> list[int]:
        """Looks once a second, at a load that stays; the replicas after each."""
        return [self.wait(1).look(in_flight, queued).replicas for _ in range(seconds)]

    def serve(self, seconds: int, load: int) -> list[int]:
        """The same at a load that is in flight as far as replicas are ready, and else waits."""
        found = []
        for _ in range(seconds):
            self.wait(1)
            slots = self.ready * self.policy.concurrency
            found.append(self.look(min(load, slots), max(0, load - slots)).replicas)
        return found


# --- up -------------------------------------------------------------------------------------


def test_a_queue_is_met_at_once_and_the_reason_says_so() -> None:
    line = Timeline().running(4)
    line.watch(60, in_flight=4)
    decision = line.look(4, 3)
    assert decision.replicas == 7
    assert decision.reason == "3 requests wait for 4 replicas of concurrency 1"


def test_a_load_of_twice_what_is_ready_is_met_with_room_to_grow() -> None:
    decision = Timeline().running(2).look(2, 8)
    assert decision.replicas == 15
    assert decision.reason == (
        "8 requests wait for 2 replicas of concurrency 1: more than twice what is ready, and it may grow"
    )


def test_slots_and_not_replicas_are_counted() -> None:
    line = Timeline(replace(POLICY, concurrency=4)).running(2)
    line.watch(60, in_flight=8)
    assert line.look(8, 1).replicas == 3
    assert line.look(8, 4).replicas == 3
    assert line.look(8, 5).replicas == 4


def test_a_thousand_requests_at_a_sleeping_endpoint_are_one_wake_up() -> None:
    line = Timeline(Policy(minimum=0, maximum=1))
    assert line.look().replicas == 0
    for queued in range(1, 1001):
        line.wait(0.001).look(0, queued)
    wakes = [later for earlier, later in pairwise(line.decisions) if later.replicas > earlier.replicas]
    assert [wake.replicas for wake in wakes] == [1]
    assert wakes[0].reason == "1 request waits for 0 replicas of concurrency 1"


def test_requests_that_are_short_share_the_slots_that_they_are_given() -> None:
    assert Timeline(service_s=10, policy=Policy(0, 64)).look(0, 40).replicas == 60
    assert Timeline(service_s=0.1, policy=Policy(0, 64)).look(0, 40).replicas == 3


def test_the_queue_does_not_count_what_is_begun_before_a_replica_could_start() -> None:
    line = Timeline(service_s=2, start_s=10)
    line.serve(20, 4)
    assert line.state is not None
    assert line.state.start_s == 10
    line.running(8).serve(60, 8)
    kept = line.desired
    assert line.look(8, 7).replicas == kept
    assert line.look(8, 200).replicas == 16


def test_a_queue_wait_target_counts_what_would_wait_longer() -> None:
    stats = Stats(in_flight=8, queued=7, ready=8, desired=8, service_s=2)
    state = replace(begin(stats, 0), start_s=10.0)
    patient, _ = decide(stats, state, POLICY, 1)
    strict, _ = decide(stats, state, replace(POLICY, queue_wait_target_s=0.5), 1)
    lenient, _ = decide(stats, state, replace(POLICY, queue_wait_target_s=60), 1)
    assert patient.replicas == lenient.replicas == 8
    assert strict.replicas == 8 + 5  # in half a second 8 replicas begin 2


def test_a_load_that_stays_gets_no_spare_replicas_and_one_that_varies_gets_some() -> None:
    assert Timeline().running(4).watch(300, in_flight=4)[-1] == 4
    uneven = Timeline().running(4)
    for _ in range(100):
        uneven.serve(2, 2)
        uneven.serve(2, 6)
    assert uneven.desired == 6


def test_one_caller_at_a_time_gets_one_replica() -> None:
    line = Timeline().running(1)
    for _ in range(100):
        line.watch(5, in_flight=1)
        line.watch(3)
    assert {decision.replicas for decision in line.decisions} == {1}


def test_a_load_that_falls_adds_nothing() -> None:
    line = Timeline().running(8)
    line.watch(300, in_flight=8)
    assert max(line.watch(300, in_flight=2)) == 8


def test_the_time_of_a_start_is_measured() -> None:
    line = Timeline(start_s=7)
    line.serve(20, 3)
    assert line.state is not None
    assert line.state.start_s == 7
    assert line.state.starting_s == ()


# --- down -----------------------------------------------------------------------------------


def test_a_lower_load_takes_replicas_away_after_the_delay_and_in_steps() -> None:
    line = Timeline(replace(POLICY, scale_down_delay_s=30)).running(8)
    line.watch(300, in_flight=8)
    after = line.watch(1200, in_flight=2)
    assert after[28] == 8
    falls = [earlier - later for earlier, later in pairwise(after) if later < earlier]
    assert max(falls) <= 2
    assert after[-1] == 2
    times = [at for at, (earlier, later) in enumerate(pairwise(after)) if later < earlier]
    assert all(later - earlier >= STEP_S for earlier, later in pairwise(times))


def test_nothing_is_taken_away_in_a_panic_and_for_a_minute_after() -> None:
    line = Timeline(replace(POLICY, scale_down_delay_s=0), start_s=1).running(1)
    assert line.look(1, 9).replicas == 15
    kept = line.watch(int(PANIC_HOLD_S), in_flight=1)
    assert set(kept) == {15}
    assert "twice what was ready" in line.decisions[-1].reason
    assert line.watch(200, in_flight=1)[-1] == 1


def test_a_panic_does_not_enter_the_delay() -> None:
    line = Timeline(replace(POLICY, scale_down_delay_s=3600), start_s=1).running(1)
    line.look(1, 9)
    assert line.watch(300, in_flight=1)[-1] < 15


def test_it_sleeps_exactly_after_the_idle_timeout() -> None:
    line = Timeline(replace(POLICY, idle_timeout_s=90)).running(1)
    line.look(1)
    assert set(line.watch(89)) == {1}
    assert line.wait(0.999).look().replicas == 1
    decision = line.wait(0.001).look()
    assert (decision.replicas, decision.reason) == (0, "no request for 90 s")
    assert line.watch(10)[-1] == 0


def test_a_request_between_two_looks_begins_the_idle_timeout_anew() -> None:
    line = Timeline(replace(POLICY, idle_timeout_s=10)).running(1)
    line.watch(9)
    line.last_request_s = line.now_s - 0.5
    assert line.watch(9) == [1] * 9
    assert line.watch(1) == [0]


def test_an_open_stream_is_load_for_as_long_as_it_is_open() -> None:
    line = Timeline(replace(POLICY, idle_timeout_s=10)).running(1)
    assert set(line.watch(1000, in_flight=1)) == {1}
    assert line.watch(10)[-2:] == [1, 0]


def test_with_a_minimum_it_never_sleeps() -> None:
    line = Timeline(Policy(minimum=2, maximum=4, idle_timeout_s=1, scale_down_delay_s=0)).running(2)
    assert set(line.watch(1000)) == {2}


def test_a_sleeping_endpoint_wakes_for_its_schedule_and_sleeps_after_it() -> None:
    line = Timeline()
    assert line.look().replicas == 0
    line.policy = replace(POLICY, minimum=3)
    assert (line.look().replicas, line.look().minimum) == (3, 3)
    assert line.look().reason == "at least 3 at this time"
    line.policy = POLICY
    assert line.wait(POLICY.idle_timeout_s).look().replicas == 0


def test_what_is_met_at_the_start_is_kept_for_the_delay() -> None:
    line = Timeline(replace(POLICY, scale_down_delay_s=60, idle_timeout_s=600)).running(6)
    line.last_request_s = 0.0
    assert line.look().replicas == 6
    assert set(line.watch(60)) == {6}
    assert line.watch(60)[-1] == 1


def test_a_replica_that_is_still_starting_is_met_as_well() -> None:
    line = Timeline()
    line.desired = 3
    assert line.look().replicas == 3


# --- unknown --------------------------------------------------------------------------------


def test_an_unknown_load_changes_nothing() -> None:
    line = Timeline().running(3)
    line.look(3)
    state = line.state
    assert state is not None
    decision, after = decide(None, state, replace(POLICY, minimum=9), 1e9)
    assert (decision.replicas, decision.minimum, decision.reason) == (3, 3, "kept: the load is not known")
    assert after is state


def test_an_average_forgets_and_counts_what_there_is_while_it_is_young() -> None:
    young = Average().after(1, 4, 60)
    assert young.mean == 4
    old = Average().after(1000, 4, 60).after(1000, 8, 60)
    assert abs(old.mean - 8) < 1e-6
    assert Average().after(0, 4, 60) == Average()


# --- promises -------------------------------------------------------------------------------

Look = tuple[float, int, int, int]
"""Seconds since the last look, in flight, queued, ready."""

LOOKS = st.lists(
    st.tuples(st.floats(0, 120), st.integers(0, 40), st.integers(0, 200), st.integers(0, 20)), min_size=1, max_size=60
)
POLICIES = st.builds(
    lambda least, more, concurrency, idle_s, delay_s, target_s: Policy(
        minimum=least,
        maximum=max(1, least + more),
        concurrency=concurrency,
        idle_timeout_s=idle_s,
        scale_down_delay_s=delay_s,
        queue_wait_target_s=target_s,
    ),
    st.integers(0, 8),
    st.integers(0, 56),
    st.integers(1, 8),
    st.floats(1, 600),
    st.floats(0, 300),
    st.none() | st.floats(0.01, 100),
)
SERVICE = st.none() | st.floats(0, 100)


def replay(looks: Iterable[Look], policy: Policy, service_s: float | None) -> tuple[list[Decision], list[State]]:
    now_s = 0.0
    state: State | None = None
    decisions: list[Decision] = []
    states: list[State] = []
    for passed_s, in_flight, queued, ready in looks:
        now_s += passed_s
        stats = Stats(in_flight, queued, ready, min(ready, policy.maximum), None, service_s)
        decision, state = decide(stats, state or begin(stats, now_s), policy, now_s)
        decisions.append(decision)
        states.append(state)
    return decisions, states


@given(LOOKS, POLICIES, SERVICE)
def test_the_bounds_always_hold_and_the_memory_is_bounded(
    looks: Sequence[Look], policy: Policy, service_s: float | None
) -> None:
    decisions, states = replay(looks, policy, service_s)
    for (_, in_flight, queued, _), decision, state in zip(looks, decisions, states, strict=True):
        assert policy.minimum <= decision.replicas <= policy.maximum
        assert decision.minimum == policy.minimum
        assert decision.replicas >= 1 or not in_flight + queued
        assert 0 < len(decision.reason) <= 500
        assert len(state.window) <= policy.maximum + 1
        assert len(state.starting_s) <= policy.maximum


@given(LOOKS, POLICIES, SERVICE)
def test_the_same_past_gives_the_same_decisions(looks: Sequence[Look], policy: Policy, service_s: float | None) -> None:
    assert replay(looks, policy, service_s) == replay(looks, policy, service_s)


@given(LOOKS, POLICIES, SERVICE, st.integers(0, 50), st.integers(0, 50))
def test_more_load_never_needs_fewer_replicas(
    looks: Sequence[Look], policy: Policy, service_s: float | None, more_in_flight: int, more_queued: int
) -> None:
    *before, (passed_s, in_flight, queued, ready) = looks
    more = (passed_s, in_flight + more_in_flight, queued + more_queued, ready)
    less_decisions, _ = replay(looks, policy, service_s)
    more_decisions, _ = replay([*before, more], policy, service_s)
    assert more_decisions[-1].replicas >= less_decisions[-1].replicas


@given(LOOKS, POLICIES, SERVICE)
def test_steps_down_are_small_and_apart_but_for_going_to_sleep(
    looks: Sequence[Look], policy: Policy, service_s: float | None
) -> None:
    decisions, states = replay(looks, policy, service_s)
    fell_s = -1e9
    for index in range(1, len(decisions)):
        earlier, later = states[index - 1], states[index]
        if later.replicas == 0 or later.replicas >= earlier.replicas or earlier.replicas > policy.maximum:
            continue
        assert earlier.replicas - later.replicas <= max(1, earlier.replicas // 4)
        assert later.seen_s - fell_s >= STEP_S
        assert later.panic_s is None
        fell_s = later.seen_s


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), POLICIES)
def test_a_load_that_stays_ends_at_one_number_of_replicas(load: int, concurrency: int, policy: Policy) -> None:
    line = Timeline(replace(policy, concurrency=concurrency), start_s=3, service_s=4).running(1)
    line.serve(1200, load)
    settled = line.serve(300, load)
    assert len(set(settled)) == 1
    assert settled[0] * concurrency >= min(load, policy.maximum * concurrency)
