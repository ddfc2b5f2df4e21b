"""`penstock endpoint …`: what each command asks of the platform, and what it shows."""

import json
from pathlib import Path
from typing import Any

import pytest

ENDPOINT = "/v1/endpoints/ep_01kc4v5s8mf7q9x2t6w3y1z0ab"
ROUTE = {"path": "/predict", "file": "predict", "function": "predict"}
CREATE = ("endpoint", "create", "--git-uri", "https://x.test/iris.git")
NOW = "2026-03-01T12:00:00Z"


# --- creating ---------------------------------------------------------------------------------


def test_every_option_of_create_reaches_the_platform(penstock: Any, ok: Any, stub: Any) -> None:
    options = (
        "--git-ref", "main", "--route", json.dumps(ROUTE), "--workspace", "vision", "--gpu-type", "RTX 4090",
        "--gpu-count", "2", "--cpu-cores", "4", "--memory-gb", "16", "--disk-gb", "50", "--replicas", "3",
        "--target-concurrency", "8", "--queue-limit", "10", "--queue-timeout", "2m", "--public", "--no-wait",
    )  # fmt: skip
    assert "it will answer at" in ok(penstock(*CREATE, *options, "Iris"))
    assert stub.asked("POST", "/v1/endpoints")["body"] == {
        "name": "Iris",
        "workspace": "vision",
        "source": {"kind": "git", "uri": "https://x.test/iris.git", "ref": "main"},
        "routes": [ROUTE],
        "gpu": {"type": "RTX 4090", "count": 2},
        "resources": {"cpu_cores": 4, "memory_gb": 16, "disk_gb": 50},
        "scaling": {
            "min_replicas": 3, "max_replicas": 3, "target_concurrency": 8, "queue_limit": 10, "queue_timeout_s": 120,
        },
        "public": True,
    }  # fmt: skip


def test_every_option_of_scaling_reaches_the_platform(penstock: Any, ok: Any, stub: Any) -> None:
    options = (
        "--route", json.dumps(ROUTE), "--min-replicas", "0", "--max-replicas", "4", "--idle-timeout", "5m",
        "--scale-down-delay", "0s", "--queue-wait-target", "0.5s",
        "--schedule", "0 8 * * 1-5;0 18 * * 1-5;Europe/Berlin;2", "--schedule", "0 8 * * 6; 0 9 * * 6; 1", "--no-wait",
    )  # fmt: skip
    ok(penstock(*CREATE, *options, "Iris"))
    assert stub.asked("POST", "/v1/endpoints")["body"]["scaling"] == {
        "min_replicas": 0, "max_replicas": 4, "idle_timeout_s": 300, "scale_down_delay_s": 0,
        "queue_wait_target_s": 0.5,
        "schedule": [
            {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "time_zone": "Europe/Berlin", "min_replicas": 2},
            {"start": "0 8 * * 6", "end": "0 9 * * 6", "min_replicas": 1},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--replicas", "2", "--max-replicas", "3"), "--replicas sets both --min-replicas and --max-replicas"),
        (("--idle-timeout", "soon"), "--idle-timeout: 'soon' is not a length of time"),
        (("--queue-wait-target", "x"), "--queue-wait-target: 'x'"),
        (("--schedule", "0 8 * * *;0 9 * * *;1", "--schedule", "at eight"), "--schedule 2: 'at eight' is not START"),
        (("--schedule", "0 8 * * *;0 9 * * *;many"), "--schedule 1: 'many' is not a number of replicas"),
        (("--schedule", "0 8 * * *;;UTC;1"), "--schedule 1:"),
    ],
)
def test_a_wrong_option_of_scaling_is_named(penstock: Any, stub: Any, options: tuple[str, ...], words: str) -> None:
    result = penstock(*CREATE, "--route", json.dumps(ROUTE), *options, "Iris")
    assert (result.exit_code, result.stdout, stub.requests) == (2, "", [])
    assert words in result.stderr


