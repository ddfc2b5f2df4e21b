"""Following events and logs, and waiting, through broken connections: the same for both clients."""

from typing import Any

import httpx
import pytest

from penstock import (
    EndpointFailed,
    ModelError,
    NotFound,
    RetryPolicy,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    WrongState,
)

BREAK = httpx.ReadError("connection reset")
SILENCE = httpx.ReadTimeout("nothing came")


def line_json(number: int) -> dict[str, Any]:
    return {"id": number, "at": "2026-03-01T12:00:00Z", "replica_id": "rep_1", "text": f"line {number}"}


def follow_events(endpoint: Any) -> Any:
    return endpoint.events(follow=True)


# --- following --------------------------------------------------------------------------------


def test_a_broken_stream_resumes_behind_the_last_event(platform: Any, script: Any, clock: Any, make: Any) -> None:
    first = make.sse("lifecycle", make.event(1, "queued"), make.event(2, "scheduled"))
    second = make.sse("lifecycle", make.event(3, "terminated"))
    script.add(
        make.reply(200, make.endpoint()),
        make.streamed(b": hello\n\n", first[:20], first[20:], second[:30], BREAK),
        httpx.ConnectError("refused"),
        make.problem(503, "unavailable"),
        make.streamed(second),
    )
    assert [event.id for event in platform.on_endpoint(follow_events)] == [1, 2, 3]
    resumed = [request.headers.get("last-event-id") for request in script.requests[1:]]
    assert resumed == [None, "2", "2", "2"]
    assert script.requests[1].headers["accept"] == "text/event-stream"
    assert clock.slept == [0.125, 0.25, 0.5]


def test_a_stream_that_ends_in_good_order_is_opened_again(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.streamed(b"retry: 1000\n\n", make.sse("lifecycle", make.event(1, "running"))),
        make.streamed(),
        make.streamed(make.sse("lifecycle", make.event(2, "terminated"))),
    )
    assert [event.phase for event in platform.on_endpoint(follow_events)] == ["running", "terminated"]


def test_the_server_may_name_the_wait_before_reconnecting(platform: Any, script: Any, clock: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.streamed(b"retry: 2000\n\n", BREAK),
        make.streamed(b"retry: 999999999\n\n"),
        make.streamed(make.sse("lifecycle", make.event(2, "terminated"))),
    )
    platform.on_endpoint(follow_events)
    assert clock.slept == [2.125, 10.25]


def test_a_server_that_stays_away_is_an_error_in_the_end(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.streamed(make.sse("lifecycle", make.event(1, "queued")), BREAK))
    script.add(*[httpx.ConnectError("refused")] * 3)
    with pytest.raises(Unreachable, match="penstock status"):
        platform.on_endpoint(follow_events, retry=RetryPolicy(attempts=4))
    assert script.replies == []


def test_a_refusal_ends_the_following_at_once(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.streamed(BREAK), make.problem(401, "unauthenticated"))
    with pytest.raises(Unauthorized):
        platform.on_endpoint(follow_events)


def test_204_tells_the_client_to_stay_away(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.reply(204))
    assert platform.on_endpoint(follow_events) == []


def test_an_answer_that_is_no_stream_says_so(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.page())
    with pytest.raises(UnexpectedAnswer, match="not events"):
        platform.on_endpoint(follow_events)


def test_events_of_kinds_not_known_are_passed_over(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("weather", make.event(1, "queued")), make.sse("lifecycle", make.event(2, "terminated"))),
    )
    assert [event.id for event in platform.on_endpoint(follow_events)] == [2]


def test_logs_are_followed_from_their_tail(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("log", line_json(8), line_json(9)), BREAK),
        make.streamed(make.sse("log", line_json(10))),
        make.reply(204),
    )
    lines = platform.on_endpoint(lambda endpoint: endpoint.logs(follow=True, tail=2, replica_id="rep_1"))
    assert [line.text for line in lines] == ["line 8", "line 9", "line 10"]
    assert dict(script.requests[1].url.params) == {"tail": "2", "replica_id": "rep_1"}
    assert script.requests[3].headers["last-event-id"] == "10"


