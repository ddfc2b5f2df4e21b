"""Scheduled minimums: windows of time in a time zone, over the nights in which the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from penstock_common.contracts.endpoint import Scaling, ScheduledMinimum
from penstock_gateway.autoscaling.policy import last_fired, minimum_at, policy_at

BERLIN = "Europe/Berlin"


def window(start: str, end: str, zone: str = "UTC", replicas: int = 3) -> ScheduledMinimum:
    return ScheduledMinimum(start=start, end=end, time_zone=zone, min_replicas=replicas)


def scaling(*windows: ScheduledMinimum, least: int = 0) -> Scaling:
    return Scaling(min_replicas=least, max_replicas=8, schedule=windows)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_without_a_schedule_the_minimum_is_the_endpoints_own() -> None:
    assert minimum_at(scaling(least=2), at("2026-01-01T00:00Z")) == 2


@pytest.mark.parametrize(
    ("now", "least"),
    [
        ("2026-06-01T05:59:59+00:00", 0),  # Monday, 7:59:59 in Berlin
        ("2026-06-01T06:00:00+00:00", 3),
        ("2026-06-01T15:59:59.999+00:00", 3),
        ("2026-06-01T16:00:00+00:00", 0),
        ("2026-06-06T10:00:00+00:00", 0),  # Saturday
        ("2026-12-01T07:00:00+00:00", 3),  # an hour later by UTC: winter
        ("2026-12-01T06:59:00+00:00", 0),
    ],
)
def test_office_hours_are_those_of_the_wall_clock(now: str, least: int) -> None:
    office = scaling(window("0 8 * * 1-5", "0 18 * * 1-5", BERLIN))
    assert minimum_at(office, at(now)) == least
    assert minimum_at(office, at(now).astimezone(ZoneInfo("Asia/Tokyo"))) == least


def test_a_window_may_last_over_midnight_and_over_a_weekend() -> None:
    night = scaling(window("0 22 * * *", "0 6 * * *"), window("0 18 * * 5", "0 6 * * 1", replicas=5))
    assert minimum_at(night, at("2026-06-03T23:00Z")) == 3
    assert minimum_at(night, at("2026-06-03T05:59Z")) == 3
    assert minimum_at(night, at("2026-06-03T06:00Z")) == 0
    assert minimum_at(night, at("2026-06-07T12:00Z")) == 5


def test_of_open_windows_the_highest_holds_and_never_less_than_the_endpoints_own() -> None:
    both = scaling(
        window("0 8 * * *", "0 18 * * *", replicas=2), window("0 12 * * *", "0 13 * * *", replicas=6), least=4
    )
    assert [minimum_at(both, at(f"2026-06-01T{hour:02}:30Z")) for hour in (7, 9, 12, 13)] == [4, 4, 6, 4]


def test_a_start_line_that_fires_often_keeps_the_window_open() -> None:
    assert minimum_at(scaling(window("* 8 * * *", "0 18 * * *")), at("2026-06-01T08:30Z")) == 3


def test_a_policy_is_the_scaling_with_the_minimum_of_the_moment() -> None:
    spec = Scaling(
        min_replicas=0,
        max_replicas=8,
        idle_timeout_s=7,
        scale_down_delay_s=9,
        target_concurrency=4,
        queue_wait_target_s=0.5,
        schedule=(window("0 8 * * *", "0 18 * * *"),),
    )
    made = policy_at(spec, at("2026-06-01T09:00Z"))
    assert (made.minimum, made.maximum, made.concurrency) == (3, 8, 4)
    assert (made.idle_timeout_s, made.scale_down_delay_s, made.queue_wait_target_s) == (7, 9, 0.5)
    assert policy_at(spec, at("2026-06-01T19:00Z")).minimum == 0


LINES = (
    "30 2 * * *",
    "0 3 * * *",
    "0 2 * * 0",
    "30 1 * * *",
    "15,45 1-3 * * *",
    "*/20 * * * *",
    "5 * * * *",
    "0 0 * * *",
)
NIGHTS = (
    (BERLIN, "2026-03-29T00:00Z"),  # 2:00 becomes 3:00 at 1:00 UTC
    (BERLIN, "2026-10-25T00:00Z"),  # 3:00 becomes 2:00 at 1:00 UTC
    ("America/New_York", "2026-03-08T06:00Z"),
    ("America/New_York", "2026-11-01T05:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T14:00Z"),  # half an hour
    ("Australia/Lord_Howe", "2026-10-03T14:00Z"),
)


@pytest.mark.parametrize(("zone", "night"), NIGHTS)
@pytest.mark.parametrize("line", LINES)
def test_looking_back_finds_what_running_forward_fired_while_the_clocks_change(
    line: str, zone: str, night: str
) -> None:
    tz = ZoneInfo(zone)
    begin = at(night) - timedelta(days=8)
    end = at(night) + timedelta(hours=5)
    fired = []
    for time in CronSim(line, begin.astimezone(tz)):
        if time.astimezone(UTC) > end:
            break
        fired.append(time.astimezone(UTC))
    minute = at(night) - timedelta(hours=2)
    while minute < end:
        assert last_fired(line, tz, minute) == max(time for time in fired if time <= minute), minute
        minute += timedelta(minutes=5)
