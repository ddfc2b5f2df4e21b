"""The Azure conversation trace (LLM inference trace 2023, Azure public dataset), scaled to our replicas. Pure."""

import csv
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

START_S = 0.05
CONTEXT_TOKEN_S = 0.0001
GENERATED_TOKEN_S = 0.025


@dataclass(frozen=True)
class Job:
    """A request: when it is sent, in seconds from the first, and how long a replica works on it."""

    at_s: float
    service_s: float


def read(lines: Iterable[str]) -> list[Job]:
    """The jobs of the file, whose columns are TIMESTAMP, ContextTokens and GeneratedTokens.

    A service time is 50 ms, and 0.1 ms for each context token, and 25 ms for each generated one.
    Raises ValueError when the file is another.
    """
    rows = csv.DictReader(lines)
    wanted = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
    if not wanted <= set(rows.fieldnames or ()):
        raise ValueError(f"the trace must have the columns {', '.join(sorted(wanted))}")
    found: list[tuple[datetime, float]] = []
    for row in rows:
        # Seven digits of a second are more than Python reads.
        at = datetime.strptime(f"{row['TIMESTAMP'][:26]}+0000", "%Y-%m-%d %H:%M:%S.%f%z")
        service_s = (
            START_S + CONTEXT_TOKEN_S * int(row["ContextTokens"]) + GENERATED_TOKEN_S * int(row["GeneratedTokens"])
        )
        found.append((at, service_s))
    if len(found) < 2 or any(later[0] < earlier[0] for earlier, later in pairwise(found)):
        raise ValueError("the trace must hold several requests in the order of their times")
    first = found[0][0]
    return [Job((at - first).total_seconds(), service_s) for at, service_s in found]


def scale(jobs: list[Job], *, seconds: float, replicas: int, utilisation: float) -> list[Job]:
    """The same jobs, so that the last is sent after `seconds` and all work together fills `utilisation`
    of the replicas' time until then."""
    time_factor = seconds / jobs[-1].at_s
    mean_s = statistics.fmean(job.service_s for job in jobs)
    service_factor = utilisation * replicas * seconds / len(jobs) / mean_s
    return [Job(job.at_s * time_factor, job.service_s * service_factor) for job in jobs]


def split(jobs: list[Job], *, seconds: float, parts: int) -> list[list[Job]]:
    """The jobs in parts of `seconds` each, the times in each counted from its own beginning."""
    found: list[list[Job]] = [[] for _ in range(parts)]
    for job in jobs:
        part = min(int(job.at_s / seconds), parts - 1)
        found[part].append(Job(job.at_s - part * seconds, job.service_s))
    return found