def test_leaving_a_stream_closes_its_connection(script: Any, make: Any) -> None:
    from penstock import Penstock

    body = make.Pieces(make.sse("log", line_json(1)), make.sse("log", line_json(2)))
    opened = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    script.add(make.reply(200, make.endpoint()), opened)
    with Penstock("http://api.test", "psk_test", transport=httpx.MockTransport(script)) as client:
        lines = client.endpoints.get(make.endpoint_id).logs(follow=True)
        assert next(lines).text == "line 1"
        lines.close()  # type: ignore[attr-defined]
    assert body.closed


# --- waiting ----------------------------------------------------------------------------------


def wait(events: list[str], until: str = "running", **options: Any) -> Any:
    return lambda endpoint: endpoint.wait(until, on_event=lambda event: events.append(event.phase), **options)


def test_waiting_tells_each_event_and_returns_the_running_endpoint(platform: Any, script: Any, make: Any) -> None:
    story = [make.event(1, "queued"), make.event(2, "starting"), make.event(3, "running")]
    script.add(
        make.reply(200, make.endpoint()),
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("lifecycle", *story)),
        make.reply(200, make.endpoint(state="running")),
        make.page(*story),
    )
    events: list[str] = []
    assert platform.on_endpoint(wait(events)).state == "running"
    assert events == ["queued", "starting", "running"]


@pytest.mark.parametrize(
    ("state", "options"), [("running", {}), ("idle", {"or_idle": True}), ("idle", {"until": "idle"})]
)
def test_an_endpoint_that_already_runs_still_tells_its_story(
    platform: Any, script: Any, make: Any, state: str, options: dict[str, Any]
) -> None:
    running = make.reply(200, make.endpoint(state=state))
    script.add(make.reply(200, make.endpoint()), running, make.page(make.event(1, "queued"), make.event(2, "running")))
    events: list[str] = []
    assert platform.on_endpoint(wait(events, **options)).state == state
    assert events == ["queued", "running"]


def test_one_that_sleeps_does_not_run_until_a_request_wakes_it(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.reply(200, make.endpoint(state="idle")),
        make.streamed(make.sse("lifecycle", make.event(1, "idle"))),
        make.reply(200, make.endpoint(state="idle")),
        make.streamed(make.sse("lifecycle", make.event(2, "scheduled"), make.event(3, "running"))),
        make.reply(200, make.endpoint(state="running")),
        make.page(),
    )
    events: list[str] = []
    assert platform.on_endpoint(wait(events)).state == "running"
    assert events == ["idle", "scheduled", "running"]


def test_who_waits_in_vain_for_one_that_sleeps_is_told_how_to_wake_it(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        clock.sleep(request.extensions["timeout"]["read"])
        raise SILENCE

    idle = make.endpoint(state="idle")
    script.add(make.reply(200, idle), make.reply(200, idle), silent, make.reply(200, idle))
    with pytest.raises(TimedOut, match=r"it is idle\. A request wakes it: .* or_idle=True"):
        platform.on_endpoint(wait([], timeout_s=5))


def test_nothing_but_running_may_be_given_up_for_sleep(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.reply(200, make.endpoint(state="idle")),
        make.streamed(make.sse("lifecycle", make.event(1, "stopped"))),
        make.reply(200, make.endpoint(state="stopped")),
        make.page(),
    )
    assert platform.on_endpoint(wait([], "stopped", or_idle=True)).state == "stopped"


def test_events_up_to_a_given_one_are_not_told_again(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("lifecycle", make.event(8, "running"))),
        make.reply(200, make.endpoint(state="running")),
        make.page(*[make.event(n, "old") for n in range(1, 8)], make.event(8, "running"), make.event(9, "late")),
    )
    events: list[str] = []
    platform.on_endpoint(wait(events, after_event_id=7))
    assert events == ["running", "late"]
    assert script.requests[2].headers["last-event-id"] == "7"


