"""Small POSTs: how many a second, what one costs, and how much later one is answered. Load: wrk."""

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.gateway.workload import SMALL_CONNECTIONS, Request
from bench.installing import program
from bench.processes import Child, Failed

SCRIPT = Path(__file__).with_name("requests.lua")
WARM_UP_S = 1


def throughput(child: Child, request: Request, port: int, seconds: int) -> dict[str, Any]:
    """`rps` and `cpu_us_per_request` at 32 connections, and wrk's own figures. Raises Failed."""
    run_wrk(request, port, connections=SMALL_CONNECTIONS, seconds=WARM_UP_S)
    before_s = child.cpu_s()
    said = run_wrk(request, port, connections=SMALL_CONNECTIONS, seconds=seconds)
    used_s = child.cpu_s() - before_s
    return {
        **said,
        "rps": said["requests"] / said["duration_us"] * 1e6,
        "cpu_us_per_request": used_s / said["requests"] * 1e6,
        "cores_used": used_s / said["duration_us"] * 1e6,
    }


def latency(request: Request, port: int, seconds: int) -> dict[str, Any]:
    """`p50_us` and `p99_us` at one connection. Raises Failed."""
    run_wrk(request, port, connections=1, seconds=WARM_UP_S)
    return run_wrk(request, port, connections=1, seconds=seconds)


def run_wrk(request: Request, port: int, *, connections: int, seconds: int) -> dict[str, Any]:
    """One run, on the core of this process. Raises Failed when any request was lost or refused."""
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "60s"]
    headers = [text for pair in request.headers(port).items() for text in pair]
    url = f"http://127.0.0.1:{port}{request.path}"
    command = [program("wrk"), *options, "--script", str(SCRIPT), url, "--", request.method, request.body, *headers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")
    said: dict[str, Any] = json.loads(lines[0])
    if said["lost"] or said["refused"] or not said["requests"]:
        raise Failed(f"of {said['requests']} small requests {said['refused']} were refused and {said['lost']} lost")
    return said
