"""Counters and histograms."""

from hypothesis import given
from hypothesis import strategies as st

from penstock_common.contracts.statistics import bucket_of as bucket
from penstock_gateway.stats import EndpointStats, Histogram

TIMES = st.integers(0, 2**39)


@given(TIMES, TIMES)
def test_buckets_keep_the_order_of_times(one: int, other: int) -> None:
    if one <= other:
        assert bucket(one) <= bucket(other)


@given(st.integers(4, 2**39))
def test_times_in_one_bucket_differ_by_less_than_a_quarter(us: int) -> None:
    assert bucket(us) < bucket(us + us // 4 + 1)


@given(st.lists(TIMES), st.integers(2, 39))
def test_what_is_below_a_power_of_two_is_counted_exactly(times: list[int], bits: int) -> None:
    histogram = Histogram()
    for us in times:
        histogram.record(us)
    assert histogram.below(bits) == sum(us < 2**bits for us in times)
    assert histogram.count == len(times)
    assert histogram.total_us == sum(times)


def test_a_time_beyond_all_buckets_is_counted_in_the_last() -> None:
    histogram = Histogram()
    histogram.record(2**60)
    assert histogram.count == 1


def test_statistics_add_up() -> None:
    one, other = EndpointStats(), EndpointStats()
    one.answered(200, 0, 5, 9)
    other.answered(200, 1, 7, 7)
    other.ended(503)
    one.add(other)
    assert one.statuses == {200: 2, 503: 1}
    assert (one.latency.count, one.queue_wait.total_us, one.first_byte.total_us) == (2, 1, 12)
    assert one.latency.total_us == 16