def test_an_old_event_of_the_goal_does_not_end_the_waiting(platform: Any, script: Any, make: Any) -> None:
    first_run = [make.event(1, "running"), make.event(2, "stopped"), make.event(3, "queued")]
    script.add(
        make.reply(200, make.endpoint()),
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("lifecycle", *first_run)),
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("lifecycle", *first_run[1:])),
        make.reply(200, make.endpoint(state="starting")),
        make.streamed(make.sse("lifecycle", make.event(3, "queued"), make.event(4, "running"))),
        make.reply(200, make.endpoint(state="running")),
        make.page(),
    )
    events: list[str] = []
    platform.on_endpoint(wait(events))
    assert events == ["running", "stopped", "queued", "running"]


def test_a_failed_endpoint_raises_with_its_reason_and_log(platform: Any, script: Any, make: Any) -> None:
    failed = make.endpoint(state="failed", reason="No module named 'torch'.", log_tail="Traceback\nboom")
    script.add(make.reply(200, make.endpoint()), make.reply(200, failed), make.page(make.event(1, "failed")))
    kept: list[Any] = []

    def keep_and_wait(endpoint: Any) -> Any:
        kept.append(endpoint)
        return endpoint.wait()

    with pytest.raises(EndpointFailed, match=r"default/iris failed: No module named 'torch'\. A failed") as caught:
        platform.on_endpoint(keep_and_wait)
    assert caught.value.log_tail.endswith("boom")
    assert kept[0].state == "failed"


def test_an_endpoint_that_somebody_stopped_will_not_run(platform: Any, script: Any, make: Any) -> None:
    stopping = make.endpoint(state="stopping", reason="Stop requested.")
    script.add(make.reply(200, make.endpoint()), make.reply(200, stopping), make.page())
    with pytest.raises(WrongState, match="is stopping and so will not be running: Stop requested"):
        platform.on_endpoint(wait([]))


def test_waiting_ends_after_its_time_and_says_where_things_stand(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    queued = make.endpoint(position=3, reason="No RTX 4090 is free.")

    def silent(request: httpx.Request) -> httpx.Response:
        clock.sleep(request.extensions["timeout"]["read"])
        raise SILENCE

    script.add(make.reply(200, queued), *[make.reply(200, queued), silent] * 3, make.reply(200, queued))
    with pytest.raises(TimedOut, match="not running after 25 s; it is queued at position 3: No RTX 4090 is free"):
        platform.on_endpoint(wait([], timeout_s=25))
    # It looks again after 10 s of silence, and the last look is at the very end.
    assert clock.slept == [10, 10, 5]


def test_waiting_outlives_an_api_that_restarts(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint()),
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("lifecycle", make.event(1, "queued")), BREAK),
        httpx.ConnectError("refused"),
        make.reply(200, make.endpoint()),
        make.problem(503, "unavailable"),
        make.reply(200, make.endpoint()),
        make.streamed(make.sse("lifecycle", make.event(2, "running"))),
        make.reply(200, make.endpoint(state="running")),
        make.page(),
    )
    events: list[str] = []
    platform.on_endpoint(wait(events))
    assert events == ["queued", "running"]


AWAY = [httpx.ConnectError("refused")] * 200


