"""What a refused caller is told."""

import pytest

from penstock_gateway.domain import QueueView, not_running, overloaded, ping_refused, retry_after_s

from .plane import route


def view(**changes: object) -> QueueView:
    fields: dict[str, object] = {
        "waiting": 9,
        "limit": 10,
        "timeout_s": 30,
        "replicas": 2,
        "slots": 2,
        "ejected": 0,
        "service_s": 1.0,
    }
    return QueueView(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 5),
        ({"waiting": 0, "service_s": 0.001}, 1),
        ({"service_s": 0.5, "slots": 1, "waiting": 99}, 50),
        ({"service_s": 1e9}, 3600),
        ({"service_s": None}, None),
        ({"slots": 0}, None),
    ],
)
def test_retry_after_is_the_queue_over_the_service_rate(changes: dict[str, object], seconds: int | None) -> None:
    assert retry_after_s(view(**changes)) == seconds


def test_overload_says_why_in_words_and_in_numbers() -> None:
    refusal = overloaded(route(), view(waiting=10), "queue_full")
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "overloaded", 6)
    assert "10 requests already wait and no more than 10 may" in refusal.detail
    assert refusal.members == {
        "reason": "queue_full",
        "state": "running",
        "queue_length": 10,
        "queue_limit": 10,
        "replicas": 2,
    }


def test_a_timeout_in_the_queue_of_a_starting_endpoint_names_its_state() -> None:
    starting = route(state="queued", reason="waits for 1 GPU of type RTX 4090")
    refusal = overloaded(starting, view(replicas=0, slots=0, service_s=None), "queue_timeout")
    assert "within 30 s" in refusal.detail
    assert "queued (waits for 1 GPU of type RTX 4090)" in refusal.detail
    assert refusal.retry_after_s == 5


def test_replicas_that_all_refuse_connections_are_named_as_the_cause() -> None:
    assert "no replica accepts connections" in overloaded(route(), view(ejected=2), "queue_timeout").detail


@pytest.mark.parametrize("state", ["stopping", "stopped", "failed", "terminating", "terminated"])
def test_an_endpoint_that_does_not_run_says_its_state_and_reason(state: str) -> None:
    refusal = not_running(route(state=state, reason="because"))
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "not_running", None)
    assert f"the endpoint is {state} (because)" in refusal.detail
    assert refusal.members == {"state": state, "reason": "because"}


def test_ping_of_a_starting_endpoint_says_when_to_ask_again() -> None:
    assert ping_refused(route(state="starting")).retry_after_s == 5
    assert ping_refused(route(state="stopped")).retry_after_s is None


def test_strangers_are_not_told_what_a_public_endpoint_died_of() -> None:
    private = route(state="failed", reason="ValueError: secret path")
    public = private.model_copy(update={"public": True})
    assert "secret path" in not_running(private).detail
    refusal = not_running(public)
    assert "secret path" not in f"{refusal.detail} {refusal.members}"
