"""All other commands: what each asks of the platform, and what it shows."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ENDPOINT = "/v1/endpoints/ep_01kc4v5s8mf7q9x2t6w3y1z0ab"
ROUTE = {"path": "/predict", "file": "predict", "function": "predict"}
CREATE = ("endpoint", "create", "--git-uri", "https://x.test/iris.git")
NOW = "2026-03-01T12:00:00Z"


# --- capacity and use -------------------------------------------------------------------------


def test_gpus_are_listed_with_what_can_start(penstock: Any, ok: Any, stub: Any) -> None:
    one = {"type": "RTX 4090", "memory_gb": 24, "total": 4, "free": 2, "price_micros_per_hour": 450_000,
           "currency": "USD", "can_start": {"1": True, "2": True, "3": False, "4": False}}  # fmt: skip
    cpu = {"type": "CPU", "memory_gb": 0, "total": 8, "free": 8, "can_start": {}}
    stub.answers["GET", "/v1/gpus"] = (200, {"gpus": [one], "cpu": cpu})
    rows = ok(penstock("gpu", "list")).splitlines()
    assert rows[1].split() == ["RTX", "4090", "24", "GB", "2", "4", "0.45", "USD", "1", "2"]
    assert rows[2].split() == ["CPU", "0", "GB", "8", "8", "none"]


def test_usage_is_shown_by_group_with_its_total(penstock: Any, ok: Any, stub: Any) -> None:
    row = {"endpoint_id": "ep_01kc4v5s8mf7q9x2t6w3y1z0ab", "day": None, "gpu_type": "CPU",
           "replica_s": 7500, "gpu_s": 0, "cost_micros": 41_667}  # fmt: skip
    usage = {"rows": [row], "total_cost_micros": 41_667, "currency": "USD", "as_of": NOW, "running_replicas": 1}
    stub.answers["GET", "/v1/usage"] = (200, usage)
    options = ("--from", "2026-03-01", "--to", "2026-03-02T00:00:00Z", "--group-by", "endpoint, gpu_type")
    shown = ok(penstock("usage", *options, "--endpoint", "iris")).splitlines()
    assert shown[1].split() == ["default/iris", "CPU", "2", "h", "5", "min", "0.041667", "USD"]
    assert shown[-1] == "Total: 0.041667 USD; 1 replica costs at this moment."
    assert stub.asked("GET", "/v1/usage")["query"] == {
        "from": ["2026-03-01T00:00:00+00:00"],
        "to": ["2026-03-02T00:00:00+00:00"],
        "group_by": ["endpoint,gpu_type"],
        "endpoint_id": [row["endpoint_id"]],
    }
    assert json.loads(ok(penstock("usage", "--json")))["total_cost_micros"] == 41_667


def test_a_key_that_sees_only_the_bill_sees_ids(penstock: Any, ok: Any, stub: Any) -> None:
    row = {"endpoint_id": "ep_1", "replica_s": 1, "gpu_s": 2, "cost_micros": 3}
    usage = {"rows": [row], "total_cost_micros": 3, "currency": "USD", "as_of": NOW, "running_replicas": 0}
    stub.answers["GET", "/v1/usage"] = (200, usage)
    stub.answers["GET", "/v1/endpoints"] = (403, {"code": "forbidden", "detail": "No."})
    assert "ep_1" in ok(penstock("usage"))


# --- account ----------------------------------------------------------------------------------


def test_workspaces_are_made_listed_and_removed(penstock: Any, ok: Any, stub: Any) -> None:
    stub.answers["POST", "/v1/workspaces"] = (201, {"id": "ws_1", "slug": "vision"})
    stub.answers["GET", "/v1/workspaces"] = (200, {"items": [{"slug": "vision", "created_at": NOW}]})
    stub.answers["DELETE", "/v1/workspaces/vision"] = (200, {})
    assert ok(penstock("workspace", "create", "vision")) == "Workspace vision is made.\n"
    assert "vision" in ok(penstock("workspace", "list"))
    assert ok(penstock("workspace", "delete", "vision")) == "Workspace vision is removed.\n"
    assert json.loads(ok(penstock("workspace", "delete", "vision", "--json"))) == {"deleted": "vision"}


def test_members_are_named_by_id_or_address(penstock: Any, ok: Any, stub: Any) -> None:
    ada = {"id": "mem_1", "email": "ada@acme.test", "name": "Ada", "role": "developer"}
    stub.answers["POST", "/v1/members"] = (201, ada)
    stub.answers["GET", "/v1/members"] = (200, {"items": [ada]})
    stub.answers["PATCH", "/v1/members/mem_1"] = (200, {**ada, "role": "admin"})
    stub.answers["DELETE", "/v1/members/mem_1"] = (200, {})
    assert "id mem_1" in ok(penstock("member", "create", "ada@acme.test", "--name", "Ada"))
    assert "developer" in ok(penstock("member", "list"))
    assert ok(penstock("member", "update", "Ada@acme.test", "--role", "admin")) == "ada@acme.test is admin now.\n"
    assert stub.asked("PATCH", "/v1/members/mem_1")["body"] == {"role": "admin"}
    assert ok(penstock("member", "delete", "mem_1")) == "Member mem_1 is removed.\n"
    assert penstock("member", "update", "mem_1").exit_code == 2


def test_a_new_key_is_alone_on_stdout(penstock: Any, ok: Any, stub: Any) -> None:
    key = {"id": "key_1", "name": "ci", "start": "psk_4fK9", "scopes": ["endpoints:invoke"], "expires_at": NOW}
    stub.answers["POST", "/v1/api-keys"] = (201, {**key, "key": "psk_new"})
    stub.answers["GET", "/v1/api-keys"] = (200, {"items": [key]})
    stub.answers["DELETE", "/v1/api-keys/key_1"] = (200, {})
    result = penstock("key", "create", "ci", "--scope", "endpoints:invoke", "--expires", "2027-01-01")
    assert ok(result) == "psk_new\n"
    assert "cannot be shown again" in result.stderr
    assert stub.asked("POST", "/v1/api-keys")["body"] == {
        "name": "ci", "scopes": ["endpoints:invoke"], "expires_at": "2027-01-01T00:00:00+00:00",
    }  # fmt: skip
    assert "psk_4fK9…" in ok(penstock("key", "list"))
    assert ok(penstock("key", "revoke", "key_1")) == "Key key_1 is revoked.\n"


def test_the_key_in_use_is_printed_for_scripts(penstock: Any, ok: Any) -> None:
    assert ok(penstock("key", "current")) == "psk_secret\n"


# --- operation --------------------------------------------------------------------------------


def test_hosts_are_listed(penstock: Any, ok: Any, stub: Any) -> None:
    host = {
        "id": "gpu-1",
        "state": "up",
        "last_seen_at": NOW,
        "gpus": {"A100": 2},
        "simulated": True,
        "driver": "process",
    }
    stub.answers["GET", "/v1/admin/hosts"] = (200, {"items": [host]})
    assert "2 × A100 (simulated)" in ok(penstock("admin", "hosts"))
    assert json.loads(ok(penstock("admin", "hosts", "--json")))[0]["id"] == "gpu-1"


def test_dead_letters_are_listed_retried_and_dropped(penstock: Any, ok: Any, stub: Any) -> None:
    letter = {"sequence": 3, "at": NOW, "consumer": "billing-scheduler-replica", "error": "KeyError", "deliveries": 8}
    stub.answers["GET", "/v1/admin/dead"] = (200, {"items": [letter], "next_before": None})
    stub.answers["POST", "/v1/admin/dead/3/retry"] = (200, letter)
    stub.answers["DELETE", "/v1/admin/dead/3"] = (200, {})
    assert "billing-scheduler-replica" in ok(penstock("admin", "dead", "list"))
    assert ok(penstock("admin", "dead", "retry", "3")) == "Dead letter 3 is sent again.\n"
    assert ok(penstock("admin", "dead", "drop", "3")) == "Dead letter 3 is dropped.\n"
    stub.answers["GET", "/v1/admin/dead"] = (200, {"items": []})
    assert penstock("admin", "dead", "list").stderr == "There are no dead letters.\n"


def test_a_replay_shows_each_service_and_fails_if_one_could_not(penstock: Any, ok: Any, stub: Any) -> None:
    services: dict[str, Any] = {"api": {"events": 120, "records": 8}}
    stub.answers["POST", "/v1/admin/replay"] = (200, {"services": services})
    assert ok(penstock("admin", "replay", "--since", "2026-03-01")).splitlines()[1].split() == ["api", "120", "8"]
    assert stub.asked("POST", "/v1/admin/replay")["body"] == {"since": "2026-03-01T00:00:00+00:00"}
    services["billing"] = {"error": "it did not answer"}
    result = penstock("admin", "replay", "--since", "2h", "--json")
    assert (result.exit_code, json.loads(result.stdout)["services"]["billing"]["events"]) == (1, 0)
    assert "Not every service could replay: billing." in result.stderr


def test_prices_are_set_in_the_currency_and_kept_exactly(penstock: Any, ok: Any, stub: Any) -> None:
    prices = {"items": [{"gpu_type": "CPU", "micros_per_hour": 20_000, "currency": "EUR", "valid_from": NOW}]}
    stub.answers["PUT", "/v1/admin/prices"] = stub.answers["GET", "/v1/admin/prices"] = (200, prices)
    shown = ok(penstock("admin", "price", "set", "CPU", "0.02", "--currency", "EUR", "--from", "2026-04-01"))
    assert shown.splitlines()[1].split() == ["CPU", "0.02", "EUR", "2026-03-01T12:00:00.000Z"]
    assert stub.asked("PUT", "/v1/admin/prices")["body"] == {
        "gpu_type": "CPU", "micros_per_hour": 20_000, "currency": "EUR", "valid_from": "2026-04-01T00:00:00+00:00",
    }  # fmt: skip
    assert ok(penstock("admin", "price", "list")) == shown
    assert penstock("admin", "price", "set", "CPU", "0.0000001").exit_code == 2


# --- the platform on this machine -------------------------------------------------------------


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The launcher's commands, replaced by what the test says they return."""
    from penstock_launcher import commands

    said = SimpleNamespace(calls=[])
    up = commands.Up(False, tmp_path, "http://g", "http://a", tmp_path / "key", tmp_path / "config.json", 4.2)
    program = commands.ProgramStatus("gateway", "ready", 42, 1, tmp_path / "gateway.log")
    said.status = commands.Status("running", tmp_path, "http://g", "http://a", programs=(program,))

    def started(options: Any, progress: Any) -> Any:
        said.calls.append(options)
        progress("nats is ready")
        return up

    def stopped(data_dir: Any, progress: Any) -> Any:
        said.calls.append(data_dir)
        return commands.Down(True, 0, tmp_path, 1.0)

    monkeypatch.setattr(commands, "up", started)
    monkeypatch.setattr(commands, "down", stopped)
    monkeypatch.setattr(commands, "status", lambda data_dir: said.status)
    return said


