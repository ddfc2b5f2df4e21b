"""The handlers, on a ledger in memory and on the one in PostgreSQL."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest

from penstock_billing import handlers
from penstock_common.contracts.events import ReplicaEnded, ReplicaStarted
from penstock_common.contracts.questions import AskPrices, AskUsage, Price, PricesReply, SetPrice, UsageReply
from penstock_common.delivery.envelope import Received
from penstock_common.errors import DomainError

Ledger = Callable[[], AbstractAsyncContextManager[Any]]

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


async def clock(ledger: Ledger) -> datetime:
    async with ledger() as store:
        now: datetime = await store.now()
        return now


def facts_about(replica_id: str, endpoint_id: str = "ep_1", organization_id: str = "org_1") -> dict[str, Any]:
    return {
        "replica_id": replica_id,
        "endpoint_id": endpoint_id,
        "organization_id": organization_id,
        "workspace_id": "ws_1",
        "host_id": "host_1",
        "generation": 1,
        "version": 1,
    }


def received(fact: Any) -> Received[Any]:
    return Received(message=fact, id="evt_1", time=fact.at, traceparent=None, delivery=1)


async def starts(ledger: Ledger, replica_id: str, at: datetime, gpu: str | None = "RTX 4090", **about: str) -> None:
    fact = ReplicaStarted(
        **facts_about(replica_id, **about), at=at, gpu_type=gpu, gpu_count=2 if gpu else 0, cpu_cores=4
    )
    async with ledger() as store:
        await handlers.replica_started(received(fact), store)


async def ends(ledger: Ledger, replica_id: str, at: datetime, *, was_ready: bool = True, **about: str) -> None:
    fact = ReplicaEnded(**facts_about(replica_id, **about), at=at, cause="stopped", was_ready=was_ready)
    async with ledger() as store:
        await handlers.replica_ended(received(fact), store)


async def usage(ledger: Ledger, start: datetime, end: datetime, *, rows_max: int = 100, **asked: Any) -> UsageReply:
    question = AskUsage(**{"organization_id": "org_1", "start": start, "end": end, **asked})
    async with ledger() as store:
        return await handlers.ask_usage(question, store, rows_max=rows_max)


async def prices(ledger: Ledger) -> PricesReply:
    async with ledger() as store:
        return await handlers.ask_prices(AskPrices(), store)


async def sets(ledger: Ledger, gpu_type: str, micros: int, valid_from: datetime, currency: str = "USD") -> PricesReply:
    price = Price(gpu_type=gpu_type, micros_per_hour=micros, currency=currency, valid_from=valid_from)
    async with ledger() as store:
        return await handlers.set_price(SetPrice(price=price), store)


async def test_a_replica_costs_from_ready_to_ended(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 2 * HOUR)
    await ends(ledger, "rep_1", now - HOUR)
    reply = await usage(ledger, now - 10 * HOUR, now + HOUR, group_by=())
    assert [(row.replica_us, row.gpu_us, row.cost_micros) for row in reply.rows] == [
        (3_600_000_000, 7_200_000_000, 1_200_000)
    ]
    assert (reply.total_cost_micros, reply.currency, reply.running_replicas) == (1_200_000, "USD", 0)


async def test_an_end_that_arrives_before_its_start_is_not_lost(ledger: Ledger) -> None:
    now = await clock(ledger)
    await ends(ledger, "rep_1", now - HOUR)
    assert (await usage(ledger, now - 10 * HOUR, now)).rows == ()
    await starts(ledger, "rep_1", now - 2 * HOUR)
    assert (await usage(ledger, now - 10 * HOUR, now)).total_cost_micros == 1_200_000


async def test_the_same_facts_again_change_nothing(ledger: Ledger) -> None:
    now = await clock(ledger)
    for _ in range(3):
        await starts(ledger, "rep_1", now - 2 * HOUR)
        await ends(ledger, "rep_1", now - HOUR)
    assert (await usage(ledger, now - 10 * HOUR, now)).total_cost_micros == 1_200_000


async def test_start_and_end_may_be_handled_at_the_same_moment(ledger: Ledger) -> None:
    now = await clock(ledger)
    both = [
        handle(ledger, f"rep_{number}", at)
        for number in range(20)
        for handle, at in ((starts, now - 2 * HOUR), (ends, now - HOUR))
    ]
    await asyncio.gather(*both)
    assert (await usage(ledger, now - 10 * HOUR, now)).total_cost_micros == 20 * 1_200_000


async def test_a_replica_that_was_never_ready_costs_nothing(ledger: Ledger) -> None:
    now = await clock(ledger)
    await ends(ledger, "rep_1", now - HOUR, was_ready=False)
    reply = await usage(ledger, now - 10 * HOUR, now)
    assert (reply.rows, reply.total_cost_micros, reply.running_replicas) == ((), 0, 0)


async def test_an_end_before_the_start_in_time_costs_nothing(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - HOUR)
    await ends(ledger, "rep_1", now - 2 * HOUR)
    reply = await usage(ledger, now - 10 * HOUR, now)
    assert (reply.rows, reply.running_replicas) == ((), 0)


async def test_a_running_replica_counts_up_to_now(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - HOUR)
    reply = await usage(ledger, now - 10 * HOUR, now + 10 * HOUR, group_by=("gpu_type",))
    assert reply.as_of >= now
    assert reply.rows[0].replica_us == (reply.as_of - now + HOUR) // timedelta(microseconds=1)
    assert reply.running_replicas == 1


async def test_only_the_part_inside_the_window_is_billed(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 5 * HOUR)
    await ends(ledger, "rep_1", now - HOUR)
    reply = await usage(ledger, now - 4 * HOUR, now - 3 * HOUR, group_by=("endpoint",))
    assert [row.cost_micros for row in reply.rows] == [1_200_000]
    assert (await usage(ledger, now - HOUR, now)).rows == ()
    assert (await usage(ledger, now + HOUR, now + 2 * HOUR)).rows == ()


async def test_an_organization_sees_its_own_use_only_and_may_ask_for_one_endpoint(ledger: Ledger) -> None:
    now = await clock(ledger)
    for replica_id, endpoint_id, organization_id in (
        ("rep_1", "ep_1", "org_1"),
        ("rep_2", "ep_2", "org_1"),
        ("rep_3", "ep_3", "org_2"),
    ):
        about = {"endpoint_id": endpoint_id, "organization_id": organization_id}
        await starts(ledger, replica_id, now - HOUR, **about)
    window = (now - HOUR, now)
    assert [row.endpoint_id for row in (await usage(ledger, *window)).rows] == ["ep_1", "ep_2"]
    one = await usage(ledger, *window, endpoint_id="ep_2")
    assert ([row.endpoint_id for row in one.rows], one.running_replicas) == (["ep_2"], 1)
    assert (await usage(ledger, *window, endpoint_id="ep_3")).rows == ()


async def test_rows_are_sorted_by_the_fields_in_the_order_asked_for(ledger: Ledger) -> None:
    now = await clock(ledger)
    for number, gpu in enumerate(("RTX 4090", None, "B9000", None)):
        await starts(ledger, f"rep_{number}", now - 30 * HOUR, gpu, endpoint_id=f"ep_{number % 2}")
        await ends(ledger, f"rep_{number}", now - HOUR, endpoint_id=f"ep_{number % 2}")
    reply = await usage(ledger, now - 50 * HOUR, now, group_by=("gpu_type", "day", "endpoint", "day"))
    keys = [(row.gpu_type, row.day, row.endpoint_id) for row in reply.rows]
    assert keys == sorted(keys)
    assert {row.gpu_type for row in reply.rows} == {"CPU", "B9000", "RTX 4090"}
    assert {row.gpu_us for row in reply.rows if row.gpu_type == "CPU"} == {0}
    assert reply.total_cost_micros == 29 * (2 * 600_000 + 2 * 2_000_000 + 2 * 4 * 50_000)


async def test_an_answer_that_is_too_long_is_refused(ledger: Ledger) -> None:
    now = await clock(ledger)
    for number in range(3):
        await starts(ledger, f"rep_{number}", now - HOUR, endpoint_id=f"ep_{number}")
    assert len((await usage(ledger, now - HOUR, now, group_by=("endpoint",), rows_max=3)).rows) == 3
    with pytest.raises(DomainError, match="shorter window") as caught:
        await usage(ledger, now - HOUR, now, group_by=("endpoint",), rows_max=2)
    assert caught.value.code == "too_many_rows"


async def test_an_empty_window_is_refused(ledger: Ledger) -> None:
    now = await clock(ledger)
    with pytest.raises(DomainError, match="later than its start"):
        await usage(ledger, now, now)


async def test_prices_are_there_from_the_beginning(ledger: Ledger) -> None:
    reply = await prices(ledger)
    found = {price.gpu_type: (price.micros_per_hour, price.currency) for price in reply.prices}
    assert found["CPU"] == (50_000, "USD")
    assert found["*"] == (2_000_000, "USD")
    assert [price.gpu_type for price in reply.prices] == sorted(found)
    assert reply.upcoming == ()


async def test_a_price_set_now_holds_from_now_on_and_leaves_what_was_metered(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 2 * HOUR)
    reply = await sets(ledger, "RTX 4090", 900_000, now - SECOND)
    assert {price.gpu_type: price.micros_per_hour for price in reply.prices}["RTX 4090"] == 900_000
    assert (await usage(ledger, now - 2 * HOUR, now)).total_cost_micros == 2 * 2 * 600_000


async def test_a_price_for_later_is_announced_and_may_be_changed_until_then(ledger: Ledger) -> None:
    now = await clock(ledger)
    await sets(ledger, "RTX 4090", 900_000, now + HOUR)
    reply = await sets(ledger, "RTX 4090", 800_000, now + HOUR)
    assert [(price.gpu_type, price.micros_per_hour) for price in reply.upcoming] == [("RTX 4090", 800_000)]
    assert {price.gpu_type: price.micros_per_hour for price in reply.prices}["RTX 4090"] == 600_000


async def test_a_price_cannot_change_what_was_already_metered(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 3 * HOUR)
    await ends(ledger, "rep_1", now - 2 * HOUR)
    with pytest.raises(DomainError, match="keeps its price") as caught:
        await sets(ledger, "RTX 4090", 1, now - 2 * HOUR - SECOND)
    assert caught.value.code == "price_in_use"
    assert (await usage(ledger, now - 3 * HOUR, now)).total_cost_micros == 1_200_000


async def test_a_price_may_be_dated_back_as_far_as_nothing_was_metered(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 3 * HOUR)
    await ends(ledger, "rep_1", now - 2 * HOUR)
    await ends(ledger, "rep_2", now - HOUR, was_ready=False)
    await starts(ledger, "rep_3", now - HOUR)
    await ends(ledger, "rep_3", now - HOUR)
    await sets(ledger, "RTX 4090", 1, now - 2 * HOUR)
    await sets(ledger, "B9000", 1, now - 10 * HOUR)
    await sets(ledger, "CPU", 1, now - 10 * HOUR)
    assert (await usage(ledger, now - 3 * HOUR, now)).total_cost_micros == 1_200_000


async def test_the_price_of_any_gpu_is_in_use_only_where_a_type_has_none_of_its_own(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 3 * HOUR, "RTX 4090")
    await starts(ledger, "rep_2", now - 3 * HOUR, None)
    await sets(ledger, "*", 1, now - 5 * HOUR)
    await starts(ledger, "rep_3", now - 3 * HOUR, "B9000")
    with pytest.raises(DomainError, match="keeps its price"):
        await sets(ledger, "*", 2, now - 2 * HOUR)


async def test_the_price_that_holds_already_may_be_set_again_whatever_its_date(ledger: Ledger) -> None:
    now = await clock(ledger)
    await starts(ledger, "rep_1", now - 3 * HOUR)
    before = await prices(ledger)
    assert await sets(ledger, "RTX 4090", 600_000, now - 2 * HOUR) == before
    assert await sets(ledger, "RTX 4090", 600_000, now + 2 * HOUR) == before


async def test_the_ledger_keeps_one_currency_once_something_was_metered(ledger: Ledger) -> None:
    now = await clock(ledger)
    reply = await sets(ledger, "RTX 4090", 550_000, now, "EUR")
    assert {price.currency for price in reply.prices} == {"EUR"}
    await starts(ledger, "rep_1", now - HOUR)
    assert (await usage(ledger, now - HOUR, now)).currency == "EUR"
    with pytest.raises(DomainError, match="give the price in EUR") as caught:
        await sets(ledger, "B9000", 1, now + HOUR, "USD")
    assert caught.value.code == "other_currency"
    assert {price.currency for price in (await prices(ledger)).prices} == {"EUR"}


async def test_a_price_that_makes_no_sense_is_refused(ledger: Ledger) -> None:
    now = await clock(ledger)
    with pytest.raises(DomainError, match="micros_per_hour must be"):
        await sets(ledger, "B9000", -1, now)