def test_an_api_that_stays_away_for_a_minute_ends_the_waiting(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    script.add(make.reply(200, make.endpoint()), *AWAY)
    with pytest.raises(Unreachable):
        platform.on_endpoint(wait([]), retry=RetryPolicy(attempts=2))
    assert 50 < clock.now_s <= 60


def test_a_stream_that_is_refused_for_a_minute_ends_the_waiting(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    script.add(make.reply(200, make.endpoint()), *[make.reply(200, make.endpoint()), make.problem(503, "busy")] * 100)
    with pytest.raises(Unavailable) as caught:
        platform.on_endpoint(wait([]))
    assert caught.value.code == "busy"
    assert 50 < clock.now_s <= 60


def test_waiting_bears_an_api_that_is_away_until_its_time_is_over(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    script.add(make.reply(200, make.endpoint()), *AWAY)
    with pytest.raises(Unreachable):
        platform.on_endpoint(wait([], timeout_s=190))
    assert 180 < clock.now_s <= 190


def test_a_stream_that_is_refused_all_the_time_leaves_the_looks(
    platform: Any, script: Any, clock: Any, make: Any
) -> None:
    script.add(make.reply(200, make.endpoint()), *[make.reply(200, make.endpoint()), make.problem(503, "busy")] * 400)
    with pytest.raises((TimedOut, Unavailable)):
        platform.on_endpoint(wait([], timeout_s=190))
    assert 180 < clock.now_s <= 190


def test_waiting_goes_on_after_the_api_was_away_for_minutes(platform: Any, script: Any, clock: Any, make: Any) -> None:
    def back_after_200_s(_: httpx.Request) -> httpx.Response:
        if clock.now_s < 200:
            script.replies.insert(0, back_after_200_s)
            raise httpx.ConnectError("refused")
        return make.reply(200, make.endpoint(state="running"))

    script.add(make.reply(200, make.endpoint()), back_after_200_s, make.page())
    assert platform.on_endpoint(wait([], timeout_s=300)).state == "running"


def test_an_api_that_is_away_does_not_stretch_the_time(platform: Any, script: Any, clock: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), *[httpx.ConnectError("refused")] * 4)
    with pytest.raises(Unreachable):
        platform.on_endpoint(wait([], timeout_s=1))
    assert sum(clock.slept) <= 1


def test_an_endpoint_that_is_gone_counts_as_terminated(platform: Any, script: Any, make: Any) -> None:
    gone = make.problem(404, "not_found")
    script.add(make.reply(200, make.endpoint()), gone, gone)
    assert platform.on_endpoint(wait([], "terminated")).state == "terminated"
    script.add(make.reply(200, make.endpoint()), make.problem(404, "not_found"))
    with pytest.raises(NotFound):
        platform.on_endpoint(wait([], "stopped"))


def test_a_failed_endpoint_can_be_waited_for_to_be_terminated(platform: Any, script: Any, make: Any) -> None:
    script.add(
        make.reply(200, make.endpoint(state="failed")),
        make.reply(200, make.endpoint(state="failed")),
        make.streamed(make.sse("lifecycle", make.event(5, "terminated"))),
        make.reply(200, make.endpoint(state="terminated")),
        make.page(),
    )
    assert platform.on_endpoint(wait([], "terminated")).state == "terminated"


# --- streamed predictions ---------------------------------------------------------------------


def stream(endpoint: Any) -> Any:
    return endpoint.stream("/predict", text="to be")


def test_parts_of_a_streamed_answer_come_as_they_are_sent(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.streamed(b'data: {"word": "to"}\n\n', b"data: plain", b"\n\n"))
    assert platform.on_endpoint(stream) == [{"word": "to"}, "plain"]
    assert script.requests[1].headers["accept"].startswith("text/event-stream")
    assert script.requests[1].headers["authorization"] == "Bearer psk_test"


def test_a_model_that_fails_in_the_middle_of_its_answer_is_an_error(platform: Any, script: Any, make: Any) -> None:
    failure = b'event: error\ndata: {"code": "model_error", "detail": "ValueError: bad", "status": 500}\n\n'
    script.add(make.reply(200, make.endpoint()), make.streamed(b"data: 1\n\n", failure))
    with pytest.raises(ModelError, match="ValueError: bad"):
        platform.on_endpoint(stream)


def test_a_stream_that_breaks_off_is_not_begun_again(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.streamed(b"data: 1\n\n", BREAK))
    with pytest.raises(Unreachable, match="broke off"):
        platform.on_endpoint(stream)
    assert script.replies == []


def test_a_stream_that_is_refused_is_tried_again(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.problem(503, "overloaded"), make.streamed(b"data: 1\n\n"))
    assert platform.on_endpoint(stream) == [1]