def test_up_starts_the_platform_with_its_options(penstock: Any, ok: Any, launcher: Any, tmp_path: Path) -> None:
    result = penstock("up", "--simulate-gpus", "RTX 4090=4", "--data-dir", str(tmp_path), "--gateway-port", "9000")
    assert f"Penstock is ready after 4.2 s, in {tmp_path}" in ok(result)
    assert "nats is ready" in result.stderr
    (options,) = launcher.calls
    assert (options.simulate_gpus, options.data_dir, options.gateway_port) == ("RTX 4090=4", tmp_path, 9000)
    assert json.loads(ok(penstock("up", "--json")))["api_url"] == "http://a"


def test_the_next_step_is_a_command_that_this_shell_finds(
    penstock: Any, launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("on the path", "beside python"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "penstock").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "beside python" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "on the path"))
    assert penstock("up").stderr.endswith("Next: penstock endpoint create --help\n")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert penstock("up").stderr.endswith(f"Next: '{tmp_path}/beside python/penstock' endpoint create --help\n")


def test_down_stops_it(penstock: Any, ok: Any, launcher: Any, tmp_path: Path) -> None:
    assert ok(penstock("down")) == f"Penstock is stopped; its data stays in {tmp_path}\n"
    assert json.loads(ok(penstock("down", "--json")))["was_running"] is True


def test_status_is_6_unless_every_part_is_ready(penstock: Any, ok: Any, launcher: Any, tmp_path: Path) -> None:
    from penstock_launcher.commands import Status

    assert "gateway" in ok(penstock("status"))
    assert json.loads(ok(penstock("status", "--json")))["healthy"] is True
    launcher.status = Status("stopped", tmp_path)
    assert penstock("status").exit_code == 6


def test_an_error_of_the_launcher_is_told_like_any_other(
    penstock: Any, launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock_launcher import commands
    from penstock_launcher.errors import LauncherError

    def fail(*_: object) -> None:
        raise LauncherError("port 8080 is taken: choose another", log_tail="bind failed")

    monkeypatch.setattr(commands, "up", fail)
    result = penstock("up")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: port 8080 is taken")
    assert "bind failed" in result.stderr


def test_without_the_launcher_it_says_how_to_install_the_platform(
    penstock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "penstock_launcher.errors", None)
    result = penstock("up")
    assert result.exit_code == 1
    assert "pip install 'penstock[platform]'" in result.stderr
