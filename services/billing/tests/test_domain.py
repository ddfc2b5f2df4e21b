"""The arithmetic of the ledger, by example."""

from datetime import UTC, datetime, timedelta

import pytest

from penstock_billing.domain import (
    PricedTypes,
    PriceLine,
    Segment,
    Use,
    Window,
    accrued_micros,
    checked_price,
    holds_already,
    in_force,
    metered,
    tariff_of,
    types_priced_by,
    upcoming,
    usage,
    use_of,
)
from penstock_common.errors import DomainError

T0 = datetime(2026, 3, 10, 22, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
US = timedelta(microseconds=1)


def line(gpu_type: str, micros_per_hour: int, valid_from: datetime = T0 - 1000 * HOUR) -> PriceLine:
    return PriceLine(gpu_type, valid_from, micros_per_hour, "USD")


def gpu_segment(started_at: datetime | None = T0, ended_at: datetime | None = None, count: int = 1) -> Segment:
    return Segment("rep_1", "org_1", "ep_1", started_at, ended_at, gpu_type="H100", gpu_count=count, cpu_cores=8)


LINES = [line("CPU", 50_000), line("*", 2_000_000), line("H100", 3_600_000)]
H100 = tariff_of("H100", LINES)
ALWAYS = Window(T0 - 100 * HOUR, T0 + 100 * HOUR)


def test_an_hour_of_two_gpus_costs_twice_the_price() -> None:
    use = use_of(gpu_segment(ended_at=T0 + HOUR, count=2), H100, ALWAYS)
    assert use == Use(replica_us=3_600_000_000, gpu_us=7_200_000_000, cost_micros=7_200_000)


def test_a_cpu_replica_costs_its_cores_and_uses_no_gpu_time() -> None:
    segment = Segment("rep_1", "org_1", "ep_1").with_start(T0, gpu_type=None, gpu_count=0, cpu_cores=4)
    assert use_of(segment, tariff_of("CPU", LINES), Window(T0, T0 + HOUR)) == Use(3_600_000_000, 0, 200_000)


def test_a_fraction_of_a_micro_is_dropped_only_once_however_the_time_is_cut() -> None:
    segment = gpu_segment(ended_at=T0 + 1500 * US)  # 1.5 micros at 1 micro per millisecond
    assert use_of(segment, H100, ALWAYS).cost_micros == 1
    pieces = [Window(T0 + part * US, T0 + (part + 1) * US) for part in range(1500)]
    assert [use_of(segment, H100, piece).cost_micros for piece in pieces].count(1) == 1


def test_nothing_is_metered_before_the_start_is_known() -> None:
    ended_only = Segment("rep_1", "org_1", "ep_1").with_end(T0)
    assert metered(ended_only, ALWAYS) is None
    assert use_of(ended_only, H100, ALWAYS) == Use()
    assert accrued_micros(ended_only, H100, T0 + HOUR) == 0


def test_an_end_before_the_start_costs_zero() -> None:
    assert use_of(gpu_segment(ended_at=T0 - HOUR), H100, ALWAYS) == Use()


def test_the_order_in_which_start_and_end_become_known_does_not_matter() -> None:
    blank = Segment("rep_1", "org_1", "ep_1")
    start = {"gpu_type": "H100", "gpu_count": 1, "cpu_cores": 8}
    expected = gpu_segment(ended_at=T0 + HOUR)
    assert blank.with_start(T0, **start).with_end(T0 + HOUR) == expected
    assert blank.with_end(T0 + HOUR).with_start(T0, **start) == expected


def test_a_fact_told_twice_with_different_times_counts_at_the_earliest() -> None:
    segment = gpu_segment(ended_at=T0 + HOUR)
    later = {"gpu_type": "T4", "gpu_count": 4, "cpu_cores": 1}
    assert segment.with_start(T0 + US, **later) == segment
    assert segment.with_end(T0 + 2 * HOUR) == segment
    assert segment.with_end(T0 + US).ended_at == T0 + US
    assert segment.with_start(T0 - US, **later).units == 4


def test_a_segment_that_spans_a_change_of_price_is_priced_piece_by_piece() -> None:
    tariff = tariff_of("H100", [*LINES, line("H100", 7_200_000, T0 + HOUR)])
    segment = gpu_segment(ended_at=T0 + 3 * HOUR)
    assert use_of(segment, tariff, ALWAYS).cost_micros == 3_600_000 + 2 * 7_200_000
    assert use_of(segment, tariff, Window(T0, T0 + HOUR)).cost_micros == 3_600_000


def test_a_later_price_changes_nothing_before_its_date() -> None:
    changed = tariff_of("H100", [*LINES, line("H100", 1, T0 + HOUR)])
    for until in (T0 + US, T0 + HOUR - US, T0 + HOUR):
        assert accrued_micros(gpu_segment(), changed, until) == accrued_micros(gpu_segment(), H100, until)


def test_a_type_without_a_price_of_its_own_costs_what_any_gpu_does() -> None:
    assert [price.micros_per_hour for price in tariff_of("L40S", LINES)] == [2_000_000]


def test_the_price_of_any_gpu_holds_until_the_types_own_begins() -> None:
    lines = [line("*", 1), line("L4", 5, T0), line("*", 2, T0 - HOUR), line("*", 3, T0), line("*", 4, T0 + HOUR)]
    assert [price.micros_per_hour for price in tariff_of("L4", lines)] == [1, 2, 5]


def test_the_price_of_any_gpu_never_holds_for_cpu_cores() -> None:
    assert tariff_of("CPU", [line("*", 1)]) == ()


def test_time_before_the_first_price_is_free() -> None:
    tariff = tariff_of("H100", [line("H100", 3_600_000, T0 + HOUR)])
    assert use_of(gpu_segment(ended_at=T0 + 2 * HOUR), tariff, ALWAYS).cost_micros == 3_600_000


def test_a_window_is_cut_at_midnight_utc() -> None:
    days = list(Window(T0, T0 + 27 * HOUR).days())
    assert [day for day, _ in days] == ["2026-03-10", "2026-03-11", "2026-03-12"]
    assert [(part.end - part.start) // HOUR for _, part in days] == [2, 24, 1]
    assert days[0][1].end == days[1][1].start


def test_usage_is_grouped_by_the_fields_asked_for_in_their_order() -> None:
    segments = [gpu_segment(ended_at=T0 + 3 * HOUR), gpu_segment(ended_at=T0 - HOUR)]
    totals = usage(segments, LINES, ALWAYS, ("day", "gpu_type"))
    assert {key: use.cost_micros for key, use in totals.items()} == {
        ("2026-03-10", "H100"): 7_200_000,
        ("2026-03-11", "H100"): 3_600_000,
    }
    assert list(usage(segments, LINES, ALWAYS, ())) == [()]
    assert list(usage(segments, LINES, ALWAYS, ("gpu_type", "endpoint"))) == [("H100", "ep_1")]


def test_groups_without_use_do_not_appear() -> None:
    assert usage([gpu_segment()], LINES, Window(T0 - HOUR, T0), ("endpoint",)) == {}


def test_the_price_in_force_is_the_latest_that_has_begun() -> None:
    lines = [*LINES, line("H100", 9, T0), line("H100", 10, T0 + HOUR), line("A100", 1, T0 + HOUR)]
    assert {price.gpu_type: price.micros_per_hour for price in in_force(lines, T0)} == {
        "*": 2_000_000,
        "CPU": 50_000,
        "H100": 9,
    }
    assert [price.gpu_type for price in upcoming(lines, T0)] == ["A100", "H100"]


def test_the_same_price_again_changes_nothing() -> None:
    assert holds_already(line("H100", 3_600_000, T0), LINES)
    assert not holds_already(line("H100", 3_600_001, T0), LINES)
    assert not holds_already(line("L40S", 2_000_000, T0), LINES)
    assert not holds_already(line("H100", 3_600_000, T0), [*LINES, line("H100", 9, T0 - HOUR)])


def test_a_price_of_any_gpu_applies_to_the_types_without_their_own() -> None:
    lines = [*LINES, line("L4", 5, T0 + HOUR)]
    assert types_priced_by(line("*", 1, T0), lines) == PricedTypes(frozenset({"CPU", "H100"}), all_but_named=True)
    assert types_priced_by(line("L4", 1, T0), lines) == PricedTypes(frozenset({"L4"}))


def test_a_price_dated_just_now_by_another_clock_holds_from_now() -> None:
    assert checked_price(line("L4", 1, T0 - timedelta(seconds=59)), T0).valid_from == T0
    assert checked_price(line("L4", 1, T0 - timedelta(seconds=61)), T0).valid_from == T0 - timedelta(seconds=61)
    assert checked_price(line("L4", 1, T0 + US), T0).valid_from == T0 + US


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (PriceLine("", T0, 1, "USD"), "gpu_type"),
        (PriceLine("x" * 65, T0, 1, "USD"), "gpu_type"),
        (PriceLine(" L4", T0, 1, "USD"), "gpu_type"),
        (PriceLine("L4", T0, -1, "USD"), "micros_per_hour"),
        (PriceLine("L4", T0, 10**12 + 1, "USD"), "micros_per_hour"),
        (PriceLine("L4", T0, 1, "usd"), "currency"),
        (PriceLine("L4", T0, 1, "US1"), "currency"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused_with_the_field_named(wrong: PriceLine, named: str) -> None:
    with pytest.raises(DomainError, match=named) as caught:
        checked_price(wrong, T0)
    assert caught.value.code == "invalid_price"
