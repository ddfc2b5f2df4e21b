"""What to do about what is wanted and what is known."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_common.contracts.endpoint import PinnedSource, Resources, RouteSpec
from penstock_common.contracts.records import Assignment
from penstock_provisioner.domain import Ending, Instance, Replica
from penstock_provisioner.reconciling import FORGET_AFTER_BEATS, STOP_AFTER_ABSENT_S, Begin, Forget, Known, Stop, plan

HOST = "host-1"


def assignment(replica_id: str = "rep_1", host_id: str = HOST, **fields: Any) -> Assignment:
    return Assignment(
        host_id=host_id,
        replica_id=replica_id,
        endpoint_id="ep_1",
        organization_id="org_1",
        workspace="default",
        endpoint="iris",
        generation=fields.pop("generation", 1),
        source=PinnedSource(uri="https://example.org/m.git", ref="main", commit="0" * 40, requirements=""),
        routes=(RouteSpec(path="/p", file="p", function="p"),),
        gpu_uuids=(),
        resources=Resources(),
        concurrency=1,
    )


def replica(replica_id: str = "rep_1", phase: str = "ready") -> Replica:
    new = Replica(assignment(replica_id))
    if phase in ("failed", "stopped"):
        return new.ended(Ending(phase, "stopped"))  # type: ignore[arg-type]
    return new.reported(phase)  # type: ignore[arg-type]


def test_what_is_wanted_and_unknown_begins() -> None:
    assert plan(HOST, [assignment()], {}) == (Begin(assignment(), "assigned to this host"),)


def test_what_is_wanted_and_known_is_left_alone() -> None:
    for phase in ("fetching", "ready", "failed", "stopped"):
        assert plan(HOST, [assignment()], {"rep_1": Known(replica(phase=phase))}) == ()


def test_what_is_no_longer_wanted_stops_once() -> None:
    gone = Known(replica(), absent_s=STOP_AFTER_ABSENT_S)
    assert plan(HOST, [], {"rep_1": gone}) == (Stop("rep_1", "no longer assigned to this host"),)
    assert plan(HOST, [], {"rep_1": replace(gone, stopping=True)}) == ()


def test_what_is_missing_for_a_moment_only_goes_on() -> None:
    assert plan(HOST, [], {"rep_1": Known(replica(), absent_s=STOP_AFTER_ABSENT_S / 2)}) == ()


@pytest.mark.parametrize("phase", ["failed", "stopped"])
def test_what_ended_is_forgotten_after_its_end_was_in_enough_heartbeats(phase: str) -> None:
    ended = replica(phase=phase)
    assert plan(HOST, [], {"rep_1": Known(ended, beats=FORGET_AFTER_BEATS - 1)}) == ()
    assert plan(HOST, [], {"rep_1": Known(ended, beats=FORGET_AFTER_BEATS)}) == (
        Forget("rep_1", "its end was in 5 heartbeats"),
    )


def test_nothing_is_done_while_it_is_not_known_what_is_wanted() -> None:
    known = {"rep_1": Known(replica()), "rep_2": Known(replica("rep_2", "stopped"), beats=99)}
    assert plan(HOST, None, known) == ()


def test_an_assignment_of_another_host_is_none_of_ours() -> None:
    assert plan(HOST, [assignment(host_id="host-2")], {}) == ()


@given(
    st.sets(st.integers(0, 6)),
    st.dictionaries(
        st.integers(0, 6),
        st.tuples(st.sampled_from(["fetching", "starting", "ready", "failed", "stopped"]), st.booleans()),
    ),
)
def test_carrying_out_the_plan_leads_to_what_is_wanted(wanted: set[int], known: dict[int, tuple[str, bool]]) -> None:
    assignments = [assignment(f"rep_{number}") for number in wanted]
    state = {
        f"rep_{number}": Known(
            replica(f"rep_{number}", phase), stopping, absent_s=STOP_AFTER_ABSENT_S, beats=FORGET_AFTER_BEATS
        )
        for number, (phase, stopping) in known.items()
    }
    for _ in range(3):
        for action in plan(HOST, assignments, state):
            match action:
                case Begin(begun):
                    assert begun.replica_id not in state
                    state[begun.replica_id] = Known(Replica(begun))
                case Stop(replica_id):
                    state[replica_id] = Known(replica(replica_id, "stopped"), beats=FORGET_AFTER_BEATS)
                case Forget(replica_id):
                    assert state.pop(replica_id).replica.is_final
    still_stopping = {replica_id for replica_id, one in state.items() if one.stopping}
    assert set(state) - still_stopping <= {one.replica_id for one in assignments}
    assert {one.replica_id for one in assignments} <= set(state)
    assert plan(HOST, assignments, state) == ()


def test_reports_of_one_replica_are_numbered_and_end_once() -> None:
    new = replica(phase="fetching").started(Instance("1/2/3/", "127.0.0.1:80"))
    ready = new.reported("ready", address="127.0.0.1:80")
    ended = ready.ended(Ending("failed", "crashed", "it broke", 9, "tail"))
    assert [one.report.sequence for one in (new, ready, ended) if one.report] == [1, 2, 3]
    assert ready.report is not None
    assert ready.report.address == "127.0.0.1:80"
    assert ended.report is not None
    assert (ended.report.cause, ended.report.exit_code, ended.report.log_tail) == ("crashed", 9, "tail")
    assert ended.report.address is None
    assert ended.is_final
    assert not ready.is_final