def test_a_refused_option_of_scaling_is_named_too(penstock: Any, stub: Any) -> None:
    errors = [
        {"field": "scaling.max_replicas", "message": "must be at least min_replicas (3)"},
        {"field": "scaling.idle_timeout_s", "message": "is too much"},
        {"field": "scaling.schedule.1.time_zone", "message": "'Mars' is no IANA time zone"},
    ]
    stub.answers["POST", "/v1/endpoints"] = (422, {"code": "invalid_request", "detail": "no", "errors": errors})
    assert penstock(*CREATE, "--route", "{}", "Iris").stderr.splitlines()[1:] == [
        "  scaling.max_replicas (--max-replicas, --replicas)  must be at least min_replicas (3)",
        "  scaling.idle_timeout_s (--idle-timeout)            is too much",
        "  scaling.schedule.1.time_zone (--schedule 2)        'Mars' is no IANA time zone",
    ]


def test_what_is_left_out_is_left_to_the_platform(penstock: Any, ok: Any, stub: Any) -> None:
    ok(penstock(*CREATE, "--route", json.dumps(ROUTE), "--no-wait", "Iris"))
    assert stub.asked("POST", "/v1/endpoints")["body"].keys() == {"name", "source", "routes"}


@pytest.mark.parametrize("content", [[ROUTE, ROUTE], {"routes": [ROUTE, ROUTE]}])
def test_routes_may_come_from_a_file_or_from_standard_input(
    penstock: Any, ok: Any, stub: Any, tmp_path: Path, content: Any
) -> None:
    file = tmp_path / "routes.json"
    file.write_text(json.dumps(content))
    ok(penstock(*CREATE, "--routes-file", str(file), "--no-wait", "Iris"))
    assert stub.asked("POST", "/v1/endpoints")["body"]["routes"] == [ROUTE, ROUTE]
    ok(penstock(*CREATE, "--routes-file", "-", "--no-wait", "Iris", input=json.dumps(content)))
    assert stub.asked("POST", "/v1/endpoints")["body"]["routes"] == [ROUTE, ROUTE]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "needs at least one route"),
        (("--route", "{}", "--route", '{"path": }'), "--route 2 is not JSON: Expecting value at character 10:"),
        (("--route", "{'path': 1}"), "JSON wants double quotes"),
        (("--route", "[1]"), "--route 1 must be a JSON object, and is [1]"),
        (("--routes-file", "nowhere.json"), "nowhere.json cannot be read"),
    ],
)
def test_a_wrong_route_is_named_with_its_place(penstock: Any, stub: Any, options: tuple[str, ...], words: str) -> None:
    result = penstock(*CREATE, *options, "Iris")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert stub.requests == []


def test_the_place_of_a_json_error_is_pointed_at(penstock: Any) -> None:
    lines = penstock(*CREATE, "--route", '{"path": "/predict", "file" "predict"}', "Iris").stderr.splitlines()
    assert lines[1].strip() == '{"path": "/predict", "file" "predict"}'
    assert lines[1][lines[2].index("^")] == '"'
    assert lines[1][: lines[2].index("^")].endswith('"file" ')


def test_a_routes_file_is_checked_route_by_route(penstock: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{}, "x"]')
    assert "route 2 must be a JSON object" in penstock(*CREATE, "--routes-file", str(tmp_path / "a.json"), "I").stderr
    (tmp_path / "b.json").write_text('{\n "routes": 1\n}')
    assert "must hold a JSON list" in penstock(*CREATE, "--routes-file", str(tmp_path / "b.json"), "I").stderr
    (tmp_path / "c.json").write_text('[\n {"path": 1,}\n]')
    assert "at line 2, column" in penstock(*CREATE, "--routes-file", str(tmp_path / "c.json"), "I").stderr


