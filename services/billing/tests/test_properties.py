"""The bill against an independent oracle.

The oracle replays the raw facts and walks through time in exact fractions. It knows the definition
of a bill (floors measured from where a price begins to hold) and none of the ledger's code.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_billing import handlers
from penstock_billing.domain import PriceLine
from penstock_common.contracts.events import ReplicaEnded, ReplicaStarted
from penstock_common.contracts.questions import AskUsage, Price, SetPrice, UsageReply
from penstock_common.delivery.envelope import Received
from penstock_common.errors import DomainError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
NOW_S = 5 * 86400
FIELDS = ("endpoint", "day", "gpu_type")
TYPES = (None, "H100", "L4", "L40S")

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)

Fact = ReplicaStarted | ReplicaEnded
NewStore = Callable[..., Any]


@dataclass(frozen=True)
class History:
    """What happened, and what it costs: the input of both the ledger and the oracle."""

    facts: tuple[Fact, ...]
    prices: tuple[PriceLine, ...]


def at(offset_us: int) -> datetime:
    return NOON + timedelta(microseconds=offset_us)


# Moments crowd around a few round ones, so that ends meet starts, prices and midnights exactly.
offsets_us = st.one_of(
    st.integers(0, NOW_S * 10**6),
    st.sampled_from([0, 1, 43_200 * 10**6, 43_200 * 10**6 - 1, 86_400 * 10**6, NOW_S * 10**6]),
)
rates = st.one_of(st.integers(0, 10**8), st.sampled_from([0, 1, 3_600_000_000]))


@st.composite
def replicas(draw: st.DrawFn) -> list[Fact]:
    number = draw(st.integers(0, 10**6))
    endpoint = draw(st.sampled_from(["ep_a", "ep_b"]))
    common = {
        "organization_id": "org_1",
        "workspace_id": "ws_1",
        "endpoint_id": endpoint,
        "replica_id": f"rep_{number}_{endpoint}",
        "host_id": "host_1",
        "generation": 1,
        "version": 1,
    }
    gpu_type = draw(st.sampled_from(TYPES))
    started = ReplicaStarted(
        **common,
        at=at(draw(offsets_us)),
        gpu_type=gpu_type,
        gpu_count=draw(st.integers(1, 4)) if gpu_type else 0,
        cpu_cores=draw(st.integers(1, 16)),
    )
    # Mostly an end after the start; sometimes one before it; sometimes no end, or no start.
    ended = ReplicaEnded(**common, at=at(draw(offsets_us)), cause="stopped", was_ready=True)
    shape = draw(st.sampled_from(["both", "both", "both", "open", "never ready"]))
    return {"both": [started, ended], "open": [started], "never ready": [ended]}[shape]


@st.composite
def histories(draw: st.DrawFn) -> History:
    lives = draw(st.lists(replicas(), max_size=6, unique_by=lambda life: life[0].replica_id))
    lines = [PriceLine("CPU", EPOCH, draw(rates), "USD"), PriceLine("*", EPOCH, draw(rates), "USD")]
    dates = draw(st.lists(st.tuples(st.sampled_from(["CPU", "*", "H100", "L4"]), offsets_us), max_size=6, unique=True))
    lines += [PriceLine(gpu_type, at(offset_us), draw(rates), "USD") for gpu_type, offset_us in dates]
    return History(tuple(fact for life in lives for fact in life), tuple(lines))


# --- the ledger -----------------------------------------------------------------------------


def ledger_after(new_store: NewStore, facts: Iterable[Fact], prices: tuple[PriceLine, ...]) -> Any:
    async def replay() -> Any:
        store = new_store(clock=at(NOW_S * 10**6))
        store.prices = {(line.gpu_type, line.valid_from): line for line in prices}
        for number, fact in enumerate(facts):
            received = Received(message=fact, id=f"evt_{number}", time=fact.at, traceparent=None, delivery=1)
            handler = handlers.replica_started if isinstance(fact, ReplicaStarted) else handlers.replica_ended
            await handler(received, store)
        return store

    return asyncio.run(replay())


def bill(store: Any, start: datetime, end: datetime, group_by: tuple[str, ...] = FIELDS) -> UsageReply:
    question = AskUsage(organization_id="org_1", start=start, end=end, group_by=group_by)
    return asyncio.run(handlers.ask_usage(question, store, rows_max=10_000))


def rows_of(reply: UsageReply) -> dict[tuple[str | None, ...], tuple[int, int, int]]:
    return {
        (row.endpoint_id, row.day, row.gpu_type): (row.replica_us, row.gpu_us, row.cost_micros) for row in reply.rows
    }


ALL = (NOON - timedelta(days=1), NOON + timedelta(days=30))


# --- the oracle -----------------------------------------------------------------------------


def oracle_price(prices: tuple[PriceLine, ...], gpu_type: str, moment: datetime) -> PriceLine | None:
    begun = [line for line in prices if line.valid_from <= moment]
    for name in (gpu_type,) if gpu_type == "CPU" else (gpu_type, "*"):
        own = [line for line in begun if line.gpu_type == name]
        if own:
            return max(own, key=lambda line: line.valid_from)
    return None


def oracle_cost_until(
    prices: tuple[PriceLine, ...], gpu_type: str, units: int, begin: datetime, until: datetime
) -> int:
    """Walk from `begin` to `until`; whenever another price takes over, round down and start afresh."""
    stops = sorted({begin, until, *(line.valid_from for line in prices if begin < line.valid_from < until)})
    total, running, current = 0, Fraction(0), oracle_price(prices, gpu_type, begin)
    for left, right in pairwise(stops):
        price = oracle_price(prices, gpu_type, left)
        if price is not current:
            total, running, current = total + floor(running), Fraction(0), price
        if price is not None:
            hours = Fraction((right - left) // timedelta(microseconds=1), 3_600_000_000)
            running += hours * price.micros_per_hour * units
    return total + floor(running)


def oracle_bill(history: History, start: datetime, end: datetime) -> dict[tuple[str | None, ...], tuple[int, int, int]]:
    now = at(NOW_S * 10**6)
    starts = {fact.replica_id: fact for fact in history.facts if isinstance(fact, ReplicaStarted)}
    ends = {fact.replica_id: fact.at for fact in history.facts if isinstance(fact, ReplicaEnded)}
    found: dict[tuple[str | None, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for replica_id, fact in starts.items():
        gpu_type, units = (fact.gpu_type, fact.gpu_count) if fact.gpu_type else ("CPU", fact.cpu_cores)
        first, last = max(start, fact.at), min(end, now, ends.get(replica_id, now))
        day = first.date()
        while first < last:
            tomorrow = datetime.combine(date.fromordinal(day.toordinal() + 1), datetime.min.time(), UTC)
            until = min(last, tomorrow)
            duration_us = (until - first) // timedelta(microseconds=1)
            row = found[fact.endpoint_id, day.isoformat(), gpu_type]
            row[0] += duration_us
            row[1] += duration_us * (fact.gpu_count if fact.gpu_type else 0)
            row[2] += oracle_cost_until(history.prices, gpu_type, units, fact.at, until)
            row[2] -= oracle_cost_until(history.prices, gpu_type, units, fact.at, first)
            first, day = until, tomorrow.date()
    return {key: (row[0], row[1], row[2]) for key, row in found.items()}


# --- the properties -------------------------------------------------------------------------


@PROPERTY
@given(histories(), st.randoms(use_true_random=False), st.integers(0, 8))
def test_facts_in_any_order_and_any_number_give_the_bill_of_the_oracle(
    new_fake_store: NewStore, history: History, order: random.Random, again: int
) -> None:
    told = [*history.facts, *(order.choices(history.facts, k=again) if history.facts else [])]
    order.shuffle(told)
    reply = bill(ledger_after(new_fake_store, told, history.prices), *ALL)
    expected = oracle_bill(history, *ALL)
    assert rows_of(reply) == expected
    assert reply.total_cost_micros == sum(row[2] for row in expected.values())
    assert [(row.endpoint_id, row.day, row.gpu_type) for row in reply.rows] == sorted(expected)


@PROPERTY
@given(histories(), st.lists(offsets_us, max_size=6))
def test_the_bills_of_the_parts_of_a_window_add_up_to_that_of_the_whole(
    new_fake_store: NewStore, history: History, cuts: list[int]
) -> None:
    store = ledger_after(new_fake_store, history.facts, history.prices)
    edges = sorted({*ALL, *(at(offset_us) for offset_us in cuts)})
    parts = [bill(store, left, right) for left, right in pairwise(edges)]
    whole = bill(store, *ALL)
    assert sum(part.total_cost_micros for part in parts) == whole.total_cost_micros
    added: dict[tuple[str | None, ...], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for part in parts:
        for key, row in rows_of(part).items():
            assert min(row) >= 0
            added[key] = tuple(map(sum, zip(added[key], row, strict=True)))
    assert added == rows_of(whole)


@PROPERTY
@given(histories(), offsets_us, offsets_us)
def test_a_part_of_time_costs_what_the_oracle_says(
    new_fake_store: NewStore, history: History, one: int, other: int
) -> None:
    start, end = sorted((at(one), at(other) + timedelta(microseconds=1)))
    if start < end:
        reply = bill(ledger_after(new_fake_store, history.facts, history.prices), start, end)
        assert rows_of(reply) == oracle_bill(history, start, end)


@PROPERTY
@given(histories(), st.lists(st.sampled_from(FIELDS), max_size=4))
def test_any_grouping_adds_up_to_the_same_total(new_fake_store: NewStore, history: History, fields: list[str]) -> None:
    store = ledger_after(new_fake_store, history.facts, history.prices)
    finest, grouped = bill(store, *ALL), bill(store, *ALL, tuple(fields))
    assert sum(row.cost_micros for row in grouped.rows) == grouped.total_cost_micros == finest.total_cost_micros
    assert sum(row.replica_us for row in grouped.rows) == sum(row.replica_us for row in finest.rows)
    assert sum(row.gpu_us for row in grouped.rows) == sum(row.gpu_us for row in finest.rows)
    for row in grouped.rows:
        assert (row.endpoint_id is not None) == ("endpoint" in fields)
        assert (row.day is not None) == ("day" in fields)
        assert (row.gpu_type is not None) == ("gpu_type" in fields)


@PROPERTY
@given(histories())
def test_rounding_costs_less_than_one_micro_for_each_price_that_held(
    new_fake_store: NewStore, history: History
) -> None:
    exact = Fraction(0)
    now = at(NOW_S * 10**6)
    ends = {fact.replica_id: fact.at for fact in history.facts if isinstance(fact, ReplicaEnded)}
    pieces = 0
    for fact in history.facts:
        if isinstance(fact, ReplicaStarted):
            gpu_type, units = (fact.gpu_type, fact.gpu_count) if fact.gpu_type else ("CPU", fact.cpu_cores)
            last = min(now, ends.get(fact.replica_id, now))
            stops = sorted({fact.at, last, *(line.valid_from for line in history.prices)})
            for left, right in pairwise(stop for stop in stops if fact.at <= stop <= last):
                price = oracle_price(history.prices, gpu_type, left)
                micros_per_hour = price.micros_per_hour if price else 0
                exact += Fraction((right - left) // timedelta(microseconds=1) * micros_per_hour * units, 3_600_000_000)
                pieces += 1
    billed = bill(ledger_after(new_fake_store, history.facts, history.prices), *ALL).total_cost_micros
    assert exact - pieces <= billed <= exact


@PROPERTY
@given(histories(), rates, st.sampled_from(["CPU", "*", "H100", "L40S"]), st.integers(-NOW_S, 2 * NOW_S))
def test_no_price_that_is_accepted_changes_a_bill_so_far(
    new_fake_store: NewStore, history: History, rate: int, gpu_type: str, valid_from_s: int
) -> None:
    store = ledger_after(new_fake_store, history.facts, history.prices)
    before = bill(store, *ALL)
    price = Price(gpu_type=gpu_type, micros_per_hour=rate, currency="USD", valid_from=at(valid_from_s * 10**6))
    refused: DomainError | None = None
    try:
        asyncio.run(handlers.set_price(SetPrice(price=price), store))
    except DomainError as error:
        refused = error
    assert bill(store, *ALL) == before
    if refused is not None:
        assert refused.code == "price_in_use"
        assert price.valid_from < store.clock
        assert any(isinstance(fact, ReplicaStarted) for fact in history.facts)
