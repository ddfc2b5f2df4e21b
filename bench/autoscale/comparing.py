"""Penstock's decider and Knative's on the same requests, each over a range of its knob.

No decision knows the future, but the decider's constants were chosen with these figures in sight. Loads of
other shapes and other start times are among them, also where ours is no better.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.autoscale import kpa, running
from bench.autoscale.kpa import Kpa
from bench.autoscale.loads import SHAPES, shaped, split
from bench.autoscale.penstock import Penstock
from bench.autoscale.simulation import Scaler, Simulation
from bench.figures import percentile
from bench.queue.trace import Job, read

from penstock_common.contracts.endpoint import REPLICAS_MAX
from penstock_gateway.autoscaling.policy import HEADROOM

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench" / "results" / "autoscale.json"
TRACE = Path("azure_llm_2023") / "AzureLLMInferenceTrace_conv.csv"
COLD_START_S = 20.0
SCALES = {"1": (1, 1), "1/3": (3, 3), "1/10": (10, 3)}
"""Scale of the load → into how many parts the trace is split, and how many of them are simulated."""
COLD_STARTS_S = (5.0, 10.0, 40.0)
HEADROOMS = tuple(step / 8 for step in range(25))
UTILISATIONS = tuple(step / 20 for step in range(10, 21))
WAIT_RATIO_MAX = 0.5
COST_RATIO_MAX = 0.85
"""The aim is either."""

Loads = Sequence[Sequence[Job]]
Point = dict[str, float]


def compare(loads: Loads, *, cold_start_s: float, headrooms: Sequence[float] = HEADROOMS[::2]) -> dict[str, Any]:
    """Both on all `loads`, their waits put together; each load begins with one ready replica."""

    def sweep(knob: str, values: Sequence[float], make: Callable[[float], Scaler]) -> list[Point]:
        return [{knob: value, **_point(loads, lambda: make(value), cold_start_s)} for value in values]  # noqa: B023

    knative = sweep("target_utilisation", UTILISATIONS, lambda u: Kpa(target_utilisation=u, most=REPLICAS_MAX))
    penstock = sweep("headroom", headrooms, lambda headroom: Penstock(headroom=headroom, most=REPLICAS_MAX))
    theirs = next(point for point in knative if point["target_utilisation"] == kpa.TARGET_UTILISATION)
    ours = next(point for point in penstock if point["headroom"] == HEADROOM)
    return {
        **_ratios(theirs, penstock),
        "median_over_utilisations": _medians([_ratios(point, penstock) for point in knative]),
        "at_defaults": {"penstock": ours, "knative": theirs},
        "requests": sum(len(jobs) for jobs in loads),
        "mean_load": round(statistics.fmean(sum(job.service_s for job in jobs) / jobs[-1].at_s for jobs in loads), 2),
        "sweeps": {"penstock": penstock, "knative": knative},
    }


def _point(loads: Loads, make: Callable[[], Scaler], cold_start_s: float) -> Point:
    outcomes = [Simulation(jobs, make(), cold_start_s=cold_start_s).run() for jobs in loads]
    waits_s = sorted(wait_s for outcome in outcomes for wait_s in outcome.waits_s)
    return {
        "gpu_s": round(sum(outcome.gpu_s for outcome in outcomes), 1),
        "p50_wait_s": round(percentile(waits_s, 50), 4),
        "p99_wait_s": round(percentile(waits_s, 99), 4),
        "mean_wait_s": round(statistics.fmean(waits_s), 4),
        "starts": sum(outcome.starts for outcome in outcomes),
    }


def _ratios(theirs: Point, ours: Sequence[Point]) -> dict[str, float | None]:
    """Ours over theirs. No point of ours is interpolated: at equal cost it is the dearest that costs no more
    than theirs, at equal p99 the cheapest whose p99 is no longer. None where there is no such point, or
    their p99 is 0."""
    affordable = [point for point in ours if point["gpu_s"] <= theirs["gpu_s"]]
    as_good = [point["gpu_s"] for point in ours if point["p99_wait_s"] <= theirs["p99_wait_s"]]
    wait_s = max(affordable, key=lambda point: point["gpu_s"])["p99_wait_s"] if affordable else None
    their_wait_s = theirs["p99_wait_s"]
    return {
        "p99_wait_ratio_at_equal_gpu_s": round(wait_s / their_wait_s, 3)
        if wait_s is not None and their_wait_s
        else None,
        "gpu_s_ratio_at_equal_p99_wait": round(min(as_good) / theirs["gpu_s"], 3) if as_good else None,
    }


def _medians(ratios: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    found = {name: [one[name] for one in ratios if one[name] is not None] for name in ratios[0]}
    return {name: statistics.median(values) if values else None for name, values in found.items()}  # type: ignore[type-var]


def met(figures: Mapping[str, Any]) -> bool:
    """Whether one of the two ratios is within its aim."""
    wait, cost = figures["p99_wait_ratio_at_equal_gpu_s"], figures["gpu_s_ratio_at_equal_p99_wait"]
    return (wait is not None and wait <= WAIT_RATIO_MAX) or (cost is not None and cost <= COST_RATIO_MAX)


def measure(jobs: Sequence[Job], *, cold_start_s: float) -> dict[str, Any]:
    """The whole result; the figures at the top are those of the whole trace."""
    began_s = time.monotonic()
    scales = {
        name: compare(split(jobs, parts)[:taken], cold_start_s=cold_start_s, headrooms=HEADROOMS)
        for name, (parts, taken) in SCALES.items()
    }
    others = {name: compare([shaped(jobs, shape)], cold_start_s=cold_start_s) for name, shape in SHAPES.items()}
    others |= {f"start of {start_s:g} s": compare([jobs], cold_start_s=start_s) for start_s in COLD_STARTS_S}
    whole = scales["1"]
    return {
        "p99_wait_ratio_at_equal_gpu_s": whole["p99_wait_ratio_at_equal_gpu_s"],
        "gpu_s_ratio_at_equal_p99_wait": whole["gpu_s_ratio_at_equal_p99_wait"],
        "aims": {
            "p99_wait_ratio_at_equal_gpu_s": WAIT_RATIO_MAX,
            "gpu_s_ratio_at_equal_p99_wait": COST_RATIO_MAX,
            "met": {name: met(one) for name, one in {**scales, **others}.items()},
        },
        "cold_start_s": cold_start_s,
        "scales": scales,
        "others": others,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - began_s),
        "machine": machine.describe(("cronsim", "pydantic")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/autoscale", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the traces (PENSTOCK_DATA, or ../shared/data)")
    parser.add_argument(
        "--cold-start-s", type=float, default=COLD_START_S, help=f"how long a start takes ({COLD_START_S:g})"
    )
    parser.add_argument("--simulation-only", action="store_true", help="start no platform to wake endpoints on")
    parser.add_argument("--result", type=Path, default=RESULT, help="file to write (bench/results/autoscale.json)")
    arguments = parser.parse_args()
    path = (arguments.data or Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data"))) / TRACE
    if not path.is_file():
        print(f"nothing measured: {path} is missing. Set PENSTOCK_DATA to a folder that holds {TRACE}.")
        return
    with path.open(newline="") as file:
        jobs = read(file)
    result = measure(jobs, cold_start_s=arguments.cold_start_s)
    if not arguments.simulation_only:
        result["running"] = running.measure()
    arguments.result.parent.mkdir(exist_ok=True)
    arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    for name, one in {**result["scales"], **result["others"]}.items():
        print(f"{name}: {json.dumps({key: value for key, value in one.items() if key != 'sweeps'}, indent=2)}")
