"""Numbers, times and money as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.exits import UsageProblem
from penstock.cli.words import (
    ago,
    amount,
    duration,
    micros_of,
    milliseconds,
    moment_of,
    money,
    plain,
    plural,
    seconds_of,
    sparkline,
    timestamp,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"), (7500, "2 h 5 min"), (86399, "23 h 59 min"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_readable(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("0.5s", 0.5), ("10m", 600), ("2 h", 7200), ("1d", 86400)])
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text, "--timeout") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1.", "nan", "9" * 400])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"--timeout: .* like 90s, 10m or 2h"):
        seconds_of(text, "--timeout")


def test_moments_are_days_times_or_how_long_ago() -> None:
    assert moment_of("2h", "--from", NOW) == NOW - timedelta(hours=2)
    assert moment_of("2026-02-01", "--from", NOW) == datetime(2026, 2, 1, tzinfo=UTC)
    assert moment_of("2026-02-01T10:00:00+01:00", "--from", NOW) == datetime(2026, 2, 1, 9, tzinfo=UTC)
    with pytest.raises(UsageProblem, match="how long ago"):
        moment_of("yesterday", "--from", NOW)


@pytest.mark.parametrize("text", ["99999999999d", "9" * 400 + "d", "0000-01-01"])
def test_moments_that_no_calendar_holds_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"--from: .* is not a time"):
        moment_of(text, "--from", NOW)


def test_times_are_shown_in_utc_and_as_ages() -> None:
    assert timestamp(datetime.fromisoformat("2026-03-01T13:00:00.1234+01:00")) == "2026-03-01T12:00:00.123Z"
    assert ago(NOW - timedelta(minutes=2), NOW) == "2 min 0 s ago"
    assert ago(NOW + timedelta(seconds=5), NOW) == "0.0 s ago"
    assert ago(None, NOW) == ""


@given(st.integers(0, 10**15))
def test_money_is_exact_there_and_back(micros: int) -> None:
    text = money(micros, "USD")
    amount, currency = text.split()
    assert currency == "USD"
    assert len(amount.partition(".")[2]) >= 2
    assert micros_of(amount, "AMOUNT") == micros


@pytest.mark.parametrize("text", ["", "x", "-1", "0.0000001", "inf", "nan", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="AMOUNT"):
        micros_of(text, "AMOUNT")


def test_no_amount_is_no_words() -> None:
    assert money(None, "USD") == ""
    assert money(5, None) == "0.000005"


@given(st.text())
def test_plain_text_holds_no_control_characters(text: str) -> None:
    assert not [c for c in plain(text) if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert len(plain(text)) == len(text)


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.00412, "0.00412"), (2.5, "2.5"), (99.96, "100"), (137.4, "137"), (5000, "5000")]
)
def test_amounts_have_three_digits(value: float, words: str) -> None:
    assert amount(value) == words


def test_short_times_are_in_milliseconds() -> None:
    assert [milliseconds(ms) for ms in (0.25, 12.288, 999, 1500, 90_000)] == [
        "0.25 ms", "12.3 ms", "999 ms", "1.5 s", "1 min 30 s",
    ]  # fmt: skip


def test_a_sparkline_is_as_high_as_its_highest_and_blank_where_nothing_is_known() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 60) == "▁▂▃▄▅▆▇██"
    assert sparkline([None, 0, 0], 60) == " ▁▁"
    assert sparkline([], 60) == ""
    assert sparkline([0, 9, None, None, 0, 0], 3) == "█ ▁"


@given(st.lists(st.none() | st.floats(0, 1e12), max_size=300), st.integers(1, 80))
def test_a_sparkline_is_never_wider_than_it_may_be(values: list[float | None], width: int) -> None:
    assert len(sparkline(values, width)) <= min(width, len(values))


def test_plurals() -> None:
    assert [plural(1, "field"), plural(2, "field")] == ["1 field", "2 fields"]
