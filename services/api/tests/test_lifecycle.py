"""What users may ask for, and how facts change what they see."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_api.domain import timeline
from penstock_api.domain.lifecycle import (
    ENDPOINT_FACTS,
    SCALINGS_KEPT,
    STATES,
    Action,
    EndpointStatus,
    ReplicaStatus,
    Wanted,
    after_endpoint_fact,
    after_replica_fact,
    after_request,
    desired_replicas,
    must_ask,
)
from penstock_api.domain.problems import Problem
from penstock_common.contracts import events as facts
from penstock_common.contracts.endpoint import EndpointState

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def endpoint_fact(kind: type[facts.EndpointFact], version: int, **fields: Any) -> Any:
    extra = {
        facts.EndpointQueued: {"position": 1},
        facts.EndpointRunning: {"ready_replicas": 1},
        facts.EndpointScaled: {"desired_replicas": 2, "ready_replicas": 1},
    }.get(kind, {})
    common = {"endpoint_id": "ep_1", "organization_id": "org_1", "version": version, "at": AT}
    return kind(**{**common, **extra, **fields})


def replica_fact(kind: type[facts.ReplicaFact], version: int, **fields: Any) -> Any:
    extra: dict[str, object] = {
        facts.ReplicaScheduled: {"gpu_type": "RTX 4090", "gpu_uuids": ("GPU-1",)},
        facts.ReplicaProgressed: {"phase": "installing", "detail": "14 packages"},
        facts.ReplicaStarted: {"gpu_type": None, "gpu_count": 0, "cpu_cores": 1},
        facts.ReplicaEnded: {"cause": "crashed", "exit_code": 1, "was_ready": True},
    }[kind]  # type: ignore[index]
    common = {
        "endpoint_id": "ep_1",
        "organization_id": "org_1",
        "workspace_id": "ws_1",
        "replica_id": "rep_1",
        "host_id": "host-1",
        "generation": 1,
        "version": version,
        "at": AT + timedelta(seconds=version),
    }
    return kind(**{**common, **extra, **fields})


# --- what may be asked ----------------------------------------------------------------------

ASK, NOTHING, REFUSED = "ask", "nothing", "refused"


@pytest.mark.parametrize(
    ("state", "wanted", "stop", "restart", "terminate"),
    [
        ("queued", "running", ASK, NOTHING, ASK),
        ("starting", "running", ASK, NOTHING, ASK),
        ("running", "running", ASK, REFUSED, ASK),
        ("idle", "running", ASK, ASK, ASK),
        ("stopping", "stopped", NOTHING, REFUSED, ASK),
        ("stopped", "stopped", NOTHING, ASK, ASK),
        ("failed", "running", REFUSED, REFUSED, ASK),
        ("failed", "stopped", REFUSED, REFUSED, ASK),
        ("terminating", "terminated", REFUSED, REFUSED, NOTHING),
        ("terminated", "terminated", REFUSED, REFUSED, NOTHING),
        ("terminated", "stopped", REFUSED, REFUSED, NOTHING),
    ],
)
def test_what_may_be_asked_in_each_state(
    state: EndpointState, wanted: Wanted, stop: str, restart: str, terminate: str
) -> None:
    actions: tuple[Action, ...] = ("stop", "restart", "terminate")
    for action, expected in zip(actions, (stop, restart, terminate), strict=True):
        if expected == REFUSED:
            with pytest.raises(Problem) as refused:
                must_ask(action, state, wanted)
            assert refused.value.kind.status == 409
            assert ":" in refused.value.detail  # why: what to do
        else:
            assert must_ask(action, state, wanted) == (expected == ASK)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ["stop", "restart", "terminate"])
def test_a_granted_request_may_be_sent_again_and_asks_nothing(action: Action, state: EndpointState) -> None:
    for wanted in ("running", "stopped", "terminated"):
        status = EndpointStatus(state=state, wanted=wanted)
        try:
            asked = must_ask(action, status.state, status.wanted)
        except Problem:
            continue
        if asked:
            after = after_request(action, status)
            assert must_ask(action, after.state, after.wanted) is False


# --- endpoint facts -------------------------------------------------------------------------


def test_the_newest_fact_is_what_is_shown() -> None:
    status = EndpointStatus(state="queued", wanted="running")
    status = after_endpoint_fact(status, endpoint_fact(facts.EndpointQueued, 1, position=2, reason="busy")) or status
    assert (status.state, status.position, status.reason) == ("queued", 2, "busy")

    status = after_endpoint_fact(status, endpoint_fact(facts.EndpointRunning, 2)) or status
    assert (status.state, status.position, status.started_at) == ("running", None, AT)


def test_a_fact_that_is_not_newer_changes_nothing() -> None:
    status = EndpointStatus(state="running", wanted="running", version=5)

    assert after_endpoint_fact(status, endpoint_fact(facts.EndpointQueued, 5)) is None
    assert after_endpoint_fact(status, endpoint_fact(facts.EndpointQueued, 4)) is None


def test_running_again_without_a_pause_keeps_the_time_it_started() -> None:
    status = EndpointStatus(state="running", wanted="running", version=1, started_at=AT)

    changed = after_endpoint_fact(status, endpoint_fact(facts.EndpointRunning, 2, at=AT + timedelta(hours=1)))

    assert changed is not None
    assert changed.started_at == AT


def test_the_log_tail_is_kept_while_failed_and_no_longer() -> None:
    status = EndpointStatus(state="starting", wanted="running")
    failed = after_endpoint_fact(status, endpoint_fact(facts.EndpointFailed, 1, reason="why", log_tail="Traceback"))
    assert failed is not None
    assert (failed.state, failed.reason, failed.log_tail) == ("failed", "why", "Traceback")

    gone = after_endpoint_fact(failed, endpoint_fact(facts.EndpointTerminated, 2))
    assert gone is not None
    assert gone.log_tail == ""


def test_facts_from_before_a_stop_do_not_show_it_as_refused() -> None:
    status = after_request("stop", EndpointStatus(state="starting", wanted="running", version=3))

    late = after_endpoint_fact(status, endpoint_fact(facts.EndpointRunning, 4))
    assert late is not None
    assert (late.state, late.version) == ("stopping", 4)

    stopped = after_endpoint_fact(late, endpoint_fact(facts.EndpointStopped, 5))
    assert stopped is not None
    assert stopped.state == "stopped"


def test_a_failure_before_a_termination_shows_as_terminating() -> None:
    status = after_request("terminate", EndpointStatus(state="running", wanted="running", version=3))

    late = after_endpoint_fact(status, endpoint_fact(facts.EndpointFailed, 4, reason="crashed"))

    assert late is not None
    assert late.state == "terminating"


@given(st.lists(st.sampled_from(ENDPOINT_FACTS), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_whatever_the_order_and_the_repeats_the_last_version_wins(
    kinds: list[type[facts.EndpointFact]], order: random.Random
) -> None:
    history = [endpoint_fact(kind, version) for version, kind in enumerate(kinds, start=1)]
    shuffled = history * 2
    order.shuffle(shuffled)
    start = EndpointStatus(state="queued", wanted="running")

    status = start
    for fact in shuffled:
        status = after_endpoint_fact(status, fact) or status

    in_order = start
    for fact in history:
        in_order = after_endpoint_fact(in_order, fact) or in_order
    assert (status.state, status.version) == (in_order.state, in_order.version)


# --- how many replicas ------------------------------------------------------------------------


def after_all(status: EndpointStatus, *history: facts.EndpointFact) -> EndpointStatus:
    for fact in history:
        status = after_endpoint_fact(status, fact) or status
    return status


def test_a_scaling_changes_the_number_of_replicas_and_nothing_else() -> None:
    status = EndpointStatus(state="queued", wanted="running", version=3, reason="busy", position=2)
    assert desired_replicas(status, 0) == 1  # until the scheduler says otherwise, the first
    assert desired_replicas(status, 4) == 4

    seen = after_all(status, endpoint_fact(facts.EndpointScaled, 4, desired_replicas=3, reason="8 requests wait"))

    assert desired_replicas(seen, 0) == 3
    assert (seen.state, seen.reason, seen.position) == ("queued", "busy", 2)
    assert [(scaling.desired_replicas, scaling.reason) for scaling in seen.scalings] == [(3, "8 requests wait")]


def test_a_scaling_that_overtakes_a_state_does_not_hide_it() -> None:
    start = EndpointStatus(state="starting", wanted="running")

    seen = after_all(start, endpoint_fact(facts.EndpointScaled, 6), endpoint_fact(facts.EndpointRunning, 5))

    assert (seen.state, desired_replicas(seen, 1)) == ("running", 2)
    assert after_endpoint_fact(seen, endpoint_fact(facts.EndpointScaled, 6)) is None


def test_an_idle_endpoint_has_no_replicas_until_it_is_woken() -> None:
    later = AT + timedelta(minutes=1)
    running = EndpointStatus(state="running", wanted="running", version=1, desired_replicas=2, scaled_version=1)

    idle = after_all(running, endpoint_fact(facts.EndpointIdle, 2), endpoint_fact(facts.EndpointIdle, 3, at=later))
    assert (idle.idle_since, desired_replicas(idle, 0)) == (AT, 0)
    late = after_all(idle, endpoint_fact(facts.EndpointScaled, 1, desired_replicas=5))
    assert desired_replicas(late, 0) == 0

    woken = after_all(idle, endpoint_fact(facts.EndpointScaled, 4, desired_replicas=1, reason="a request came"))
    assert desired_replicas(woken, 0) == 1
    restarted = after_request("restart", idle)
    assert (restarted.idle_since, desired_replicas(restarted, 0)) == (None, 1)
    starting = after_all(woken, endpoint_fact(facts.EndpointStarting, 5))
    assert (starting.idle_since, desired_replicas(starting, 0)) == (None, 1)
    stopping = after_request("stop", idle)
    assert (stopping.idle_since, desired_replicas(stopping, 0)) == (None, 0)


def test_only_the_last_decisions_are_shown() -> None:
    many = [endpoint_fact(facts.EndpointScaled, version, reason=str(version)) for version in range(1, 30)]

    seen = after_all(EndpointStatus(state="running", wanted="running"), *many)

    assert [scaling.reason for scaling in seen.scalings] == [str(n) for n in range(30 - SCALINGS_KEPT, 30)]


def test_after_a_restart_the_number_of_the_last_run_is_forgotten() -> None:
    stopped = after_all(
        EndpointStatus(state="running", wanted="stopped"),
        endpoint_fact(facts.EndpointScaled, 1, desired_replicas=9),
        endpoint_fact(facts.EndpointStopped, 2),
    )
    assert desired_replicas(stopped, 1) == 0
    assert desired_replicas(after_request("restart", stopped), 1) == 1


# --- replica facts --------------------------------------------------------------------------


def apply_all(*history: facts.ReplicaFact) -> ReplicaStatus:
    known: ReplicaStatus | None = None
    for fact in history:
        known = after_replica_fact(known, fact) or known
    assert known is not None
    return known


def test_a_replica_goes_through_its_steps() -> None:
    scheduled = replica_fact(facts.ReplicaScheduled, 1)
    progressed = replica_fact(facts.ReplicaProgressed, 2)
    started = replica_fact(facts.ReplicaStarted, 3)
    ended = replica_fact(facts.ReplicaEnded, 4)

    assert apply_all(scheduled).phase == "scheduled"
    assert apply_all(scheduled, progressed).phase == "installing"
    assert apply_all(scheduled, progressed, started).ready_at == started.at
    whole = apply_all(scheduled, progressed, started, ended)
    assert (whole.phase, whole.ended_at, whole.gpu_uuids) == ("ended", ended.at, ("GPU-1",))


def test_a_late_scheduling_fact_still_says_which_gpus() -> None:
    started = replica_fact(facts.ReplicaStarted, 3)

    known = apply_all(started, replica_fact(facts.ReplicaScheduled, 1))

    assert (known.phase, known.gpu_uuids, known.version) == ("ready", ("GPU-1",), 3)
    assert after_replica_fact(known, replica_fact(facts.ReplicaScheduled, 1)) is None


def test_an_ended_replica_does_not_come_back() -> None:
    ended = apply_all(replica_fact(facts.ReplicaEnded, 4))

    assert after_replica_fact(ended, replica_fact(facts.ReplicaStarted, 3)) is None
    assert after_replica_fact(ended, replica_fact(facts.ReplicaEnded, 4)) is None


# --- the history ----------------------------------------------------------------------------


def story(*told: facts.EndpointFact | facts.ReplicaFact, state: EndpointState, ready: int = 0) -> list[tuple[str, str]]:
    """Phase and message of each, told of an endpoint that was in `state`."""
    status = EndpointStatus(state=state, wanted="running")
    seen = []
    for fact in told:
        if isinstance(fact, facts.EndpointFact):
            seen.append(timeline.of_endpoint_fact(fact, status.state))
            status = after_endpoint_fact(status, fact) or status
        else:
            seen.append(timeline.of_replica_fact(fact, status.state, ready))
    return [(entry.phase, entry.message) for entry in seen]


def test_phases_have_the_names_and_the_order_that_users_see() -> None:
    seen = story(
        endpoint_fact(facts.EndpointStarting, 1),
        replica_fact(facts.ReplicaScheduled, 2),
        replica_fact(facts.ReplicaProgressed, 3, phase="fetching"),
        replica_fact(facts.ReplicaProgressed, 4, phase="installing"),
        replica_fact(facts.ReplicaProgressed, 5, phase="starting"),
        replica_fact(facts.ReplicaStarted, 6),
        endpoint_fact(facts.EndpointRunning, 7),
        state="queued",
    )

    phases = [timeline.created(AT, "Ada").phase, *(phase for phase, _ in seen)]
    assert list(dict.fromkeys(phases)) == [
        "queued",
        "scheduled",
        "fetching source",
        "installing",
        "starting",
        "running",
    ]
    assert all(message for _, message in seen)


def test_types_are_the_names_of_facts() -> None:
    assert (
        timeline.of_replica_fact(replica_fact(facts.ReplicaProgressed, 1), "starting", 0).type == "replica.progressed"
    )
    assert timeline.of_endpoint_fact(endpoint_fact(facts.EndpointScaled, 1), "running").type == "endpoint.scaled"


def test_a_waiting_endpoint_says_its_position() -> None:
    queued = endpoint_fact(facts.EndpointQueued, 1, position=3, reason="Needs 2 × A100.")

    assert story(queued, state="queued") == [("queued", "Needs 2 × A100. (position 3 in the queue)")]


@pytest.mark.parametrize("kind", ENDPOINT_FACTS)
def test_every_endpoint_fact_has_words(kind: type[facts.EndpointFact]) -> None:
    [(phase, message)] = story(endpoint_fact(kind, 1), state="running")

    assert phase
    assert message


def test_a_crash_is_no_good_news_and_the_wait_after_it_is_no_host_that_was_found() -> None:
    seen = story(
        replica_fact(facts.ReplicaEnded, 1, detail="ValueError"),
        endpoint_fact(facts.EndpointStarting, 2, reason="waits 10 s, because it crashed"),
        endpoint_fact(facts.EndpointStarting, 3, reason="starting on host-1, attempt 2 of 3"),
        replica_fact(facts.ReplicaScheduled, 4, generation=2),
        state="running",
    )

    assert seen == [
        ("starting", "Replica 1 crashed (exit code 1): ValueError"),
        ("starting", "waits 10 s, because it crashed"),
        ("starting", "starting on host-1, attempt 2 of 3"),
        ("scheduled", "Replica 2 goes to host host-1 with 1 × RTX 4090."),
    ]


def test_while_others_serve_an_endpoint_goes_on_running_whatever_becomes_of_one() -> None:
    seen = story(
        endpoint_fact(facts.EndpointScaled, 1, desired_replicas=3, ready_replicas=2, reason="8 requests wait"),
        replica_fact(facts.ReplicaScheduled, 2),
        replica_fact(facts.ReplicaProgressed, 3),
        replica_fact(facts.ReplicaEnded, 4, cause="out_of_memory", exit_code=None),
        endpoint_fact(
            facts.EndpointRunning, 5, ready_replicas=2, reason="starting again, because it ran out of memory"
        ),
        endpoint_fact(facts.EndpointScaled, 6, desired_replicas=1, ready_replicas=2),
        state="running",
        ready=2,
    )

    assert {phase for phase, _ in seen} == {"running"}
    assert seen[0][1] == "3 replicas wanted, 2 ready: 8 requests wait."
    assert seen[4][1] == "starting again, because it ran out of memory"
    assert seen[5][1] == "1 replica wanted, 2 ready."


def test_a_replica_that_was_told_to_stop_is_no_loss() -> None:
    stopped = replica_fact(facts.ReplicaEnded, 1, cause="stopped", exit_code=0)

    states: tuple[EndpointState, ...] = ("running", "idle", "stopping")
    for state in states:
        assert story(stopped, state=state) == [(state, "Replica 1 was stopped (exit code 0).")]


def test_waking_finds_a_host_as_a_first_start_does() -> None:
    assert story(endpoint_fact(facts.EndpointStarting, 1), state="idle")[0][0] == "scheduled"
