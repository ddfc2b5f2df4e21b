"""`penstock` as scripts meet it: exit codes, and what is on which stream."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from penstock.cli.live import Phases

PENSTOCK = (sys.executable, "-c", "from penstock.cli.main import main; main()")
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]m")
ROUTE = '{"path": "/predict", "file": "predict", "function": "predict"}'
CREATE = ("endpoint", "create", "--git-uri", "https://x.test/iris.git", "--route", ROUTE, "Iris")


def test_creating_shows_each_phase_on_stderr_and_the_url_on_stdout(shell: Any, stub: Any) -> None:
    done = shell(*CREATE)
    assert done.returncode == 0
    phases = ("queued", "scheduled", "fetching source", "installing", "starting", "running")
    for phase, line in zip(phases, done.stderr.splitlines(), strict=True):
        assert phase in line
    assert "5.00 s  running" in done.stderr
    url = f"{stub.url}/e/default/iris"
    assert f"URL: {url}" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_the_printed_curl_command_works_as_pasted(shell: Any, stub: Any, environ: dict[str, str]) -> None:
    command = shell(*CREATE).stdout.splitlines()[-1]
    assert "psk_secret" not in command
    assert command.startswith("curl ")
    pasted = subprocess.run(["bash", "-c", f"set -- {command.removeprefix('curl ')}; printf '%s\\n' \"$@\""],
                            capture_output=True, text=True, env=environ)  # fmt: skip
    assert "Authorization: Bearer psk_secret" in pasted.stdout.splitlines()


def test_with_the_key_in_the_environment_the_command_uses_it(shell: Any, stub: Any) -> None:
    done = shell(*CREATE, PENSTOCK_API_URL=stub.url, PENSTOCK_API_KEY="psk_other")
    assert '"Authorization: Bearer $PENSTOCK_API_KEY"' in done.stdout


def test_json_is_one_document_on_stdout_and_nothing_else(shell: Any) -> None:
    done = shell(*CREATE, "--json")
    assert json.loads(done.stdout)["state"] == "running"
    assert "running" in done.stderr
    for command in (("endpoint", "list"), ("endpoint", "show", "iris"), ("endpoint", "events", "iris"),
                    ("endpoint", "logs", "iris"), ("endpoint", "stop", "iris"), ("key", "current")):  # fmt: skip
        done = shell(*command, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 4), (403, 4), (404, 3), (409, 5), (422, 2), (500, 1)],
)
def test_each_refusal_has_its_exit_code(shell: Any, stub: Any, status: int, code: int) -> None:
    stub.answers["GET", "/v1/gpus"] = (status, {"code": "x", "detail": "It cannot be."})
    done = shell("gpu", "list", "--json")
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: It cannot be.")


def test_wrong_usage_is_2(shell: Any) -> None:
    assert shell("endpoint", "create", "Iris").returncode == 2
    assert shell("endpoint", "nonsense").returncode == 2
    assert shell(*CREATE[:-1], "--timeout", "soon", "Iris").returncode == 2


def test_nothing_configured_is_2_and_says_what_to_do(shell: Any, tmp_path: Any) -> None:
    done = shell("endpoint", "list", XDG_CONFIG_HOME=str(tmp_path / "empty"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "run `penstock up`, or set PENSTOCK_API_URL and PENSTOCK_API_KEY" in done.stderr


def test_a_platform_that_is_away_is_6(shell: Any, stub: Any) -> None:
    stub.answers["GET", "/v1/gpus"] = (503, {"code": "unavailable", "detail": "The scheduler is away."})
    done = shell("gpu", "list")
    assert (done.returncode, done.stdout) == (6, "")
    assert "error: The scheduler is away.\nhint: " in done.stderr


def test_an_endpoint_that_does_not_run_in_time_is_6(shell: Any, stub: Any) -> None:
    stub.tell("queued", reason="No RTX 4090 is free.", position=2)
    done = shell(*CREATE, "--timeout", "0.2", "--json")
    assert (done.returncode, done.stdout) == (6, "")
    assert "is not running after 0.2 s; it is queued at position 2: No RTX 4090 is free." in done.stderr


def test_an_endpoint_that_fails_is_7_with_its_reason_and_log(shell: Any, stub: Any) -> None:
    stub.tell("queued", "failed", reason="No module named 'torch'.", log_tail="one\ntwo\n")
    done = shell(*CREATE)
    assert (done.returncode, done.stdout) == (7, "")
    assert "error: Endpoint default/iris failed: No module named 'torch'." in done.stderr
    assert "  | two\n" in done.stderr
    done = shell(*CREATE, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (7, "failed")


def test_ctrl_c_leaves_the_endpoint_and_says_so(environ: dict[str, str], stub: Any) -> None:
    stub.tell("queued")
    process = subprocess.Popen(
        [*PENSTOCK, *CREATE],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    assert process.stderr is not None
    assert "queued" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "No longer waiting. Endpoint default/iris goes on" in rest
    assert "Traceback" not in rest


def test_followed_logs_are_json_lines_as_they_come(environ: dict[str, str], stub: Any) -> None:
    stub.tell("running")
    process = subprocess.Popen(
        [*PENSTOCK, "endpoint", "logs", "-f", "iris", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["id"] for _ in range(3)] == [1, 2, 3]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_reader_that_has_had_enough_is_no_failure(environ: dict[str, str], stub: Any) -> None:
    stub.tell("running")
    stub.lines = [{**stub.lines[0], "id": number} for number in range(1, 2000)]
    process = subprocess.Popen(
        [*PENSTOCK, "endpoint", "logs", "-f", "iris"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(timeout=20), process.stderr.read()) == (0, "")


def on_a_terminal(environ: dict[str, str], *arguments: str) -> bytes:
    """All that a person would be shown, escape sequences included."""
    terminal, inside = os.openpty()
    process = subprocess.Popen(
        [*PENSTOCK, *arguments],
        stdout=inside, stderr=inside, env={**environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(inside)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
    os.close(terminal)
    assert process.wait(timeout=20) == 0
    return shown


def test_on_a_terminal_a_clock_ticks_below_the_phases(environ: dict[str, str], stub: Any) -> None:
    shown = on_a_terminal(environ, *CREATE)
    assert re.search("… 0\\.[0-9] s".encode(), shown)
    assert b"Try it:" in shown
    assert COLOUR.search(shown)


def test_no_color_is_heeded_on_terminals_too(environ: dict[str, str], stub: Any) -> None:
    assert not COLOUR.search(on_a_terminal({**environ, "NO_COLOR": "1"}, *CREATE))


def test_streamed_text_ends_with_a_line_end_on_a_terminal(environ: dict[str, str], stub: Any) -> None:
    stub.answers["POST", "/e/default/iris/predict"] = (200, b"to be")
    assert on_a_terminal(environ, "endpoint", "predict", "iris", "/predict", "--stream") == b"to be\r\n"


@pytest.mark.parametrize("word", ["", "default/i"])
def test_names_of_endpoints_complete_in_the_shell(shell: Any, stub: Any, word: str) -> None:
    line = f"penstock endpoint show {word}"
    done = shell(_PENSTOCK_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD="3")
    assert done.stdout.split() == ["default/iris"]


def test_completion_is_silent_when_nothing_is_configured(shell: Any, tmp_path: Any) -> None:
    words = {"_PENSTOCK_COMPLETE": "complete_bash", "COMP_WORDS": "penstock endpoint show ", "COMP_CWORD": "3"}
    done = shell(XDG_CONFIG_HOME=str(tmp_path / "empty"), **words)
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_a_longer_wait_before_trying_again_is_told(shell: Any, stub: Any) -> None:
    stub.patience = "1"
    away = (503, {"code": "unavailable", "detail": "The scheduler is away."})
    stub.answers["GET", "/v1/workspaces"] = [away, (200, {"items": []})]
    done = shell("workspace", "list", "--json")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert re.fullmatch(r"The scheduler is away\. Trying again in 1\.[0-9] s\.\n", done.stderr)


def test_elapsed_time_grows() -> None:
    phases = Phases("queued")
    before = phases.elapsed_s
    deadline = time.monotonic() + 5
    while phases.elapsed_s == before:
        assert time.monotonic() < deadline
