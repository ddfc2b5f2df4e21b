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
    assert "Nothing was created." in result.stderr
    assert stub.asked("POST", "/v1/endpoints")["query"] == {"dry_run": ["true"]}
    assert json.loads(ok(penstock(*CREATE, "--route", "{}", "--dry-run", "--json", "Iris")))["position"] == 2


# --- endpoints --------------------------------------------------------------------------------


def test_endpoints_are_listed_and_shown(penstock: Any, ok: Any, stub: Any) -> None:
    replica = {"id": "rep_1", "host_id": "gpu-1", "phase": "ready", "ready_at": NOW}
    stub.tell("running", replicas=[replica])
    listed = ok(penstock("endpoint", "list", "-w", "default", "--state", "running"))
    assert listed.split()[:6] == ["ENDPOINT", "STATE", "REPLICAS", "GPU", "CREATED", "URL"]
    assert "default/iris" in listed
    assert stub.asked("GET", "/v1/endpoints")["query"] == {
        "limit": ["200"], "workspace": ["default"], "state": ["running"],
    }  # fmt: skip
    shown = ok(penstock("endpoint", "show", "default/iris"))
    for words in ("2 × RTX 4090", "commit aaaa", "0.45 USD an hour", "predict:predict", "gpu-1", "Try it:"):
        assert words in shown


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
