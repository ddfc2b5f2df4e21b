"""The whole platform: how soon it is up, how soon a model answers, and what it costs when idle."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from bench.figures import percentile

from penstock import Penstock

ROOT = Path(__file__).resolve().parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")
INSTALLS = 2
STARTS = 3
DEPLOYMENTS = 30
IDLE_S = 20.0
SETTLE_S = 8.0


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL's user can reach, also when we are root."""
    made = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def install_s() -> list[float]:
    """Seconds that `make setup` takes in a fresh clone; packages come from the cache of an earlier one."""
    took = []
    for _ in range(INSTALLS):
        with folder() as made:
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(made / "clone")], check=True)
            began = time.perf_counter()
            subprocess.run(["make", "-C", str(made / "clone"), "setup"], check=True, stdout=subprocess.DEVNULL)
            took.append(round(time.perf_counter() - began, 2))
    return took


def penstock(environment: dict[str, str], *arguments: str) -> Any:
    """What the command prints as JSON. Raises RuntimeError when it fails."""
    done = subprocess.run([str(PENSTOCK), *arguments, "--json"], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"penstock {' '.join(arguments)} failed: {done.stderr.strip()}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def environment_of(made: Path) -> dict[str, str]:
    """Environment variables of a platform whose data is below the folder."""
    return {**os.environ, "PENSTOCK_HOME": str(made / "data"), "XDG_CONFIG_HOME": str(made / "config")}


def up_ready_s() -> list[float]:
    """Seconds of `penstock up`, as a user sees them, on an empty data directory each time."""
    took = []
    for _ in range(STARTS):
        with folder() as made:
            environment = environment_of(made)
            began = time.perf_counter()
            penstock(environment, "up")
            took.append(round(time.perf_counter() - began, 2))
            penstock(environment, "down")
    return took


def model_start_s(repository: Path, environment_python: str) -> float:
    """Seconds of starting Python and loading the model alone, until it answers: no part of the platform."""
    with socket.socket() as listener, folder() as made:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = {"directory": str(repository), "routes": routes(), "concurrency": 1, "name": "bench"}
        (made / "config.json").write_text(json.dumps(config))
        began = time.perf_counter()
        command = [environment_python, "-P", "-m", "penstock_runtime", "--config", str(made / "config.json")]
        process = subprocess.Popen(
            [*command, "--fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "libs" / "runtime")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/ping", timeout=30).raise_for_status()
            return time.perf_counter() - began
        finally:
            process.kill()
            process.wait()


def address_of(environment: dict[str, str]) -> tuple[str, str]:
    """Where the API of a running platform is, and its first key."""
    config = json.loads((Path(environment["XDG_CONFIG_HOME"]) / "penstock" / "config.json").read_text())
    return config["api_url"], Path(config["api_key_file"]).read_text().strip()


def routes() -> list[dict[str, Any]]:
    """The routes of the example `text-stats`."""
    found: list[dict[str, Any]] = json.loads((ROOT / "examples" / "text-stats" / "routes.json").read_text())
    return found


def repository_of(made: Path) -> Path:
    """The example `text-stats` as a git repository below the folder."""
    target = made / "text-stats"
    shutil.copytree(ROOT / "examples" / "text-stats", target, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(target), "-c", "user.name=Bench", "-c", "user.email=bench@localhost"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "A model"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    return target


def deployments(environment: dict[str, str], made: Path) -> dict[str, list[float]]:
    """Create → first 200 of `text-stats`, and after each the same model's start alone, in seconds."""
    repository = repository_of(made)
    url, key = address_of(environment)
    client = Penstock(api_url=url, api_key=key)
    totals: list[float] = []
    alone: list[float] = []
    for number in range(DEPLOYMENTS):
        began = time.perf_counter()
        endpoint = client.endpoints.create(name=f"bench {number}", git_uri=str(repository), routes=routes())
        endpoint.wait(timeout_s=60)
        endpoint.predict("/stats", text="one two three")
        totals.append(time.perf_counter() - began)
        endpoint.terminate()
        endpoint.wait("terminated", timeout_s=60)
        python = next((Path(environment["PENSTOCK_HOME"]) / "hosts").glob("*/cache/environments/*/bin/python"))
        alone.append(model_start_s(repository, str(python)))
    return {"totals": totals, "model_start": alone}


def idle(environment: dict[str, str]) -> dict[str, float]:
    """Memory and processor of every process of an idle platform."""
    mark = f"PENSTOCK_DATA_DIR={environment['PENSTOCK_HOME']}".encode()
    time.sleep(SETTLE_S)
    pids = _pids(mark)
    before = {pid: _cpu_s(pid) for pid in pids}
    began = time.perf_counter()
    time.sleep(IDLE_S)
    elapsed = time.perf_counter() - began
    used = sum(max(0.0, _cpu_s(pid) - before[pid]) for pid in pids)
    return {
        "rss_mb": sum(_memory_kb(pid, "Rss") for pid in pids) / 1024,
        "pss_mb": sum(_memory_kb(pid, "Pss") for pid in pids) / 1024,
        "cpu_percent": used / elapsed * 100,
        "processes": len(pids),
    }


def _pids(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    # The servers' own children and they themselves do not carry the mark; their parents do.
    parents = set(found)
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in parents:
                found.append(int(entry.name))
                parents.add(int(entry.name))
        except OSError:
            continue
    return sorted(set(found))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_kb(pid: int, kind: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")), 0)


def measure() -> dict[str, Any]:
    """Every figure of the running platform, with its samples."""
    installs = install_s()
    starts = up_ready_s()
    with folder() as made:
        environment = environment_of(made)
        penstock(environment, "up")
        try:
            resting = idle(environment)
            deployed = deployments(environment, made)
        finally:
            penstock(environment, "down")
    alone = deployed["model_start"]
    # Each deployment is compared with the start right after it: the machine is not equally fast all the time.
    shares_ms = sorted((total - start) * 1000 for total, start in zip(deployed["totals"], alone, strict=True))
    return {
        "up_ready_s": statistics.median(starts),
        "install_s": statistics.median(installs),
        "first_prediction_s": round(statistics.median(deployed["totals"]), 3),
        "platform_share_p95_ms": round(percentile(shares_ms, 95), 1),
        "idle_rss_mb": round(resting["rss_mb"]),
        "idle_cpu_percent": round(resting["cpu_percent"], 2),
        "samples": {
            "up_ready_s": starts,
            "install_s": installs,
            "first_prediction_s": [round(total, 3) for total in deployed["totals"]],
            "model_start_alone_s": [round(start, 3) for start in alone],
            "platform_share_ms": [round(share, 1) for share in shares_ms],
            "idle": {name: round(value, 2) for name, value in resting.items()},
        },
    }
