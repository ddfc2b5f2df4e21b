"""What `make demo` does: a model from a git repository becomes a URL, is called, billed and stopped.

Every step is a command that a person would type, shown before it runs. The last line of standard
output is one line of JSON that says whether all of it held.
"""

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")
ROUTE = {
    "verb": "POST",
    "path": "/predict",
    "file": "predict",
    "positional": True,
    "body": [{"name": "features", "type": "list"}],
    "function": "predict",
}
FEATURES = [5.1, 3.5, 1.4, 0.2]
"""Sepal length and width, petal length and width, in cm: the first flower of the iris data set."""
SPECIES = "setosa"
CREATE_WAIT = "10m"
COMMAND_WAIT_S = 900.0
SETTLE_WAIT_S = 60.0
LOOK_EVERY_S = 0.5

T = TypeVar("T")
Environment = Mapping[str, str]


class DemoFailed(Exception):
    """A step did not do what it must."""


def main() -> int:
    """Run the demonstration; the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    # As root, PostgreSQL runs as another user, who must be able to reach its data.
    folder.chmod(0o755)
    try:
        summary = {"ok": True, **demonstrate(folder)}
        shutil.rmtree(folder, ignore_errors=True)
    except (DemoFailed, OSError, subprocess.SubprocessError, httpx.HTTPError, ValueError, KeyError) as error:
        summary = {"ok": False, "error": f"{str(error) or repr(error)}; what it left, logs included, is in {folder}"}
    except KeyboardInterrupt:
        summary = {"ok": False, "error": f"interrupted; what it left, logs included, is in {folder}"}
    print(json.dumps(summary), flush=True)
    return 0 if summary["ok"] else 1


def demonstrate(folder: Path) -> dict[str, Any]:
    """Everything from nothing to nothing; what was seen on the way."""
    repository = make_repository(folder / "iris")
    name = f"Demo {secrets.token_hex(3)}"
    with platform(folder) as environment:
        try:
            seen = deploy_and_call(environment, repository, name)
            penstock(environment, "endpoint", "stop", name)
        except BaseException:
            # On a platform that goes on running, nothing of ours may stay behind.
            run_quietly(environment, "endpoint", "terminate", name)
            raise
        penstock(environment, "endpoint", "terminate", name)
    return seen


def deploy_and_call(environment: Environment, repository: Path, name: str) -> dict[str, Any]:
    began = time.monotonic()
    create = ["endpoint", "create", "--git-uri", str(repository), "--route", json.dumps(ROUTE)]
    penstock(environment, *create, "--timeout", CREATE_WAIT, name)
    endpoint = ask(environment, "endpoint", "show", name)
    seen: dict[str, Any] = {
        "url": endpoint["url"],
        "prediction": predict(environment, endpoint["url"]),
        "time_to_first_prediction_s": round(time.monotonic() - began, 2),
    }
    seen["cost_micros"] = wait_for("a cost above zero", lambda: cost_micros(environment, endpoint["id"]))
    seen["log_lines"] = wait_for("a line in the log", lambda: log_lines(environment, name))
    penstock(environment, "endpoint", "logs", name)
    penstock(environment, "usage", "--endpoint", name)
    return seen


@contextmanager
def platform(folder: Path) -> Iterator[Environment]:
    """The platform that runs already; or one of our own in `folder`, stopped at the end."""
    environment = dict(os.environ)
    if run_quietly(environment, "status").returncode == 0:
        penstock(environment, "up")
        yield environment
        return
    environment |= {"PENSTOCK_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    for name in ("PENSTOCK_API_URL", "PENSTOCK_API_KEY"):
        environment.pop(name, None)
    try:
        penstock(environment, "up")
        yield environment
    finally:
        penstock(environment, "down")


def make_repository(folder: Path) -> Path:
    """The example as the git repository that a user would have."""
    shutil.copytree(ROOT / "examples" / "iris", folder, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(folder), "-c", "user.name=Penstock", "-c", "user.email=demo@localhost"]
    for arguments in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "A model of iris flowers"],
    ):
        done = subprocess.run([*git, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise DemoFailed(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return folder


def predict(environment: Environment, url: str) -> dict[str, Any]:
    """Call the model as curl would."""
    config = json.loads((config_home(environment) / "penstock" / "config.json").read_text())
    key = Path(config["api_key_file"]).read_text().strip()
    body = {"features": FEATURES}
    address = f"{url.rstrip('/')}{ROUTE['path']}"
    print(f"$ curl {address} -H 'Authorization: Bearer …' -d {shlex.quote(json.dumps(body))}", flush=True)
    answer = httpx.post(address, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    print(answer.text, flush=True)
    if answer.status_code != 200:
        raise DemoFailed(f"the model answered {answer.status_code}: {answer.text[:500]}")
    prediction: dict[str, Any] = answer.json()
    if prediction["label"] != SPECIES:
        raise DemoFailed(f"the model takes the first flower for a {prediction['label']}, and it is a {SPECIES}")
    return prediction


def config_home(environment: Environment) -> Path:
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def cost_micros(environment: Environment, endpoint_id: str) -> int:
    return int(ask(environment, "usage", "--endpoint", endpoint_id)["total_cost_micros"])


def log_lines(environment: Environment, name: str) -> int:
    done = run_quietly(environment, "endpoint", "logs", name)
    return len(done.stdout.splitlines()) if done.returncode == 0 else 0


def wait_for(what: str, look: Callable[[], T]) -> T:
    """What `look` finds once it finds something. Raises DemoFailed when that takes too long."""
    deadline = time.monotonic() + SETTLE_WAIT_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(LOOK_EVERY_S)
    raise DemoFailed(f"there was no sign of {what} within {SETTLE_WAIT_S:g} s")


def penstock(environment: Environment, *arguments: str) -> None:
    """Show a command and run it, its output where everybody sees it. Raises DemoFailed when it fails."""
    print(f"$ penstock {shlex.join(arguments)}", flush=True)
    done = subprocess.run([str(PENSTOCK), *arguments], env=dict(environment), timeout=COMMAND_WAIT_S)
    if done.returncode != 0:
        raise DemoFailed(f"`penstock {' '.join(arguments[:2])}` ended with exit code {done.returncode}")


def ask(environment: Environment, *arguments: str) -> dict[str, Any]:
    """What a command answers as JSON. Raises DemoFailed when it fails."""
    done = run_quietly(environment, *arguments, "--json")
    if done.returncode != 0:
        raise DemoFailed(f"`penstock {' '.join(arguments[:2])}` failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run_quietly(environment: Environment, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(PENSTOCK), *arguments], env=dict(environment), capture_output=True, text=True, timeout=COMMAND_WAIT_S
    )


if __name__ == "__main__":
    sys.exit(main())
