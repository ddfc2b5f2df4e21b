"""Which requests the clients send again, with both clients."""

from typing import Any

import httpx
import pytest

from penstock import (
    Conflict,
    InvalidRequest,
    ModelError,
    NotRunning,
    Overloaded,
    RetryPolicy,
    ServerError,
    TimedOut,
    Unavailable,
    Unreachable,
)

NEVER_SENT = [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("full")]
LOST = [
    httpx.ReadError("reset"),
    httpx.RemoteProtocolError("closed"),
    httpx.ReadTimeout("silent"),
    httpx.WriteError("x"),
]


def predict(endpoint: Any) -> Any:
    return endpoint.predict("/predict", features=[1])


@pytest.mark.parametrize("failure", NEVER_SENT)
def test_a_prediction_that_was_never_sent_is_sent_again(
    platform: Any, script: Any, clock: Any, make: Any, failure: Exception
) -> None:
    script.add(make.reply(200, make.endpoint()), failure, failure, make.reply(200, {"class": 2}))
    assert platform.on_endpoint(predict) == {"class": 2}
    assert clock.slept == [0.125, 0.25]


@pytest.mark.parametrize("failure", LOST)
def test_a_prediction_whose_answer_was_lost_is_not_sent_again(
    platform: Any, script: Any, make: Any, failure: Exception
) -> None:
    script.add(make.reply(200, make.endpoint()), failure)
    with pytest.raises((Unreachable, TimedOut)):
        platform.on_endpoint(predict)
    assert script.replies == []


def test_a_prediction_with_an_idempotency_key_is_sent_again_after_its_answer_was_lost(
    platform: Any, script: Any, make: Any
) -> None:
    script.add(make.reply(200, make.endpoint()), LOST[0], make.reply(200, {"class": 2}))
    answer = platform.on_endpoint(
        lambda endpoint: endpoint.request("POST", "/predict", json={}, headers={"idempotency-key": "k1"})
    )
    assert answer.json() == {"class": 2}


@pytest.mark.parametrize("failure", LOST)
def test_a_get_is_sent_again_after_its_answer_was_lost(
    platform: Any, script: Any, make: Any, failure: Exception
) -> None:
    script.add(failure, make.reply(200, {"gpus": [], "cpu": None}))
    assert platform.run(lambda client: client.gpus.list()).gpus == ()


@pytest.mark.parametrize(("action", "method"), [("stop", "POST"), ("restart", "POST"), ("terminate", "DELETE")])
def test_a_change_of_an_endpoint_is_idempotent_and_sent_again(
    platform: Any, script: Any, make: Any, action: str, method: str
) -> None:
    script.add(LOST[0], make.problem(502, "bad_gateway"), make.reply(202, make.endpoint(state="stopping")))
    assert platform.run(lambda client: getattr(client.endpoints, action)(make.endpoint_id)).state == "stopping"
    assert {request.method for request in script.requests} == {method}


def test_a_creation_is_sent_again_under_the_same_idempotency_key(platform: Any, script: Any, make: Any) -> None:
    script.add(LOST[1], make.problem(503, "unavailable"), make.reply(201, make.endpoint()))
    made = platform.run(lambda client: client.endpoints.create(name="Iris", git_uri="u", routes=[]))
    assert made.id == make.endpoint_id
    keys = {request.headers["idempotency-key"] for request in script.requests}
    assert len(script.requests) == 3
    assert len(keys) == 1


def test_each_creation_has_a_key_of_its_own(platform: Any, script: Any, make: Any) -> None:
    for _ in range(2):
        script.add(make.reply(201, {"slug": "vision"}))
        platform.run(lambda client: client.workspaces.create("vision"))
    first, second = (request.headers["idempotency-key"] for request in script.requests)
    assert first != second


