"""Merging what gateways counted, and the windows that users ask for: the pure parts of metrics."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_api.domain.metrics import CLASSES, Rollup, Tally, by_class, coarser, merged, series, tally_of, total_of
from penstock_api.domain.problems import Problem
from penstock_api.domain.windows import POINTS_BY_DEFAULT, POINTS_MAX, Kept, Window, aligned, metrics_window
from penstock_common.contracts.statistics import BUCKETS_MAX, EndpointStatistics, bucket_of, quantile_us, upper_us

NOW = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
KEPT = (Kept(10, 2 * 3600), Kept(60, 48 * 3600), Kept(3600, 90 * 86_400))

_counts = st.dictionaries(st.integers(0, BUCKETS_MAX - 1), st.integers(1, 1000), max_size=5)
_whole = st.integers(0, 10**12)
_times = st.timedeltas(timedelta(0), timedelta(minutes=1)).map(lambda since: NOW + since)
_replicas = st.none() | st.tuples(_times, st.integers(0, 64), st.integers(0, 64))
tallies = st.builds(
    Tally,
    statuses=st.dictionaries(st.sampled_from([101, 200, 204, 302, 404, 422, 499, 500, 503]), st.integers(1, 1000)),
    latency=_counts,
    queue_wait=_counts,
    first_byte=_counts,
    first_token=_counts,
    prompt_tokens=_whole,
    completion_tokens=_whole,
    cold_starts=_whole,
    measured_us=_whole,
    in_flight_us=_whole,
    queued_us=_whole,
    in_flight_max=_whole,
    queued_max=_whole,
    replicas=_replicas,
)


def told(**fields: Any) -> EndpointStatistics:
    common = {"gateway_id": "gw_1", "endpoint_id": "ep_1", "organization_id": "org_1", "at": NOW, "interval_s": 1.0}
    return EndpointStatistics(**{**common, **fields})


def rollup(at: datetime, tally: Tally, *, endpoint_id: str = "ep_1", step_s: int = 10, number: int = 0) -> Rollup:
    return Rollup(str(number), endpoint_id, at, step_s, tally)


# --- merging --------------------------------------------------------------------------------


@given(tallies, tallies, tallies)
def test_merging_is_associative_and_commutative_and_nothing_changes_nothing(
    one: Tally, two: Tally, three: Tally
) -> None:
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert merged(one, two) == merged(two, one)
    assert merged(one, Tally()) == one == merged(Tally(), one)


@given(
    st.lists(st.lists(st.integers(0, 10**10), max_size=30), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_quantiles_of_merged_parts_are_those_of_all_requests_in_one_histogram(
    parts: list[list[int]], share: float
) -> None:
    def histogram(times_us: list[int]) -> dict[int, int]:
        counts: dict[int, int] = {}
        for us in times_us:
            counts[bucket_of(us)] = counts.get(bucket_of(us), 0) + 1
        return counts

    whole = [us for part in parts for us in part]
    total = total_of(Tally(latency=histogram(part)) for part in parts)

    assert quantile_us(total.latency, share) == quantile_us(histogram(whole), share)
    if whole:
        assert quantile_us(total.latency, 1.0) == upper_us(bucket_of(max(whole)))


@given(st.lists(st.tuples(st.integers(0, 7199), tallies), max_size=12), st.permutations(range(12)))
def test_a_series_holds_the_same_whether_its_rollups_were_made_coarser_or_not(
    given_: list[tuple[int, Tally]], order: list[int]
) -> None:
    start = aligned(NOW, HOUR) - 2 * HOUR
    fine = [
        rollup(aligned(start + timedelta(seconds=second), timedelta(seconds=10)), tally, number=number)
        for number, (second, tally) in enumerate(given_)
    ]
    shuffled = [fine[place] for place in order if place < len(fine)]
    window = Window(start, start + 2 * HOUR, HOUR)

    by_minute = coarser(shuffled, 60)
    assert series(fine, window) == series(by_minute, window) == series(coarser(by_minute, 3600), window)
    assert len({(each.endpoint_id, each.at) for each in by_minute}) == len(by_minute)
    assert total_of(tally for _, tally in series(fine, window)) == total_of(each.tally for each in fine)


def test_endpoints_are_never_mixed() -> None:
    fine = [rollup(NOW, Tally(cold_starts=1)), rollup(NOW, Tally(cold_starts=2), endpoint_id="ep_2")]

    assert [(each.endpoint_id, each.tally.cold_starts) for each in coarser(fine, 60)] == [("ep_1", 1), ("ep_2", 2)]


def test_a_message_becomes_a_tally_and_gauges_count_for_as_long_as_they_were() -> None:
    busy = tally_of(told(interval_s=2, in_flight=3, queued=1, replicas=2, desired_replicas=4, statuses={200: 5}), NOW)
    quiet = tally_of(told(interval_s=1, in_flight=0, replicas=3, desired_replicas=3), NOW + timedelta(seconds=1))

    both = merged(quiet, busy)

    assert both.in_flight_us / both.measured_us == 2.0
    assert (both.in_flight_max, both.queued_max, both.statuses) == (3, 1, {200: 5})
    assert both.replicas == (NOW + timedelta(seconds=1), 3, 3)


def test_what_no_gateway_would_count_is_left_out() -> None:
    tally = tally_of(
        told(latency={BUCKETS_MAX: 1, -1: 1, 3: 2, 4: -5}, statuses={700: 1, 200: 1}, interval_s=-1.0), NOW
    )

    assert (tally.latency, tally.statuses, tally.measured_us) == ({3: 2}, {200: 1}, 0)


def test_statuses_have_classes_and_a_client_that_left_its_own() -> None:
    found = by_class({200: 3, 204: 1, 302: 1, 404: 2, 499: 7, 500: 1, 503: 1, 101: 1})

    assert found == {"2xx": 4, "3xx": 1, "4xx": 2, "499": 7, "5xx": 2}
    assert tuple(found) == CLASSES


# --- windows --------------------------------------------------------------------------------


def test_without_any_parameter_it_is_the_last_hour_in_at_most_120_steps() -> None:
    window = metrics_window(None, None, None, NOW, KEPT)

    assert window.step == timedelta(seconds=30)
    assert window.count == POINTS_BY_DEFAULT
    assert window.end - window.step < NOW <= window.end


@given(
    st.timedeltas(timedelta(seconds=1), 90 * DAY),
    st.none() | st.timedeltas(timedelta(seconds=1), 90 * DAY),
)
def test_every_window_is_aligned_covers_what_was_asked_and_is_in_steps_that_are_kept(
    age: timedelta, end_age: timedelta | None
) -> None:
    start, end = NOW - age, None if end_age is None else NOW - end_age
    if end is not None and start >= end:
        with pytest.raises(Problem, match="from: must be earlier than to"):
            metrics_window(start, end, None, NOW, KEPT)
        return

    window = metrics_window(start, end, None, NOW, KEPT)

    assert 1 <= window.count <= POINTS_BY_DEFAULT
    assert aligned(window.start, window.step) == window.start
    assert window.start - start < window.step
    assert window.end - window.step < (end or NOW) <= window.end
    finest = 10 if age <= 2 * HOUR else 60 if age <= 48 * HOUR else 3600
    assert window.step % timedelta(seconds=finest) == timedelta(0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("30s", 30), ("1m", 60), ("90 s", 90), ("2h", 7200), ("1d", 86_400)]
)
def test_steps_are_lengths_of_time(text: str, seconds: int) -> None:
    start = NOW - (10 * DAY if seconds % 3600 == 0 else HOUR)

    assert metrics_window(start, None, text, NOW, KEPT).step == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("start", "end", "step", "field", "message"),
    [
        (NOW + HOUR, None, None, "from", "lies in the future"),
        (NOW - HOUR, NOW - 2 * HOUR, None, "from", "must be earlier than to"),
        (NOW - 92 * DAY, None, None, "from", "kept for 90 days: ask for a time since then"),
        (datetime(2026, 3, 1, 11), None, None, "from", "needs a time zone"),  # noqa: DTZ001
        (None, datetime(2026, 3, 1, 11), None, "to", "needs a time zone"),  # noqa: DTZ001
        (None, None, "soon", "step", "write it like 30s, 5m or 1h"),
        (None, None, "-1m", "step", "write it like 30s, 5m or 1h"),
        (None, None, "0", "step", "write it like 30s, 5m or 1h"),
        (None, None, "15s", "step", "must be a multiple of 10 seconds"),
        (None, None, "2d", "step", "at most a day"),
        (NOW - 3 * HOUR, None, "30s", "step", "kept in steps of 1m only: use a multiple of that, or a later from"),
        (NOW - 3 * DAY, None, "5m", "step", "kept in steps of 1h only"),
        (NOW - 40 * HOUR, None, "1m", "step", f"gives 2401 points, and at most {POINTS_MAX} are allowed: use 5m"),
        (NOW - 80 * DAY, None, "1h", "step", "use 2h or more"),
    ],
)
def test_a_window_that_makes_no_sense_names_the_parameter_and_the_mend(
    start: datetime | None, end: datetime | None, step: str | None, field: str, message: str
) -> None:
    with pytest.raises(Problem) as refused:
        metrics_window(start, end, step, NOW, KEPT)

    [error] = refused.value.errors
    assert error.field == field
    assert message in error.message


def test_an_end_in_the_future_is_now() -> None:
    assert metrics_window(None, NOW + DAY, None, NOW, KEPT) == metrics_window(None, None, None, NOW, KEPT)
