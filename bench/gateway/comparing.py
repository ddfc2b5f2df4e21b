"""Runs the candidates in turn, round after round, and writes what came out.

In a turn one candidate runs, alone on its core; what loads it and what it forwards to share the other.
Each round begins with a turn of `direct`: the same load on the upstreams without anything between.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from bench import machine
from bench.candidates.aiohttp import Aiohttp
from bench.candidates.envoy import Envoy
from bench.candidates.haproxy import HAProxy
from bench.candidates.kinds import Candidate, Endpoints, Upstreams
from bench.candidates.litellm import LiteLLM
from bench.candidates.nginx import Nginx, start_upstream
from bench.candidates.penstock import Penstock
from bench.gateway import bulk, idle, shaping, small, streams, workload
from bench.installing import program, said_version
from bench.processes import Child, Cores, Failed, answers, free_port, listens, others_cpu_s, prepare, subfolder

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench" / "results" / "gateway.json"
CANDIDATES: tuple[Candidate, ...] = (Penstock(), Nginx(), HAProxy(), Envoy(), Aiohttp(), LiteLLM())
DIRECT = "direct"
ROUNDS = 5
SECONDS = 5
QUIET_CORES = 0.1


@dataclass
class Bench:
    """The running upstreams, and what has been measured."""

    cores: Cores
    folder: Path
    seconds: int
    ports: dict[str, int] = field(default_factory=dict)
    upstreams: list[Child] = field(default_factory=list)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    """Candidate → measure, or `all` → why there is no figure."""

    @property
    def endpoints(self) -> Endpoints:
        return {name: Upstreams((f"127.0.0.1:{port}",), streams=name != "predict") for name, port in self.ports.items()}

    def leave_out(self, candidate: str, measure: str, reason: str) -> None:
        self.left_out.setdefault(candidate, {})[measure] = reason
        print(f"left out: {candidate}, {measure}: {reason}", file=sys.stderr, flush=True)


@contextmanager
def upstreams(bench: Bench) -> Iterator[None]:
    """What the candidates forward to, on the load core."""
    running = bench.upstreams
    bench.ports = {name: free_port() for name in ("predict", "chat", "bulk")}
    core = bench.cores.load
    try:
        running.append(
            start_upstream(port=bench.ports["predict"], core=core, folder=subfolder(bench.folder, "upstream"))
        )
        for name, module in (("chat", "stream_upstream"), ("bulk", "bulk_upstream")):
            command = [sys.executable, "-m", f"bench.gateway.{module}", str(bench.ports[name])]
            running.append(Child(command, core=core, log=bench.folder / f"{module}.log", cwd=ROOT))
        for child, port in zip(running, bench.ports.values(), strict=True):
            child.wait_ready(lambda port=port: listens(port))  # type: ignore[misc]
        yield
    finally:
        for child in running:
            child.stop()


def turn(bench: Bench, candidate: Candidate) -> dict[str, Any]:
    """Everything measured of one candidate, by part; what fails is left out with its reason."""
    port, name = free_port(), candidate.name
    said: dict[str, Any] = {}
    folder = subfolder(bench.folder, name)
    child = candidate.start(bench.endpoints, port=port, core=bench.cores.candidate, folder=folder)
    try:
        child.wait_ready(lambda: answers(port, workload.small(name).encoded(port)))
        for part, measure in parts(bench, name, child, port).items():
            try:
                said[part] = measure()
            except Failed as failed:
                bench.leave_out(name, part, str(failed))
    finally:
        child.stop()
    return said


def parts(bench: Bench, name: str, child: Child, port: int) -> dict[str, Callable[[], Any]]:
    """What is measured of a candidate, in this order."""
    seconds = bench.seconds

    def small_posts() -> dict[str, Any]:
        said = small.throughput(child, workload.small(name), port, seconds)
        return {**said, "rss_mb": child.rss_mb()}

    def idle_connections() -> dict[str, float]:
        return {"added_mb": uvloop.run(idle.measure(child, workload.idle(name), port))}

    def no_transfer() -> Any:
        raise Failed("it forwards chat completions only")

    whole: dict[str, Callable[[], Any]] = {
        "small": small_posts,
        "latency": lambda: small.latency(workload.small(name), port, seconds),
        "upload": lambda: bulk.measure(child, workload.upload(), port, seconds / 2),
        "download": lambda: bulk.measure(child, workload.download(), port, seconds / 2),
        "idle": idle_connections,
        "streams": lambda: uvloop.run(streams.measure(workload.stream(), port, seconds, child.cpu_s)),
    }
    if name == "litellm":
        whole |= {"upload": no_transfer, "download": no_transfer}
    return whole


def direct_turn(bench: Bench) -> dict[str, Any]:
    """The upstreams alone: the base of every added time, and how much the load can give at most."""
    ports, seconds = bench.ports, bench.seconds
    request = workload.small(DIRECT)
    at_most = small.run_wrk(request, ports["predict"], connections=workload.SMALL_CONNECTIONS, seconds=seconds)
    return {
        "small": {**at_most, "rps": at_most["requests"] / at_most["duration_us"] * 1e6},
        "latency": small.latency(request, ports["predict"], seconds),
        "upload": bulk.measure(None, workload.upload(), ports["bulk"], seconds / 2),
        "download": bulk.measure(None, workload.download(), ports["bulk"], seconds / 2),
        "streams": uvloop.run(streams.measure(workload.stream(), ports["chat"], seconds, lambda: 0.0)),
    }


def rounds(bench: Bench, candidates: list[Candidate], count: int) -> list[dict[str, Any]]:
    """The raw turns. The order of the candidates is reversed in every other round."""
    turns: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        direct, others_cores = undisturbed(bench, lambda: direct_turn(bench))
        turns.append({"round": number, "candidate": DIRECT, "others_cores": others_cores, "raw": direct})
        for candidate in candidates if number % 2 else candidates[::-1]:
            print(f"round {number}: {candidate.name}", file=sys.stderr, flush=True)
            try:
                raw, others_cores = undisturbed(bench, lambda candidate=candidate: turn(bench, candidate))  # type: ignore[misc]
            except Failed as failed:
                bench.leave_out(candidate.name, "all", str(failed))
                continue
            figures = shaping.turn_figures(raw, direct)
            one = {"round": number, "candidate": candidate.name, "others_cores": others_cores}
            turns.append({**one, "figures": figures, "raw": raw})
    return turns


def undisturbed(bench: Bench, measure: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """What was measured, and how many cores all else on the machine used meanwhile: it ought to be none."""
    began_s, before_s = time.monotonic(), others_cpu_s(bench.upstreams)
    said = measure()
    others_cores = (others_cpu_s(bench.upstreams) - before_s) / (time.monotonic() - began_s)
    if others_cores > QUIET_CORES:
        print(f"disturbed: other processes used {others_cores:.2f} cores", file=sys.stderr, flush=True)
    return said, round(others_cores, 3)


def prepared(bench: Bench, names: list[str]) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates that can be run here, and the versions of all."""
    ready: list[Candidate] = []
    versions = {"wrk": said_version([program("wrk"), "-v"]).partition(" Copyright")[0]}
    for candidate in CANDIDATES:
        if candidate.name in names:
            try:
                versions[candidate.name] = candidate.prepare()
                ready.append(candidate)
            except Failed as failed:
                bench.leave_out(candidate.name, "all", str(failed))
    return ready, versions


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole result. Raises Failed when the load itself cannot be made here."""
    began_s = time.monotonic()
    for needed in ("taskset", "wrk", "nginx"):
        program(needed)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        bench = Bench(cores=prepare(), folder=folder, seconds=arguments.seconds)
        candidates, versions = prepared(bench, arguments.candidates)
        with upstreams(bench):
            turns = rounds(bench, candidates, arguments.rounds)
    figures = shaping.medians([(one["candidate"], one["figures"]) for one in turns if "figures" in one])
    return {
        **figures,
        "aims": shaping.judge(figures),
        "left_out": bench.left_out,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - began_s),
        "machine": machine.describe(("httptools", "pydantic", "uvloop")),
        "others_cores": round(statistics.mean(one["others_cores"] for one in turns), 3),
        "versions": versions,
        "settings": {
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "small_connections": workload.SMALL_CONNECTIONS,
            "streams": workload.STREAMS,
            "events_per_s_and_stream": workload.EVENTS_PER_S,
            "bulk_connections": workload.BULK_CONNECTIONS,
            "bulk_bytes": workload.BULK_BYTES,
            "idle_connections": workload.IDLE_CONNECTIONS,
        },
        "rounds": turns,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/gateway", description=__doc__)
    names = [candidate.name for candidate in CANDIDATES]
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds over all candidates ({ROUNDS})")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"seconds of each measurement ({SECONDS})")
    parser.add_argument("--candidates", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--result", type=Path, default=RESULT, help="file to write (bench/results/gateway.json)")
    arguments = parser.parse_args()
    try:
        result = compare(arguments)
    except Failed as failed:
        raise SystemExit(f"error: {failed}") from failed
    arguments.result.parent.mkdir(exist_ok=True)
    arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    shown = (*shaping.MEASURES, "aims", "left_out", "took_s")
    print(json.dumps({name: result[name] for name in shown}, indent=2))
