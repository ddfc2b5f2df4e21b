"""When a request is tried again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.retry import RetryPolicy, retry_after_s

policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    first_delay_s=st.floats(0.01, 5),
    longest_delay_s=st.floats(0.1, 60),
    total_s=st.floats(0, 600),
)
fractions = st.floats(0, 1, exclude_max=True)
waits = st.none() | st.floats(0, 300)


@given(policies, st.integers(1, 30), st.floats(0, 700), fractions, waits)
def test_a_wait_keeps_within_all_bounds(
    policy: RetryPolicy, tried: int, elapsed_s: float, random: float, wanted_s: float | None
) -> None:
    delay_s = policy.delay_s(tried, elapsed_s=elapsed_s, random=random, retry_after_s=wanted_s)
    if delay_s is not None:
        assert tried < policy.attempts
        assert elapsed_s + delay_s <= policy.total_s
        assert (wanted_s or 0) <= delay_s <= (wanted_s or 0) + policy.longest_delay_s


@given(policies, st.integers(1, 19))
def test_the_ceiling_doubles_until_it_is_highest(policy: RetryPolicy, tried: int) -> None:
    assert policy.ceiling_s(tried + 1) in (
        pytest.approx(2 * policy.ceiling_s(tried)),
        pytest.approx(policy.longest_delay_s),
    )


def test_jitter_takes_the_whole_range() -> None:
    policy = RetryPolicy(first_delay_s=1, longest_delay_s=8)
    waits = [policy.delay_s(3, elapsed_s=0, random=random) for random in (0.0, 0.5, 0.75)]
    assert waits == [0.0, 2.0, 3.0]


def test_a_huge_number_of_attempts_does_not_overflow() -> None:
    assert RetryPolicy(attempts=10**6).ceiling_s(10**5) == 10


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT", "date": "Sun, 01 Mar 2026 12:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT", "date": "Sun, 01 Mar 2026 12:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 -0000", "date": "Sun, 01 Mar 2026 12:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected
