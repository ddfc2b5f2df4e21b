"""The model of Knative's autoscaler by its own rules, the simulated endpoint by hand, and how they are compared."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from bench.autoscale.comparing import compare, met
from bench.autoscale.kpa import Kpa
from bench.autoscale.loads import shaped, split
from bench.autoscale.penstock import Penstock
from bench.autoscale.simulation import Seen, Simulation
from bench.queue.trace import Job


class Load:
    """Concurrency over time, seen every two seconds by a KPA that gets what it wants at once."""

    def __init__(self, **options: float) -> None:
        self.kpa = Kpa(most=64, **options)
        self.seen = Seen(0.0, 0, 0, 1, 1, 0.0, None, 0.0)

    def of(self, concurrency: float, seconds: int, *, starts: bool = True) -> list[int]:
        found = []
        for _ in range(seconds // 2):
            now = self.seen
            self.seen = replace(now, now_s=now.now_s + 2, load_s=now.load_s + 2 * concurrency)
            wanted = self.kpa.look(self.seen)
            self.seen = replace(self.seen, wanted=wanted, ready=wanted if starts else now.ready)
            found.append(wanted)
        return found


def test_a_steady_concurrency_is_divided_by_the_target() -> None:
    assert Load().of(7, 200)[-1] == 10
    assert Load(target_utilisation=1.0).of(7, 200)[-1] == 7


def test_panic_looks_at_six_seconds_and_never_goes_down_within_a_minute_after_it() -> None:
    load = Load()
    load.of(0.7, 120)
    up = load.of(20, 6)
    assert up[-1] == 29
    down = load.of(0.7, 120)
    # The panic began two seconds into the load, which then had what it needed.
    assert min(down[:28]) == 29 > down[28]
    assert down[-1] < 5


def test_outside_of_panic_it_at_most_halves_at_each_tick() -> None:
    load = Load()
    load.of(28, 200)
    falls = load.of(0, 200)
    assert all(later >= earlier // 2 for earlier, later in zip([40, *falls], falls, strict=False))
    assert falls[-1] == 0


def test_the_last_pod_stays_for_the_grace_period() -> None:
    load = Load()
    load.of(0.5, 100)
    after = load.of(0, 120)
    assert after.index(0) * 2 == pytest.approx(60 + 30, abs=4)


class Script:
    """Wants what it is told for each second."""

    tick_s = 1.0
    when_pressed = False

    def __init__(self, wanted: Sequence[int]) -> None:
        self.wanted = wanted
        self.seen: list[Seen] = []

    def look(self, seen: Seen) -> int:
        self.seen.append(replace(seen))
        return self.wanted[min(len(self.seen), len(self.wanted)) - 1]


def jobs(*pairs: tuple[float, float]) -> list[Job]:
    return [Job(at_s, service_s) for at_s, service_s in pairs]


def test_requests_wait_in_order_for_replicas_that_start_and_cost_from_then_on() -> None:
    load = jobs((0, 10), (0.5, 10), (0.6, 1), (20, 1))
    outcome = Simulation(load, Script([2]), cold_start_s=3).run()
    assert outcome.waits_s == pytest.approx([0, 3.5, 9.4, 0])
    assert outcome.gpu_s == pytest.approx(20 + 19)
    assert outcome.starts == 1


def test_what_is_taken_away_is_first_not_ready_then_idle_and_a_busy_replica_finishes() -> None:
    script = Script([3, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    outcome = Simulation(jobs((0, 8), (20, 1)), script, cold_start_s=1.5).run()
    # Two start at 1 s; one is cancelled at 2 s; the other is ready at 2.5 s and goes, idle, at 4 s; the
    # first goes at 6 s but works until 8 s; the last starts at 12 s.
    assert outcome.gpu_s == pytest.approx(8 + 1 + 3 + 8)
    assert [seen.in_flight for seen in script.seen[:8]] == [1] * 7 + [0]
    assert [seen.ready for seen in script.seen[:7]] == [1, 1, 2, 2, 1, 1, 0]
    assert outcome.waits_s == [0, 0]


def test_every_request_is_served_by_both_and_the_comparison_says_what_it_cost() -> None:
    load = jobs(*((at * 0.5, 2 + at % 3) for at in range(600)))
    figures = compare([load], cold_start_s=5, headrooms=(0, 1, 2, 3))
    assert figures["requests"] == 600
    assert figures["mean_load"] == pytest.approx(6, abs=0.1)
    for name, points in figures["sweeps"].items():
        assert all(point["gpu_s"] >= figures["mean_load"] * 290 * 0.9 for point in points), name
    assert len(Simulation(load, Penstock(most=64), cold_start_s=5).run().waits_s) == 600


def test_the_aim_is_met_by_either_ratio_and_by_none_that_is_missing() -> None:
    def figures(wait: float | None, cost: float | None) -> dict[str, float | None]:
        return {"p99_wait_ratio_at_equal_gpu_s": wait, "gpu_s_ratio_at_equal_p99_wait": cost}

    assert met(figures(0.5, None))
    assert met(figures(None, 0.85))
    assert not met(figures(0.51, 0.86))
    assert not met(figures(None, None))


def test_loads_are_parts_of_the_trace_and_the_same_every_time() -> None:
    trace = jobs(*((float(at), 1.0) for at in range(1000)))
    parts = split(trace, 3)
    assert sorted((job for part in parts for job in part), key=lambda job: job.at_s) == trace
    half = shaped(trace, lambda at_s: 0.5)
    assert half == shaped(trace, lambda at_s: 0.5)
    assert 400 < len(half) < 600
