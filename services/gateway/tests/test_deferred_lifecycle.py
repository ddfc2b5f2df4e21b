"""What becomes of an inference, what is known of all of them, and which gateways are alive."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_common.contracts.inference import InferenceResult, OpenInference, Parts, Webhook
from penstock_common.contracts.permissions import SERVICES, permissions
from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.board import Board
from penstock_gateway.deferred.budget import Budget
from penstock_gateway.deferred.following import Presence
from penstock_gateway.deferred.lifecycle import Again, End, Outcome, settle
from penstock_gateway.domain import REPLICA_LOST, REPLICA_TIMEOUT, Refusal

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PARTS = Parts(name="a", count=1, head_bytes=3, body_bytes=7)


def inference(number: int = 1, **changes: Any) -> OpenInference:
    fields: dict[str, Any] = {
        "inference_id": f"inf_{number:04}",
        "endpoint_id": "ep_1",
        "organization_id": "org_1",
        "key_id": "key_1",
        "method": "POST",
        "target": "/run",
        "url": f"https://iris.example/.inferences/inf_{number:04}",
        "created_at": AT,
        "request": PARTS,
        "repeatable": False,
    }
    return OpenInference(**{**fields, **changes})


# --- what becomes of an inference -------------------------------------------------------------

OVERLOADED = Refusal(503, "overloaded", "full")
NOT_RUNNING = Refusal(503, "not_running", "stopped")


@pytest.mark.parametrize(
    ("outcome", "state", "changes", "expected"),
    [
        (Outcome(refusal=OVERLOADED), "running", {}, "again"),
        (Outcome(refusal=NOT_RUNNING), "stopped", {}, "again"),
        (Outcome(refusal=NOT_RUNNING), "failed", {}, "not_running"),
        (Outcome(refusal=NOT_RUNNING), "terminating", {}, "not_running"),
        (Outcome(refusal=NOT_RUNNING), None, {}, "endpoint_gone"),
        (Outcome(refusal=Refusal(422, "invalid_body", "x")), "idle", {}, "invalid_body"),
        (Outcome(refusal=REPLICA_LOST, reached=True), "running", {}, "replica_lost"),
        (Outcome(refusal=REPLICA_LOST, reached=True), "running", {"repeatable": True, "attempts": 1}, "again"),
        (Outcome(refusal=REPLICA_LOST, reached=True), "running", {"repeatable": True, "attempts": 3}, "replica_lost"),
        (Outcome(refusal=REPLICA_TIMEOUT, reached=True), "running", {"repeatable": True}, "replica_timeout"),
        (Outcome(refusal=lifecycle.RAN_TOO_LONG, reached=True), "running", {"repeatable": True}, "ran_too_long"),
        (Outcome(result=InferenceResult(status=200, parts=PARTS), reached=True), "running", {}, "succeeded"),
        (Outcome(result=InferenceResult(status=302, parts=PARTS), reached=True), None, {}, "succeeded"),
        (Outcome(result=InferenceResult(status=500, parts=PARTS), reached=True), "running", {}, "endpoint_error"),
    ],
)
def test_what_follows_from_an_outcome(outcome: Outcome, state: Any, changes: dict[str, Any], expected: str) -> None:
    decided = settle(inference(**changes), outcome, state)
    if isinstance(decided, Again):
        assert expected == "again"
    else:
        assert expected == (decided.code or decided.state)
        assert decided.result == outcome.result


def test_what_may_have_run_runs_again_only_if_that_does_no_harm_and_not_for_ever() -> None:
    one = inference(repeatable=True)
    for attempt in range(1, lifecycle.ATTEMPTS_MAX + 1):
        one = lifecycle.running(one, "gw_1", AT)
        assert one.attempts == attempt
        decided = lifecycle.interrupted(one, lifecycle.GATEWAY_LOST)
        one = lifecycle.queued_again(one, sent=True)
    assert decided == lifecycle.GATEWAY_LOST
    assert lifecycle.interrupted(lifecycle.running(inference(), "gw_1", AT), lifecycle.GATEWAY_LOST) == decided
    # One that was marked and not sent has not run.
    assert lifecycle.queued_again(lifecycle.running(inference(), "gw_1", AT), sent=False) == inference()


def test_a_webhook_is_tried_at_the_stated_times_and_then_no_more() -> None:
    webhook = Webhook(url="https://example.com/")
    waits = []
    now = AT
    while True:
        webhook = lifecycle.notified(webhook, "it answered 500", final=False, now=now, chance=0)
        if webhook.next_at is None:
            break
        waits.append((webhook.next_at - now).total_seconds())
        now = webhook.next_at
    assert waits == list(lifecycle.WEBHOOK_WAITS_S)
    assert now - AT < timedelta(hours=24)
    assert lifecycle.notified(webhook, "", final=False, now=now, chance=0).problem == ""
    late = lifecycle.notified(Webhook(url="x"), "no", final=False, now=AT, chance=1)
    assert late.next_at == AT + timedelta(seconds=6)


def test_the_status_says_how_long_it_waited_and_ran_and_how_long_it_is_kept() -> None:
    now = AT + timedelta(seconds=2)
    said = lifecycle.status(inference(), now=now, retention_s=60)
    assert (said["state"], said["queue_s"], said["run_s"], said["expires_at"]) == ("queued", 2.0, None, None)
    running = lifecycle.running(inference(), "gw_1", now)
    said = lifecycle.status(running, now=now + timedelta(seconds=3), retention_s=60)
    assert (said["state"], said["queue_s"], said["run_s"]) == ("running", 2.0, 3.0)
    result = InferenceResult(status=200, content_type="a/b", parts=PARTS)
    ended = now + timedelta(seconds=5)
    finished = lifecycle.finished(running, End("succeeded", result=result), now=ended, retention_s=60)
    said = lifecycle.status(finished, now=ended + timedelta(hours=1), retention_s=60)
    assert (said["queue_s"], said["run_s"]) == (2.0, 5.0)
    assert (said["finished_at"], said["expires_at"]) == ("2026-03-01T12:00:07.250Z", "2026-03-01T12:01:07.250Z")
    assert said["result"] == {"url": f"{running.url}/result", "status": 200, "content_type": "a/b", "bytes": 7}
    # Neither who asked nor what is only ours.
    assert not {"key_id", "organization_id", "gateway_id", "request"} & set(said)


# --- the board --------------------------------------------------------------------------------


def test_changes_may_come_twice_and_out_of_order() -> None:
    board = Board()
    heard: list[tuple[str, str | None]] = []
    board.listeners.append(lambda key, tracked: heard.append((key, tracked and tracked.inference.state)))
    queued, running = inference(), lifecycle.running(inference(), "gw_1", AT)
    board.put(queued, 5)
    board.put(running, 7)
    board.put(queued, 5)
    board.put(running, 7)
    assert (board.unfinished("ep_1"), board.waited_for()) == (1, [])
    board.remove("inf_0001", 6)
    assert board.get("inf_0001") == (running, 7)
    board.remove("inf_0001", 9)
    board.put(running, 7)
    board.remove("inf_0001", 9)
    assert (len(board), board.unfinished("ep_1"), board.unfinished_of("org_1")) == (0, 0, 0)
    assert heard == [("inf_0001", "queued"), ("inf_0001", "running"), ("inf_0001", None)]


def test_a_snapshot_takes_away_what_is_no_longer_there_and_nothing_newer() -> None:
    board = Board()
    for number, revision in ((1, 10), (2, 11), (3, 50)):
        board.put(inference(number), revision)
    board.keep_only({"inf_0001"}, before=20)
    assert sorted(tracked.inference.inference_id for tracked in board) == ["inf_0001", "inf_0003"]
    assert board.complete


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["queued", "running", "notifying", None])), max_size=40))
def test_the_counts_are_those_of_what_is_there(changes: list[tuple[int, Any]]) -> None:
    board = Board()
    for revision, (number, state) in enumerate(changes, 1):
        if state is None:
            board.remove(f"inf_{number:04}", revision)
        else:
            board.put(inference(number, state=state), revision)
    states = [tracked.inference.state for tracked in board]
    unfinished = len(states) - states.count("notifying")
    assert (board.unfinished("ep_1"), board.unfinished_of("org_1")) == (unfinished, unfinished)
    waiting = [tracked.inference.inference_id for tracked in board.queued("ep_1", 9)]
    assert waiting == sorted(waiting)
    assert len(waiting) == states.count("queued")
    assert board.waited_for() == (["ep_1"] if waiting else [])


async def test_who_waits_for_an_end_is_told_of_it_and_not_of_what_comes_before() -> None:
    board = Board()
    board.put(inference(), 1)
    waiting = asyncio.ensure_future(board.finished("inf_0001", 60))
    assert not await board.finished("inf_0001", 0)
    board.put(lifecycle.running(inference(), "gw_1", AT), 2)
    await asyncio.sleep(0)
    assert not waiting.done()
    board.put(inference(state="notifying"), 3)
    assert await waiting
    assert await board.finished("inf_0001", 0)


# --- memory, and who is alive -----------------------------------------------------------------


async def test_memory_is_given_in_order_and_never_more_than_there_is() -> None:
    budget = Budget(10)
    assert budget.take_now(6)
    assert not budget.take_now(5)
    large, small = asyncio.ensure_future(budget.take(99)), asyncio.ensure_future(budget.take(1))
    await asyncio.sleep(0)
    # Nobody overtakes, or the largest would wait for ever.
    assert not budget.take_now(1)
    budget.give(6)
    assert await large == 10
    assert not small.done()
    small.cancel()
    await asyncio.gather(small, return_exceptions=True)
    budget.give(10)
    assert budget.take_now(10)


def test_a_gateway_is_lost_when_only_it_is_silent() -> None:
    presence = Presence("gw_1", lost_after_s=10)
    assert not presence.lost("gw_2", 0)  # we do not even hear ourselves
    presence.heard("gw_1", 100)
    assert not presence.lost("gw_2", 100)
    for now_s in range(102, 112, 2):
        presence.heard("gw_1", now_s)
        if now_s < 106:
            presence.heard("gw_2", now_s)
    assert not presence.lost("gw_2", 111)  # last heard at 104
    presence.heard("gw_1", 114)
    assert presence.lost("gw_2", 115)
    assert not presence.lost("gw_1", 115)


def test_when_nothing_was_heard_at_all_everybody_gets_their_time_again() -> None:
    presence = Presence("gw_1", lost_after_s=10)
    presence.heard("gw_1", 100)
    presence.heard("gw_2", 100)
    assert not presence.lost("gw_2", 150)  # NATS is away
    presence.heard("gw_1", 150)
    assert not presence.lost("gw_2", 151)
    for now_s in range(152, 164, 2):
        presence.heard("gw_1", now_s)
    assert presence.lost("gw_2", 162)


def test_one_that_said_goodbye_is_not_waited_for() -> None:
    presence = Presence("gw_1", lost_after_s=10)
    presence.heard("gw_1", 100)
    presence.heard("gw_2", 100)
    presence.said_goodbye("gw_2")
    assert presence.lost("gw_2", 100)


def test_only_the_gateway_touches_what_is_kept() -> None:
    for service in SERVICES:
        own = permissions(service)
        if service != "gateway":
            touching = [subject for subject in (*own.publish, *own.subscribe) if "inference" in subject.lower()]
            # The api makes streams that are missing, and nothing else.
            made = ("$JS.API.STREAM.INFO.", "$JS.API.STREAM.CREATE.")
            assert all(subject.startswith(made) for subject in touching), touching
            assert service == "api" or not touching