def test_a_local_repository_is_sent_as_an_absolute_path(
    penstock: Any, ok: Any, stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iris").mkdir()
    monkeypatch.chdir(tmp_path)
    for uri in ("iris", "./iris", str(tmp_path / "iris")):
        ok(penstock("endpoint", "create", "--git-uri", uri, "--route", json.dumps(ROUTE), "--no-wait", "Iris"))
        assert stub.asked("POST", "/v1/endpoints")["body"]["source"]["uri"] == str(tmp_path / "iris")
    result = penstock("endpoint", "create", "--git-uri", "./nowhere", "--route", "{}", "Iris")
    assert (result.exit_code, "there is no folder ./nowhere" in result.stderr) == (2, True)
    for uri in ("git@x.test:acme/iris.git", "https://x.test/iris.git"):
        ok(penstock("endpoint", "create", "--git-uri", uri, "--route", json.dumps(ROUTE), "--no-wait", "Iris"))
        assert stub.asked("POST", "/v1/endpoints")["body"]["source"]["uri"] == uri


def test_each_wrong_field_is_shown_with_its_option_and_mend(penstock: Any, stub: Any) -> None:
    errors = [
        {"field": "gpu.type", "message": "no host has a 'RTX 409': choose one of RTX 4090"},
        {"field": "routes.0.function", "message": "predict.py has no function 'predct'"},
        {"field": "somewhere.else", "message": "is wrong"},
    ]
    stub.answers["POST", "/v1/endpoints"] = (422, {"code": "invalid_request", "detail": "3 wrong", "errors": errors})
    result = penstock(*CREATE, "--route", "{}", "Iris")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "error: 3 fields need mending",
        "  gpu.type (--gpu-type)          no host has a 'RTX 409': choose one of RTX 4090",
        "  routes.0.function (--route 1)  predict.py has no function 'predct'",
        "  somewhere.else                 is wrong",
    ]


def test_a_dry_run_shows_what_would_happen(penstock: Any, ok: Any, stub: Any) -> None:
    forecast = {
        "starts_now": False, "position": 2, "reason": "No RTX 4090 is free.", "price_micros_per_hour": 450_000,
        "currency": "USD", "source": {"commit": "abc"}, "url": "http://u",
    }  # fmt: skip
    stub.answers["POST", "/v1/endpoints"] = (200, forecast)
    result = penstock(*CREATE, "--route", "{}", "--dry-run", "Iris")
    assert "wait in the queue, at position 2" in ok(result)
    assert "0.45 USD an hour" in result.stdout
    assert "sleeps" not in result.stdout
    assert "Nothing was created." in result.stderr
    assert stub.asked("POST", "/v1/endpoints")["query"] == {"dry_run": ["true"]}
    assert json.loads(ok(penstock(*CREATE, "--route", "{}", "--dry-run", "--json", "Iris")))["position"] == 2


def test_a_dry_run_of_one_that_may_sleep_says_what_it_costs_awake(penstock: Any, ok: Any, stub: Any) -> None:
    stub.answers["POST", "/v1/endpoints"] = (
        200, {"starts_now": True, "price_micros_per_hour": 450_000, "currency": "USD"},
    )  # fmt: skip
    shown = ok(penstock(*CREATE, "--route", "{}", "--dry-run", "--min-replicas", "0", "Iris"))
    assert "0.45 USD an hour while it runs, for the first replica; nothing while it sleeps" in shown


def test_creating_ends_well_for_one_that_went_to_sleep(penstock: Any, ok: Any, stub: Any) -> None:
    stub.tell("queued", "running", "idle")
    shown = ok(penstock(*CREATE, "--route", "{}", "Iris"))
    assert "URL: " in shown
    assert "It sleeps: the next request wakes it." in shown


# --- endpoints --------------------------------------------------------------------------------


def test_endpoints_are_listed_and_shown(penstock: Any, ok: Any, stub: Any) -> None:
    replica = {"id": "rep_1", "host_id": "gpu-1", "phase": "ready", "ready_at": NOW}
    stub.tell("running", replicas=[replica])
    listed = ok(penstock("endpoint", "list", "-w", "default", "--state", "running"))
    assert listed.split()[:9] == [
        "ENDPOINT", "STATE", "READY", "LIMITS", "GPU", "IDLE", "SINCE", "CREATED", "URL",
    ]  # fmt: skip
    assert "default/iris" in listed
    assert stub.asked("GET", "/v1/endpoints")["query"] == {
        "limit": ["200"], "workspace": ["default"], "state": ["running"],
    }  # fmt: skip
    shown = ok(penstock("endpoint", "show", "default/iris"))
    for words in ("2 × RTX 4090", "commit aaaa", "0.45 USD an hour", "predict:predict", "gpu-1", "Try it:"):
        assert words in shown


