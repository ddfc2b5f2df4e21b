"""From raw rounds to the figures and aims of the result files."""

from typing import Any

import pytest
from bench.figures import percentile, rounded
from bench.gateway import shaping as gateway
from bench.queue import shaping as queue
from hypothesis import given
from hypothesis import strategies as st

DIRECT: dict[str, dict[str, Any]] = {"latency": {"p50_us": 40, "p99_us": 90}, "streams": {"ttft_p99_ms": 1.5}}
SAID: dict[str, dict[str, Any]] = {
    "small": {"rps": 50_000.0, "cpu_us_per_request": 20.0, "rss_mb": 60.0},
    "latency": {"p50_us": 100, "p99_us": 190},
    "streams": {"sse_events_per_s": 25_000.0, "sse_cpu_us_per_event": 8.0, "ttft_p99_ms": 3.0},
    "upload": {"mb_per_s": 1000.0, "growth_mb": 0.5},
    "idle": {"added_mb": 30.0},
}


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    enough = len(values) * percent / 100
    assert sum(value <= found for value in values) >= enough
    assert sum(value < found for value in values) < max(enough, 1)


def test_a_figure_keeps_four_digits() -> None:
    assert [rounded(value) for value in (51234.9, 0.0123456, 7.0)] == [51230.0, 0.01235, 7.0]


def test_added_times_are_differences_to_the_direct_turn_of_the_same_round() -> None:
    figures = gateway.turn_figures(SAID, DIRECT)
    assert figures["p50_added_ms"] == pytest.approx(0.06)
    assert figures["p99_added_ms"] == pytest.approx(0.1)
    assert figures["ttft_p99_added_ms"] == pytest.approx(1.5)
    assert figures["upload_growth_mb_per_connection"] == 0.5


def test_what_was_not_measured_has_no_figure() -> None:
    figures = gateway.turn_figures({"small": SAID["small"]}, DIRECT)
    assert set(figures) == {"rps", "cpu_us_per_request", "rss_mb"}


def test_an_event_of_which_none_came_has_no_cost() -> None:
    streams = {**SAID["streams"], "sse_cpu_us_per_event": None}
    assert "sse_cpu_us_per_event" not in gateway.turn_figures({"streams": streams}, DIRECT)


def test_each_candidate_has_the_median_of_its_own_rounds() -> None:
    turns = [("nginx", {"rps": 1.0}), ("penstock", {"rps": 10.0}), ("nginx", {"rps": 3.0}), ("nginx", {"rps": 2.5})]
    found = gateway.medians(turns)
    assert found["rps"] == {"nginx": 2.5, "penstock": 10.0}
    assert found["idle_connections_mb"] == {}


@pytest.mark.parametrize(("ours", "met"), [(15.0, True), (15.1, False)])
def test_an_aim_beside_a_peer_is_met_up_to_its_factor(ours: float, met: bool) -> None:
    aim = gateway.Aim("cpu_us_per_request", True, 1.5, "nginx")
    judged = aim.judged({"cpu_us_per_request": {"penstock": ours, "nginx": 10.0}})
    assert judged is not None
    assert judged["met"] is met
    assert judged["aim"] == "cpu_us_per_request <= 1.5 x nginx"


@pytest.mark.parametrize(("ours", "met"), [(7500.0, True), (7499.0, False)])
def test_an_aim_from_below_is_met_from_its_factor_on(ours: float, met: bool) -> None:
    judged = gateway.Aim("rps", False, 0.75, "nginx").judged({"rps": {"penstock": ours, "nginx": 10_000.0}})
    assert judged is not None
    assert judged["met"] is met


def test_an_aim_without_its_figures_is_not_judged() -> None:
    figures = gateway.medians([("penstock", {"rps": 1.0, "p50_added_ms": 0.2})])
    assert gateway.judge(figures) == [{"aim": "p50_added_ms <= 0.1", "found": 0.2, "met": False}]


def test_waits_are_taken_over_all_parts_of_the_trace() -> None:
    waits_s = {"penstock": [0.001] * 98 + [0.05, 0.1], queue.SIMULATED: [0.001] * 100}
    figures = queue.figures(waits_s, {"penstock": 0})
    assert figures["p50_wait_ms"] == {"penstock": 1.0, queue.SIMULATED: 1.0}
    assert figures["p99_wait_ms"]["penstock"] == 50.0


def test_the_queue_is_judged_beside_the_simulation_and_each_peer_that_was_measured() -> None:
    p99_ms = {"penstock": 104.0, queue.SIMULATED: 100.0, "haproxy": 101.0, "envoy": 200.0}
    judged = queue.judge({"p99_wait_ms": p99_ms, "began_on_busy": {"penstock": 1}})
    assert {one["aim"]: one["met"] for one in judged} == {
        "p99_wait_ms <= 1.05 x simulated_central_fifo": True,
        "p99_wait_ms <= 1.02 x haproxy": False,
        "p99_wait_ms <= 1 x envoy": True,
        "began_on_busy == 0": False,
    }


def test_nothing_is_judged_without_penstock() -> None:
    assert queue.judge({"p99_wait_ms": {"nginx": 1.0}, "began_on_busy": {}}) == []
