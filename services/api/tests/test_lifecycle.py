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
    STATES,
    Action,
    EndpointStatus,
    ReplicaStatus,
    Wanted,
    after_endpoint_fact,
    after_replica_fact,
    after_request,
    must_ask,
)
from penstock_api.domain.problems import Problem
from penstock_common.contracts import events as facts
from penstock_common.contracts.endpoint import EndpointState

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def endpoint_fact(kind: type[facts.EndpointFact], version: int, **fields: Any) -> Any:
    extra = {facts.EndpointQueued: {"position": 1}, facts.EndpointRunning: {"ready_replicas": 1}}.get(kind, {})
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
        ("running", "running", ASK, NOTHING, ASK),
        ("idle", "running", ASK, NOTHING, ASK),
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

    only_last = after_endpoint_fact(start, history[-1])
    assert only_last is not None
    assert (status.state, status.version) == (only_last.state, only_last.version)


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


def test_phases_have_the_names_and_the_order_that_users_see() -> None:
    seen = [
        timeline.created(AT, "Ada"),
        timeline.of_replica_fact(replica_fact(facts.ReplicaScheduled, 1), "starting"),
        timeline.of_endpoint_fact(endpoint_fact(facts.EndpointStarting, 2)),
        timeline.of_replica_fact(replica_fact(facts.ReplicaProgressed, 3, phase="fetching"), "starting"),
        timeline.of_replica_fact(replica_fact(facts.ReplicaProgressed, 4, phase="installing"), "starting"),
        timeline.of_replica_fact(replica_fact(facts.ReplicaProgressed, 5, phase="starting"), "starting"),
        timeline.of_replica_fact(replica_fact(facts.ReplicaStarted, 6), "starting"),
        timeline.of_endpoint_fact(endpoint_fact(facts.EndpointRunning, 7)),
    ]

    assert list(dict.fromkeys(entry.phase for entry in seen)) == [
        "queued",
        "scheduled",
        "fetching source",
        "installing",
        "starting",
        "running",
    ]
    assert seen[3].type == "replica.progressed"
    assert seen[7].type == "endpoint.running"
    assert all(entry.message for entry in seen)


def test_a_waiting_endpoint_says_its_position() -> None:
    entry = timeline.of_endpoint_fact(endpoint_fact(facts.EndpointQueued, 1, position=3, reason="Needs 2 × A100."))

    assert entry.message == "Needs 2 × A100. (position 3 in the queue)"


@pytest.mark.parametrize("kind", ENDPOINT_FACTS)
def test_every_endpoint_fact_has_words(kind: type[facts.EndpointFact]) -> None:
    assert timeline.of_endpoint_fact(endpoint_fact(kind, 1)).message


def test_the_end_of_a_replica_names_the_cause_and_keeps_the_endpoints_phase() -> None:
    entry = timeline.of_replica_fact(replica_fact(facts.ReplicaEnded, 1, detail="ValueError"), "running")

    assert (entry.phase, entry.message) == ("running", "Replica 1 crashed (exit code 1): ValueError")