def scaled(stub: Any, state: str, **details: Any) -> None:
    """An endpoint of 0 to 4 replicas, with two decisions behind it."""
    window = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "time_zone": "Europe/Berlin", "min_replicas": 2}
    scaling = {
        "min_replicas": 0, "max_replicas": 4, "target_concurrency": 1, "queue_limit": 9, "queue_timeout_s": 9,
        "schedule": [window],
    }  # fmt: skip
    decisions = [
        {"at": NOW, "desired_replicas": 3, "ready_replicas": 1, "reason": "8 requests wait for 1 replica"},
        {"at": NOW, "desired_replicas": 1, "ready_replicas": 0, "reason": "a request woke it"},
    ]
    spec = {**stub.endpoint()["spec"], "scaling": scaling}
    stub.tell(state, spec=spec, scaling_decisions=decisions, **details)


def test_how_an_endpoint_scales_is_shown(penstock: Any, ok: Any, stub: Any) -> None:
    scaled(stub, "running", ready_replicas=1, desired_replicas=3)
    listed = ok(penstock("endpoint", "list")).splitlines()[1]
    assert listed.split()[:4] == ["default/iris", "running", "1/3", "0–4"]
    shown = ok(penstock("endpoint", "show", "iris"))
    for words in (
        "1 of 3 ready (0–4)",
        "2 replicas at least from '0 8 * * 1-5' to '0 18 * * 1-5', Europe/Berlin",
        "0.45 USD an hour for 1 replica while it runs, and at most 4 run; nothing while it sleeps",
        "8 requests wait for 1 replica",
        "a request woke it",
    ):
        assert words in shown
    assert "Asleep" not in shown


def test_one_that_sleeps_says_since_when_and_what_wakes_it(penstock: Any, ok: Any, stub: Any) -> None:
    scaled(stub, "idle", ready_replicas=0, desired_replicas=0, idle_since=NOW)
    assert " ago" in ok(penstock("endpoint", "list")).splitlines()[1]
    shown = ok(penstock("endpoint", "show", "iris"))
    assert "; a request wakes it" in shown
    assert "0 of 0 ready (0–4)" in shown
    assert "Try it:" in shown
    assert json.loads(ok(penstock("endpoint", "predict", "iris", "/predict", "--data", '{"x": 1}'))) == {
        "echo": {"x": 1}
    }


def test_no_endpoints_is_an_empty_list_and_a_word_of_help(penstock: Any, ok: Any, stub: Any) -> None:
    stub.answers["GET", "/v1/endpoints"] = (200, {"items": [], "next_cursor": None})
    result = penstock("endpoint", "list")
    assert (ok(result), "penstock endpoint create" in result.stderr) == ("", True)
    assert json.loads(ok(penstock("endpoint", "list", "--json"))) == []
    assert penstock("endpoint", "show", "iris").exit_code == 3


@pytest.mark.parametrize(
    ("command", "state", "phases"),
    [
        ("stop", "stopped", ["stopping", "stopped"]),
        ("restart", "running", ["queued", "running"]),
        ("terminate", "terminated", ["terminating", "terminated"]),
    ],
)
def test_changes_are_seen_through_and_only_new_events_are_shown(
    penstock: Any, ok: Any, stub: Any, command: str, state: str, phases: list[str]
) -> None:
    stub.tell("queued", "scheduled", "installing")
    result = penstock("endpoint", command, "iris")
    assert ok(result) == f"Endpoint default/iris is {state}.\n"
    assert [line.split()[2] for line in result.stderr.splitlines()] == phases
    assert json.loads(ok(penstock("endpoint", command, "iris", "--no-wait", "--json")))["slug"] == "iris"


