"""One endpoint in simulated time: a central FIFO queue, replicas of concurrency 1, and a scaler that looks on.

The same for every scaler: a replica starts in `cold_start_s` and costs from then until it is gone. What
is taken away goes in this order: not ready yet, idle, busy; a busy one finishes its request first.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from bench.queue.trace import Job

SERVICE_WEIGHT = 1 / 16
"""Weight of the newest request in the mean service time, as in the gateway's queue."""


@dataclass(slots=True)
class Seen:
    """What a scaler may know at one moment. Nothing of the future."""

    now_s: float
    in_flight: int
    queued: int
    ready: int
    wanted: int
    last_request_s: float
    service_s: float | None
    load_s: float
    """Integral of requests in flight and waiting, from the beginning."""


class Scaler(Protocol):
    tick_s: float
    when_pressed: bool
    """Whether it also looks when a queue forms."""

    def look(self, seen: Seen) -> int:
        """How many replicas there should be."""


@dataclass(slots=True)
class Outcome:
    waits_s: list[float] = field(default_factory=list)
    gpu_s: float = 0.0
    starts: int = 0


class _Kind(IntEnum):
    """What happens first of several things at the same time comes first here."""

    DONE = 0
    READY = 1
    TICK = 2


class Simulation:
    """Costs count until the last request arrives; every request is waited for."""

    def __init__(self, jobs: Sequence[Job], scaler: Scaler, *, cold_start_s: float) -> None:
        self.outcome = Outcome()
        self._jobs = jobs
        self._scaler = scaler
        self._cold_start_s = cold_start_s
        self._horizon_s = jobs[-1].at_s
        self._events: list[tuple[float, int, int]] = [(scaler.tick_s, _Kind.TICK, 0)]
        self._queue: deque[Job] = deque()
        self._seen = Seen(0.0, 0, 0, 1, 1, 0.0, None, 0.0)
        self._replicas = 1
        """Replicas ever made; their numbers are 1 up to this. The first is ready at the beginning."""
        self._starting: list[int] = []
        self._idle = [1]
        self._busy: dict[int, float] = {}
        """Replica → how long its request takes; newest request last."""
        self._draining: dict[int, float] = {}
        self._cancelled: set[int] = set()

    def run(self) -> Outcome:
        arrivals = iter(self._jobs)
        job = next(arrivals, None)
        while job or self._queue or self._busy or self._draining:
            if job and job.at_s <= self._events[0][0]:
                self._advance(job.at_s)
                self._arrive(job)
                job = next(arrivals, None)
            else:
                self._happen(*heapq.heappop(self._events))
        return self.outcome

    # --- what happens ---------------------------------------------------------------------

    def _arrive(self, job: Job) -> None:
        self._seen.last_request_s = job.at_s
        self._queue.append(job)
        self._start_requests()
        if len(self._queue) == 1 and self._scaler.when_pressed:
            self._look()

    def _happen(self, at_s: float, kind: int, replica: int) -> None:
        self._advance(at_s)
        if kind == _Kind.TICK:
            self._look()
            heapq.heappush(self._events, (at_s + self._scaler.tick_s, _Kind.TICK, 0))
        elif kind == _Kind.READY:
            if replica in self._cancelled:
                self._cancelled.remove(replica)
            else:
                self._starting.remove(replica)
                self._idle.append(replica)
        else:
            self._finish(replica)
        self._start_requests()

    def _finish(self, replica: int) -> None:
        if replica in self._draining:
            took_s = self._draining.pop(replica)
        else:
            took_s = self._busy.pop(replica)
            self._idle.append(replica)
        mean_s = self._seen.service_s
        self._seen.service_s = took_s if mean_s is None else mean_s + (took_s - mean_s) * SERVICE_WEIGHT

    def _start_requests(self) -> None:
        now_s = self._seen.now_s
        while self._queue and self._idle:
            job = self._queue.popleft()
            replica = self._idle.pop()
            self._busy[replica] = job.service_s
            self.outcome.waits_s.append(now_s - job.at_s)
            heapq.heappush(self._events, (now_s + job.service_s, _Kind.DONE, replica))

    # --- scaling --------------------------------------------------------------------------

    def _look(self) -> None:
        seen = self._seen
        seen.in_flight = len(self._busy) + len(self._draining)
        seen.queued = len(self._queue)
        seen.ready = len(self._idle) + len(self._busy)
        wanted = self._scaler.look(seen)
        if wanted > seen.wanted:
            self._add(wanted - seen.wanted)
        else:
            self._remove(seen.wanted - wanted)
        seen.wanted = wanted

    def _add(self, count: int) -> None:
        for _ in range(count):
            self._replicas += 1
            self._starting.append(self._replicas)
            heapq.heappush(self._events, (self._seen.now_s + self._cold_start_s, _Kind.READY, self._replicas))
        self.outcome.starts += count

    def _remove(self, count: int) -> None:
        for _ in range(count):
            if self._starting:
                self._cancelled.add(self._starting.pop())
            elif self._idle:
                self._idle.pop()
            else:
                replica, takes_s = self._busy.popitem()
                self._draining[replica] = takes_s

    def _advance(self, at_s: float) -> None:
        seen = self._seen
        passed_s = at_s - seen.now_s
        costing = len(self._starting) + len(self._idle) + len(self._busy) + len(self._draining)
        self.outcome.gpu_s += costing * max(0.0, min(at_s, self._horizon_s) - seen.now_s)
        seen.load_s += (len(self._busy) + len(self._draining) + len(self._queue)) * passed_s
        seen.now_s = at_s
