"""Lighter loads and changing ones, made of a trace. Pure: the same trace gives the same loads."""

import math
import random
from collections.abc import Callable, Sequence

from bench.queue.trace import Job

SEED = 2023

SHAPES: dict[str, Callable[[float], float]] = {
    "wave of an hour": lambda at_s: 0.55 + 0.45 * math.sin(2 * math.pi * at_s / 3600),
    "wave of 20 minutes": lambda at_s: 0.55 + 0.45 * math.sin(2 * math.pi * at_s / 1200),
    "steps of 5 minutes": lambda at_s: 1.0 if at_s // 300 % 2 else 0.3,
}
"""The share of the requests that is kept at a time."""


def split(jobs: Sequence[Job], parts: int) -> list[Sequence[Job]]:
    """`parts` loads with one in `parts` jobs each; together they are all of them."""
    return [jobs[part::parts] for part in range(parts)]


def shaped(jobs: Sequence[Job], shape: Callable[[float], float]) -> list[Job]:
    """The jobs that remain when `shape(at_s)` is the chance to remain."""
    chance = random.Random(SEED)
    return [job for job in jobs if chance.random() < shape(job.at_s)]