def test_a_wrong_timeout_changes_nothing(penstock: Any, stub: Any) -> None:
    assert penstock("endpoint", "terminate", "iris", "--timeout", "soon").exit_code == 2
    assert stub.requests == []


def test_a_change_that_the_state_forbids_is_a_conflict(penstock: Any, stub: Any) -> None:
    stub.answers["POST", f"{ENDPOINT}/restart"] = (409, {"code": "conflict", "detail": "It has failed: terminate it."})
    result = penstock("endpoint", "restart", "iris")
    assert (result.exit_code, result.stderr) == (5, "error: It has failed: terminate it.\n")


def test_logs_are_newest_last_and_cannot_command_the_terminal(penstock: Any, ok: Any, stub: Any) -> None:
    stub.tell("running")
    lines = ok(penstock("endpoint", "logs", "iris", "--limit", "2")).splitlines()
    assert lines == ["2026-03-01T12:00:02.000Z  line 2 �[31mred", "2026-03-01T12:00:03.000Z  line 3 �[31mred"]
    assert [line["id"] for line in json.loads(ok(penstock("endpoint", "logs", "iris", "--json")))] == [1, 2, 3]


def test_following_the_logs_of_an_ended_endpoint_ends(penstock: Any, ok: Any, stub: Any) -> None:
    stub.tell("failed")
    assert len(ok(penstock("endpoint", "logs", "-f", "iris")).splitlines()) == 3
    assert len(ok(penstock("endpoint", "logs", "-f", "iris", "--json")).splitlines()) == 3


def test_no_log_lines_is_a_word_on_stderr(penstock: Any, ok: Any, stub: Any) -> None:
    stub.lines = []
    result = penstock("endpoint", "logs", "iris")
    assert (ok(result), result.stderr) == ("", "Nothing was printed yet.\n")


def test_events_are_shown_oldest_first_and_followed_to_the_end(penstock: Any, ok: Any, stub: Any) -> None:
    stub.tell("queued", "terminated")
    for options in ((), ("-f",)):
        shown = ok(penstock("endpoint", "events", "iris", *options)).splitlines()
        assert shown[0] == "2026-03-01T12:00:01.500Z  queued          Now queued."
        assert len(shown) == 2
    lines = ok(penstock("endpoint", "events", "-f", "iris", "--json")).splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["queued", "terminated"]


# --- metrics ----------------------------------------------------------------------------------


def point(minute: int, **values: Any) -> dict[str, Any]:
    return {"at": f"2026-03-01T12:{minute:02}:00Z", "requests": 0, "requests_per_s": 0.0, **values}


def measured(stub: Any, *points: dict[str, Any], total: dict[str, Any]) -> None:
    answer = {"start": NOW, "end": "2026-03-01T13:00:00Z", "step_s": 60, "points": points, "total": total}
    stub.answers["GET", f"{ENDPOINT}/metrics"] = (200, answer)


def test_metrics_are_a_line_for_each_thing_that_was_measured(penstock: Any, ok: Any, stub: Any) -> None:
    times = {"p50": 12.288, "p90": 28.672, "p99": 2400.0}
    busy = point(1, requests_per_s=4.0, statuses={"5xx": 3}, latency_ms=times, ready_replicas=2, desired_replicas=4)
    measured(
        stub,
        point(0),
        busy,
        point(2, requests_per_s=2.0, ready_replicas=0, desired_replicas=0),
        total=point(0, requests_per_s=2.0, statuses={"5xx": 3}, latency_ms=times, ready_replicas=0, desired_replicas=0),
    )
    lines = ok(penstock("endpoint", "metrics", "iris")).splitlines()
    assert lines[0] == "default/iris since 2026-03-01T12:00:00.000Z, in steps of 1 min 0 s"
    rows = {line[:18].strip(): line[18:].strip() for line in lines[3:]}
    assert rows["Requests a second"].split() == ["▁█▅", "2", "4", "2"]
    assert rows["Latency p99"].split() == ["█", "2.4", "s", "2.4", "s", "2.4", "s"]
    assert rows["Answers 5xx"].split() == ["▁█▁", "0", "3", "3"]
    assert rows["Replicas ready"].split() == ["█▁", "0", "2", "0"]
    assert not {"Answers 4xx", "First token p50", "Tokens a second", "Cold starts"} & rows.keys()
    assert stub.asked("GET", f"{ENDPOINT}/metrics")["query"] == {}


