"""The trace, the simulated queue, and the replay through real sockets."""

import asyncio
from itertools import pairwise
from time import perf_counter

import pytest
from bench.queue.precise import precise_loop
from bench.queue.replay import Replay
from bench.queue.simulation import central_fifo_waits_s
from bench.queue.trace import Job, read, scale, split
from hypothesis import given
from hypothesis import strategies as st

LINES = [
    "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "2023-11-16 18:15:46.6805900,374,44\n",
    "2023-11-16 18:15:50.9951690,396,109\n",
    "2023-11-16 18:16:06.6805900,0,0\n",
]
SHORT_S = 0.0001
"""Shorter than what epoll can wait."""
TIMES_S = st.floats(0.001, 10)
JOBS = st.lists(st.tuples(TIMES_S, TIMES_S), min_size=2, max_size=40).map(
    lambda pairs: [
        Job(at_s, service_s) for at_s, (_, service_s) in zip(sorted(p[0] for p in pairs), pairs, strict=True)
    ]
)


# --- the trace ------------------------------------------------------------------------------


def test_a_job_has_its_time_from_the_first_and_a_service_time_by_its_tokens() -> None:
    jobs = read(LINES)
    assert [job.at_s for job in jobs] == pytest.approx([0.0, 4.314579, 20.0])
    assert [job.service_s for job in jobs] == pytest.approx([0.05 + 0.0374 + 1.1, 0.05 + 0.0396 + 2.725, 0.05])


@pytest.mark.parametrize("lines", [["a,b\n", "1,2\n"], LINES[:2], [LINES[0], LINES[2], LINES[1]]])
def test_a_file_that_is_not_the_trace_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="the trace must"):
        read(lines)


@given(JOBS, st.floats(1, 100), st.integers(1, 16), st.floats(0.1, 1))
def test_scaled_jobs_fill_the_wanted_part_of_the_replicas_time(
    jobs: list[Job], seconds: float, replicas: int, utilisation: float
) -> None:
    scaled = scale(jobs, seconds=seconds, replicas=replicas, utilisation=utilisation)
    assert scaled[-1].at_s == pytest.approx(seconds)
    assert sum(job.service_s for job in scaled) == pytest.approx(utilisation * replicas * seconds)
    factor = scaled[0].service_s / jobs[0].service_s
    assert [job.service_s for job in scaled] == pytest.approx([job.service_s * factor for job in jobs])


@given(JOBS, st.integers(1, 5))
def test_the_parts_hold_every_job_once_at_its_time(jobs: list[Job], count: int) -> None:
    seconds = jobs[-1].at_s / count
    parts = split(jobs, seconds=seconds, parts=count)
    assert len(parts) == count
    again = [(number * seconds + job.at_s, job.service_s) for number, part in enumerate(parts) for job in part]
    assert [at_s for at_s, _ in again] == pytest.approx([job.at_s for job in jobs])
    assert [service_s for _, service_s in again] == [job.service_s for job in jobs]
    assert all(-1e-9 <= job.at_s <= seconds * (1 + 1e-9) for part in parts for job in part)


# --- the simulated queue --------------------------------------------------------------------


def test_a_job_waits_for_the_first_replica_that_is_free() -> None:
    jobs = [Job(0, 10), Job(1, 3), Job(2, 5), Job(3, 1), Job(20, 1)]
    assert central_fifo_waits_s(jobs, 2) == [0, 0, 2, 6, 0]


@given(JOBS)
def test_one_replica_keeps_the_recursion_of_lindley(jobs: list[Job]) -> None:
    waits_s = central_fifo_waits_s(jobs, 1)
    for (earlier, waited_s), (later, waits) in pairwise(zip(jobs, waits_s, strict=True)):
        assert waits == pytest.approx(max(0.0, waited_s + earlier.service_s - (later.at_s - earlier.at_s)))


@given(JOBS, st.integers(1, 6))
def test_never_more_jobs_are_worked_on_than_there_are_replicas(jobs: list[Job], replicas: int) -> None:
    waits_s = central_fifo_waits_s(jobs, replicas)
    spans = [(job.at_s + wait, job.at_s + wait + job.service_s) for job, wait in zip(jobs, waits_s, strict=True)]
    assert [begin for begin, _ in spans] == sorted(begin for begin, _ in spans)
    for begin, _ in spans:
        assert sum(other <= begin < end - 1e-9 for other, end in spans) <= replicas


# --- the replay -----------------------------------------------------------------------------


def test_timers_are_finer_than_a_millisecond() -> None:
    async def shortest_s() -> float:
        took_s = []
        for _ in range(50):
            began_s = perf_counter()
            await asyncio.sleep(SHORT_S)
            took_s.append(perf_counter() - began_s)
        return min(took_s)

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        assert SHORT_S <= runner.run(shortest_s()) < 0.001


def test_a_loop_without_timers_waits_for_what_happens() -> None:
    async def told() -> bytes:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bytes] = loop.create_future()
        await asyncio.sleep(SHORT_S)  # leaves an expired timer behind
        loop.run_in_executor(None, lambda: loop.call_soon_threadsafe(heard.set_result, b"told"))
        return await heard

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        assert runner.run(told()) == b"told"


def test_a_replica_works_on_one_request_at_a_time_and_counts_those_that_find_it_at_work() -> None:
    jobs = [Job(0, 0.3), Job(0.001, 0.1), Job(0.002, 0.1)]
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        replay = Replay(jobs, 2)
        addresses = runner.run(replay.listen())
        # Straight to the first replica: nothing in between keeps the requests apart.
        seen = runner.run(replay.run(int(addresses[0].rpartition(":")[2])))
    assert seen.answered == 3
    assert seen.arrived_at_busy == 2
    first, second, third = seen.waits_s()
    assert first < second < third
