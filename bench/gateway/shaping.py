"""From raw rounds to the figures of the result file, and to the aims. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import rounded

MEASURES = (
    "rps",
    "cpu_us_per_request",
    "p50_added_ms",
    "p99_added_ms",
    "sse_events_per_s",
    "sse_cpu_us_per_event",
    "ttft_p99_added_ms",
    "rss_mb",
    "upload_mb_per_s",
    "download_mb_per_s",
    "upload_growth_mb_per_connection",
    "download_growth_mb_per_connection",
    "idle_connections_mb",
)

Figures = dict[str, dict[str, float]]
"""Measure → candidate → figure."""


def turn_figures(said: Mapping[str, Mapping[str, Any]], direct: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of one candidate in one round. `direct` is the same round without a candidate.

    What was not measured is left out.
    """
    found: dict[str, Any] = {}
    if "small" in said:
        found |= {name: said["small"][name] for name in ("rps", "cpu_us_per_request", "rss_mb")}
    if "latency" in said:
        for name in ("p50", "p99"):
            found[f"{name}_added_ms"] = (said["latency"][f"{name}_us"] - direct["latency"][f"{name}_us"]) / 1000
    if "streams" in said:
        found |= {name: said["streams"][name] for name in ("sse_events_per_s", "sse_cpu_us_per_event")}
        found["ttft_p99_added_ms"] = said["streams"]["ttft_p99_ms"] - direct["streams"]["ttft_p99_ms"]
    for way in ("upload", "download"):
        if way in said:
            found[f"{way}_mb_per_s"] = said[way]["mb_per_s"]
            found[f"{way}_growth_mb_per_connection"] = said[way]["growth_mb"]
    if "idle" in said:
        found["idle_connections_mb"] = said["idle"]["added_mb"]
    return {name: value for name, value in found.items() if value is not None}


def medians(turns: Sequence[tuple[str, Mapping[str, float]]]) -> Figures:
    """The median of each measure for each candidate, over its turns (candidate, figures)."""
    found: Figures = {}
    for measure in MEASURES:
        values: dict[str, list[float]] = {}
        for candidate, figures in turns:
            if measure in figures:
                values.setdefault(candidate, []).append(figures[measure])
        found[measure] = {name: rounded(statistics.median(several)) for name, several in values.items()}
    return found


@dataclass(frozen=True)
class Aim:
    """A figure of Penstock is to be at least or at most `factor` × that of a peer, or `limit`."""

    measure: str
    at_most: bool
    factor: float
    peer: str | None = None

    def judged(self, figures: Figures) -> dict[str, Any] | None:
        """What was aimed at, what was found, and whether it was met; None when a figure is missing."""
        ours = figures.get(self.measure, {}).get("penstock")
        base = 1.0 if self.peer is None else figures.get(self.measure, {}).get(self.peer)
        if ours is None or base is None:
            return None
        relation = "<=" if self.at_most else ">="
        wanted = f"{self.factor:g}" + (f" x {self.peer}" if self.peer else "")
        return {
            "aim": f"{self.measure} {relation} {wanted}",
            "found": rounded(ours / base) if base else None,
            "met": ours <= self.factor * base if self.at_most else ours >= self.factor * base,
        }


AIMS = (
    Aim("cpu_us_per_request", True, 1.5, "nginx"),
    Aim("cpu_us_per_request", True, 0.7, "envoy"),
    Aim("rps", False, 0.75, "nginx"),
    Aim("rps", False, 1.5, "envoy"),
    Aim("rps", False, 5, "aiohttp"),
    Aim("rps", False, 200, "litellm"),
    Aim("p50_added_ms", True, 0.1),
    Aim("sse_cpu_us_per_event", True, 2, "haproxy"),
    Aim("ttft_p99_added_ms", True, 5),
    Aim("upload_mb_per_s", False, 0.7, "nginx"),
    Aim("download_mb_per_s", False, 0.7, "nginx"),
    Aim("upload_growth_mb_per_connection", True, 8),
    Aim("download_growth_mb_per_connection", True, 8),
    Aim("idle_connections_mb", True, 250),
)


def judge(figures: Figures) -> list[dict[str, Any]]:
    """Every aim of which both figures are there."""
    return [judged for aim in AIMS if (judged := aim.judged(figures)) is not None]
