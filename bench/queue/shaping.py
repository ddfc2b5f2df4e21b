"""From the turns to the figures of the result file, and to the aims. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import percentile, rounded

SIMULATED = "simulated_central_fifo"
MEASURES = ("p50_wait_ms", "p99_wait_ms")

Figures = dict[str, dict[str, float]]
"""Measure → candidate → figure."""


def waits_ms(waits_s: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile of the waits, their mean and the longest."""
    return {
        "p50_wait_ms": percentile(waits_s, 50) * 1000,
        "p99_wait_ms": percentile(waits_s, 99) * 1000,
        "mean_wait_ms": statistics.fmean(waits_s) * 1000,
        "max_wait_ms": max(waits_s) * 1000,
    }


def figures(waits_s: Mapping[str, Sequence[float]], busy: Mapping[str, int]) -> Figures:
    """The waits of each candidate over all parts of the trace; and how many requests were sent to a replica
    that was at work on another."""
    found: Figures = {name: {} for name in MEASURES}
    for candidate, several_s in waits_s.items():
        measured = waits_ms(several_s)
        for name in MEASURES:
            found[name][candidate] = rounded(measured[name])
    return {**found, "began_on_busy": dict(busy)}


def judge(figures: Figures) -> list[dict[str, Any]]:
    """What was aimed at, what was found, and whether it was met; without those whose figures are missing."""
    p99_ms = figures["p99_wait_ms"]
    if "penstock" not in p99_ms:
        return []
    ours = p99_ms["penstock"]
    found = [
        {
            "aim": f"p99_wait_ms <= {factor:g} x {peer}",
            "found": rounded(ours / p99_ms[peer]),
            "met": ours <= factor * p99_ms[peer],
        }
        for peer, factor in ((SIMULATED, 1.05), ("haproxy", 1.02), ("nginx", 1.0), ("envoy", 1.0))
        if p99_ms.get(peer)
    ]
    busy = figures["began_on_busy"]["penstock"]
    return [*found, {"aim": "began_on_busy == 0", "found": busy, "met": not busy}]