def test_metrics_take_a_time_and_a_step(penstock: Any, ok: Any, stub: Any) -> None:
    measured(stub, point(0), total=point(0))
    result = penstock("endpoint", "metrics", "iris", "--since", "2026-03-01", "--step", "5m", "--json")
    assert json.loads(ok(result))["step_s"] == 60
    query = stub.asked("GET", f"{ENDPOINT}/metrics")["query"]
    assert query == {"from": ["2026-03-01T00:00:00+00:00"], "step": ["300s"]}


def test_nothing_measured_is_a_word_on_stderr(penstock: Any, ok: Any, stub: Any) -> None:
    measured(stub, point(0), total=point(0))
    result = penstock("endpoint", "metrics", "iris")
    assert (len(ok(result).splitlines()), result.stderr) == (1, "Nothing was measured in this time.\n")


def test_wrong_times_of_metrics_are_named_with_their_option(penstock: Any, stub: Any) -> None:
    for option in ("--since", "--step"):
        result = penstock("endpoint", "metrics", "iris", option, "soon")
        assert (result.exit_code, f"{option}: 'soon'" in result.stderr) == (2, True)
    problem = {"code": "invalid_request", "errors": [{"field": "step", "message": "must be a multiple of 10 seconds"}]}
    stub.answers["GET", f"{ENDPOINT}/metrics"] = (422, problem)
    result = penstock("endpoint", "metrics", "iris", "--step", "7s")
    assert (result.exit_code, "step (--step)  must be a multiple" in result.stderr) == (2, True)


# --- predicting -------------------------------------------------------------------------------


def test_a_prediction_prints_the_answer(penstock: Any, ok: Any, stub: Any, tmp_path: Path) -> None:
    body = '{"features": [1, 2]}'
    (tmp_path / "body.json").write_text(body)
    for data, given in ((body, None), (f"@{tmp_path / 'body.json'}", None), ("@-", body)):
        answer = ok(penstock("endpoint", "predict", "iris", "/predict", "-d", data, input=given))
        assert json.loads(answer) == {"echo": {"features": [1, 2]}}


def test_text_is_printed_as_it_is_and_as_json_when_asked(penstock: Any, ok: Any, stub: Any) -> None:
    stub.answers["POST", "/e/default/iris/predict"] = (200, b"to be\nor not")
    assert ok(penstock("endpoint", "predict", "iris", "predict")) == "to be\nor not\n"
    assert json.loads(ok(penstock("endpoint", "predict", "iris", "predict", "--json"))) == "to be\nor not"
    assert ok(penstock("endpoint", "predict", "iris", "predict", "--stream")) == "to be\nor not"
    assert json.loads(ok(penstock("endpoint", "predict", "iris", "predict", "--stream", "--json"))) == "to be\nor not"


@pytest.mark.parametrize("data", ["[1]", "{", "@nowhere.json"])
def test_a_body_must_be_a_json_object(penstock: Any, data: str) -> None:
    result = penstock("endpoint", "predict", "iris", "/predict", "-d", data)
    assert (result.exit_code, result.stderr.startswith("error: --data")) == (2, True)


def test_wrong_fields_of_a_prediction_are_named(penstock: Any, stub: Any) -> None:
    problem = {"code": "invalid_body", "detail": "no", "errors": [{"field": "features", "message": "is missing"}]}
    stub.answers["POST", "/e/default/iris/predict"] = (422, problem)
    result = penstock("endpoint", "predict", "iris", "/predict")
    assert (result.exit_code, result.stderr) == (2, "error: 1 field needs mending\n  features  is missing\n")
