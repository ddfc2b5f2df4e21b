"""Replays the trace through the candidates in turn, and writes how long requests waited behind each.

The whole trace is scaled to three minutes and played in parts of one, so that candidates alternate. It is
not squeezed further because the way from one request to the next takes a gateway the same time at any
scale: real requests last seconds, and beside services of 20 ms it would look fifty times as long as it is.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.candidates.envoy import Envoy
from bench.candidates.haproxy import HAProxy
from bench.candidates.kinds import API_KEY, Candidate, Upstreams, host
from bench.candidates.nginx import Nginx
from bench.candidates.penstock import Penstock
from bench.installing import program
from bench.processes import Cores, Failed, answers, free_port, others_cpu_s, prepare, subfolder
from bench.queue import shaping
from bench.queue.precise import precise_loop
from bench.queue.replay import ENDPOINT, Replay, Seen
from bench.queue.simulation import central_fifo_waits_s
from bench.queue.trace import Job, read, scale, split

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench" / "results" / "queue.json"
TRACE = Path("azure_llm_2023") / "AzureLLMInferenceTrace_conv.csv"
CANDIDATES: tuple[Candidate, ...] = (Penstock(), HAProxy(), Nginx(), Envoy())
PARTS = 3
SECONDS = 60
QUIET_CORES = 0.1
REPLICAS = 8
UTILISATION = 0.85


def jobs_of_trace() -> list[Job]:
    """The jobs as they were. Raises Failed when the trace is not there."""
    path = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data")) / TRACE
    try:
        with path.open(newline="") as file:
            return read(file)
    except OSError as error:
        raise Failed(
            f"{path} cannot be read ({error.strerror}): set PENSTOCK_DATA to a folder that holds {TRACE}, "
            "the LLM inference trace 2023 of the Azure public dataset"
        ) from error
    except ValueError as error:
        raise Failed(f"{path}: {error}") from error


def turn(candidate: Candidate, jobs: Sequence[Job], cores: Cores, folder: Path) -> tuple[Seen, float]:
    """What was seen in one replay through one candidate, and how many cores all else used meanwhile.
    Raises Failed."""
    port = free_port()
    probe = f"GET / HTTP/1.1\r\nHost: {host(ENDPOINT, port)}\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        replay = Replay(jobs, REPLICAS)
        endpoints = {ENDPOINT: Upstreams(runner.run(replay.listen()), concurrency=1)}
        child = candidate.start(endpoints, port=port, core=cores.candidate, folder=subfolder(folder, candidate.name))
        try:
            # In a thread, because the replicas that answer run in this loop.
            runner.run(asyncio.to_thread(child.wait_ready, lambda: answers(port, probe)))
            others_s, began_s = others_cpu_s([child]), time.monotonic()
            seen = runner.run(replay.run(port))
            others_cores = (others_cpu_s([child]) - others_s) / (time.monotonic() - began_s)
        finally:
            child.stop()
    if others_cores > QUIET_CORES:
        print(f"disturbed: other processes used {others_cores:.2f} cores", file=sys.stderr, flush=True)
    return seen, round(others_cores, 3)


@dataclass
class Outcome:
    """What has been measured so far."""

    waits_s: dict[str, list[float]] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, part: int, candidate: str, waits_s: list[float], **more: Any) -> None:
        self.waits_s.setdefault(candidate, []).extend(waits_s)
        self.turns.append({"part": part, "candidate": candidate, **shaping.waits_ms(waits_s), **more})

    def leave_out(self, candidate: str, reason: str) -> None:
        """No figure is given for a candidate that did not manage every part."""
        self.left_out[candidate] = reason
        self.waits_s.pop(candidate, None)
        self.busy.pop(candidate, None)
        print(f"left out: {candidate}: {reason}", file=sys.stderr, flush=True)


def replay_all(parts: list[list[Job]], names: list[str], cores: Cores, folder: Path) -> Outcome:
    """Every part of the trace through every candidate; the order is reversed in every other part."""
    outcome = Outcome()
    for number, jobs in enumerate(parts, 1):
        simulated_s = central_fifo_waits_s(jobs, REPLICAS)
        outcome.add(number, shaping.SIMULATED, simulated_s, requests=len(jobs))
        for candidate in CANDIDATES if number % 2 else CANDIDATES[::-1]:
            name = candidate.name
            if name not in names or name in outcome.left_out:
                continue
            print(f"part {number} of {len(parts)}: {name}", file=sys.stderr, flush=True)
            try:
                outcome.versions[name] = candidate.prepare()
                seen, others_cores = turn(candidate, jobs, cores, folder)
            except Failed as failed:
                outcome.leave_out(name, str(failed))
                continue
            began_on_busy = seen.arrived_at_busy
            outcome.busy[name] = outcome.busy.get(name, 0) + began_on_busy
            outcome.add(number, name, seen.waits_s(), began_on_busy=began_on_busy, others_cores=others_cores)
    return outcome


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole result. Raises Failed when the trace or a second core is missing."""
    began_s = time.monotonic()
    program("taskset")
    seconds = arguments.seconds * arguments.parts
    jobs = scale(jobs_of_trace(), seconds=seconds, replicas=REPLICAS, utilisation=UTILISATION)
    cores = prepare()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        parts = split(jobs, seconds=arguments.seconds, parts=arguments.parts)
        outcome = replay_all(parts, arguments.candidates, cores, folder)
    figures = shaping.figures(outcome.waits_s, outcome.busy)
    return {
        **figures,
        "aims": shaping.judge(figures),
        "left_out": outcome.left_out,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - began_s),
        "machine": machine.describe(("httptools", "pydantic", "uvloop")),
        "versions": outcome.versions,
        "settings": {
            "parts": arguments.parts,
            "seconds": arguments.seconds,
            "replicas": REPLICAS,
            "utilisation": UTILISATION,
            "requests": len(jobs),
            "mean_service_ms": round(statistics.fmean(job.service_s for job in jobs) * 1000, 3),
        },
        "parts": outcome.turns,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/queue", description=__doc__)
    names = [candidate.name for candidate in CANDIDATES]
    parser.add_argument("--parts", type=int, default=PARTS, help=f"parts that the trace is played in ({PARTS})")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"seconds of each part ({SECONDS})")
    parser.add_argument("--candidates", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--result", type=Path, default=RESULT, help="file to write (bench/results/queue.json)")
    arguments = parser.parse_args()
    try:
        result = compare(arguments)
    except Failed as failed:
        raise SystemExit(f"error: {failed}") from failed
    arguments.result.parent.mkdir(exist_ok=True)
    arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name not in ("machine", "parts")}, indent=2))