def test_a_503_of_the_gateway_is_tried_again_after_the_time_it_names(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    busy = [make.problem(503, "overloaded", retry_after="3") for _ in range(2)]
    script.add(make.reply(200, make.endpoint()), *busy, make.reply(200, [1]))
    assert platform.on_endpoint(predict) == [1]
    assert clock.slept == [3.125, 3.25]


def test_waiting_longer_than_the_total_time_is_not_begun(platform: Any, script: Any, clock: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.problem(503, "overloaded", "All busy.", retry_after="3600"))
    with pytest.raises(Overloaded, match=r"All busy\. With more replicas") as caught:
        platform.on_endpoint(predict)
    assert caught.value.retry_after_s == 3600
    assert clock.slept == []


def test_attempts_are_bounded_in_number(platform: Any, script: Any, clock: Any, make: Any) -> None:
    policy = RetryPolicy(attempts=4, first_delay_s=1, longest_delay_s=3, total_s=100)
    script.add(*[make.problem(503, "busy") for _ in range(4)])
    with pytest.raises(Unavailable):
        platform.run(lambda client: client.gpus.list(), retry=policy)
    assert clock.slept == [0.5, 1.0, 1.5]


def test_attempts_are_bounded_in_time(platform: Any, script: Any, clock: Any, make: Any) -> None:
    platform.random = 0.999
    policy = RetryPolicy(attempts=1000, first_delay_s=2, longest_delay_s=2, total_s=7)
    script.add(*[make.problem(429, "rate_limited") for _ in range(4)])
    with pytest.raises(Overloaded):
        platform.run(lambda client: client.gpus.list(), retry=policy)
    assert sum(clock.slept) <= 7
    assert script.replies == []


def test_a_server_that_is_not_there_is_given_less_time(platform: Any, script: Any, clock: Any) -> None:
    policy = RetryPolicy(attempts=100, first_delay_s=2, longest_delay_s=2, connect_s=3)
    script.add(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(Unreachable):
        platform.run(lambda client: client.gpus.list(), retry=policy)
    assert clock.slept == [1, 1, 1]


def test_each_wait_can_be_told_to_the_user(platform: Any, script: Any, make: Any) -> None:
    told: list[tuple[str, float]] = []
    script.add(make.problem(503, "busy", "Busy."), httpx.ConnectError("refused"), make.reply(200, {"gpus": []}))
    platform.run(
        lambda client: client.gpus.list(), on_wait=lambda error, seconds: told.append((type(error).__name__, seconds))
    )
    assert told == [("Unavailable", 0.125), ("Unreachable", 0.25)]


def test_an_endpoint_that_is_stopped_is_not_asked_again(platform: Any, script: Any, clock: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.problem(503, "not_running", "It is stopped."))
    with pytest.raises(NotRunning, match=r"^It is stopped\.$"):
        platform.on_endpoint(predict)
    assert clock.slept == []


def test_a_replica_that_stopped_at_work_counts_as_a_lost_answer(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.problem(503, "stopping", "It stopped."))
    with pytest.raises(Overloaded):
        platform.on_endpoint(predict)
    script.add(make.reply(200, make.endpoint()), make.problem(503, "stopping"), make.reply(200, ["a"]))
    assert platform.on_endpoint(lambda endpoint: endpoint.predict("/labels")) == ["a"]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (409, Conflict), (422, InvalidRequest), (500, ServerError)]
)
def test_other_refusals_are_final(platform: Any, script: Any, make: Any, status: int, kind: type[Exception]) -> None:
    script.add(make.problem(status, "x"))
    with pytest.raises(kind):
        platform.run(lambda client: client.gpus.list())


def test_an_exception_in_the_model_is_final(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.problem(500, "model_error", "ValueError: no such class"))
    with pytest.raises(ModelError, match=r"ValueError: no such class\. See the traceback"):
        platform.on_endpoint(predict)


def test_a_502_of_a_prediction_is_final_since_it_may_have_run(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.problem(502, "replica_lost"))
    with pytest.raises(Unavailable):
        platform.on_endpoint(predict)
