"""One queue for all replicas, first in, first out, without any delay of its own: what no gateway can beat
without knowing how long requests will take. Pure."""

import heapq
from collections.abc import Sequence

from bench.queue.trace import Job


def central_fifo_waits_s(jobs: Sequence[Job], replicas: int) -> list[float]:
    """How long each job waits for the first replica that is free."""
    free_at_s = [0.0] * replicas
    waits_s = []
    for job in jobs:
        start_s = max(job.at_s, heapq.heappop(free_at_s))
        heapq.heappush(free_at_s, start_s + job.service_s)
        waits_s.append(start_s - job.at_s)
    return waits_s
