"""The billing service as it runs: facts come over JetStream, questions over NATS."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from penstock_billing.app import build
from penstock_billing.settings import BillingSettings
from penstock_common.contracts.events import ReplicaEnded, ReplicaFact, ReplicaStarted
from penstock_common.contracts.questions import AskPrices, AskUsage, Price, PricesReply, SetPrice, UsageReply
from penstock_common.delivery.outbox import Outbox
from penstock_common.errors import DomainError
from penstock_common.service import Service
from tests_support import eventually, running

pytestmark = pytest.mark.connected

MakeSettings = Callable[..., Any]

HOUR = timedelta(hours=1)
REPLICAS = 60


def scheduler(make_settings: MakeSettings) -> Service[Outbox]:
    """Whoever tells the facts: nothing but an outbox."""
    return Service("scheduler", make_settings("scheduler"), make_store=lambda _, outbox: outbox)


def lives(now: datetime) -> list[ReplicaFact]:
    """Replicas that ran from 1 to 60 minutes, all of them over; every tenth was never ready."""
    facts: list[ReplicaFact] = []
    for number in range(REPLICAS):
        about = {
            "endpoint_id": f"ep_{number % 3}",
            "organization_id": "org_1",
            "workspace_id": "ws_1",
            "replica_id": f"rep_{number}",
            "host_id": "host_1",
            "generation": number,
            "version": number,
        }
        ended_at = now - 2 * HOUR + timedelta(minutes=number + 1)
        was_ready = number % 10 != 0
        if was_ready:
            facts.append(ReplicaStarted(**about, at=now - 2 * HOUR, gpu_type="H100", gpu_count=1, cpu_cores=8))
        facts.append(ReplicaEnded(**about, at=ended_at, cause="stopped", was_ready=was_ready))
    return facts


def expected_minutes() -> int:
    return sum(number + 1 for number in range(REPLICAS) if number % 10)


async def tell(teller: Service[Outbox], facts: list[ReplicaFact]) -> None:
    async with teller.transaction() as outbox:
        for fact in facts:
            await outbox.emit(fact)


async def clock(service: Service[Any]) -> datetime:
    moment: datetime = await service.pool.fetchval("select clock_timestamp()")
    return moment


def question(now: datetime, **asked: Any) -> AskUsage:
    return AskUsage(organization_id="org_1", start=now - 48 * HOUR, end=now + HOUR, **asked)


async def test_facts_told_twice_and_shuffled_around_a_restart_give_one_bill(make_settings: MakeSettings) -> None:
    settings, api_settings = make_settings("billing", BillingSettings), make_settings("api")
    async with running(scheduler(make_settings)) as teller, running(Service("api", api_settings)) as api:
        now = await clock(teller)
        told = lives(now) * 2
        random.Random(7).shuffle(told)

        async def any_there() -> bool:
            return bool((await api.ask(question(now))).rows)

        first, during, last = told[: len(told) // 3], told[len(told) // 3 : -40], told[-40:]
        async with running(build(settings)):
            await tell(teller, first)
            await eventually(any_there)
        await tell(teller, during)
        async with running(build(settings)):
            await tell(teller, last)

            async def all_there() -> UsageReply:
                reply: UsageReply = await api.ask(question(now, group_by=("endpoint",)))
                assert sum(row.replica_us for row in reply.rows) == expected_minutes() * 60_000_000
                assert reply.running_replicas == 0
                return reply

            reply = await eventually(all_there)
            assert [row.endpoint_id for row in reply.rows] == ["ep_0", "ep_1", "ep_2"]
            assert reply.total_cost_micros == expected_minutes() * 50_000
            assert sum(row.cost_micros for row in reply.rows) == reply.total_cost_micros


async def test_a_price_is_set_and_refused_over_nats(make_settings: MakeSettings) -> None:
    settings, api_settings = make_settings("billing", BillingSettings), make_settings("api")
    async with (
        running(build(settings)) as billing,
        running(scheduler(make_settings)) as teller,
        running(Service("api", api_settings)) as api,
    ):
        now = await clock(billing)
        await tell(teller, lives(now)[:4])

        async def metered() -> bool:
            return bool((await api.ask(question(now))).rows)

        await eventually(metered)
        past = Price(gpu_type="H100", micros_per_hour=1, currency="USD", valid_from=now - 2 * HOUR)
        with pytest.raises(DomainError, match="keeps its price") as caught:
            await api.ask(SetPrice(price=past))
        assert caught.value.code == "price_in_use"
        reply: PricesReply = await api.ask(SetPrice(price=past.model_copy(update={"valid_from": now})))
        assert {price.gpu_type: price.micros_per_hour for price in reply.prices}["H100"] == 1
        assert await api.ask(AskPrices()) == reply


async def test_a_ledger_survives_a_restart_of_its_service(make_settings: MakeSettings) -> None:
    settings = make_settings("billing", BillingSettings)
    async with running(Service("api", make_settings("api"))) as api:
        async with running(build(settings)) as billing:
            now = await clock(billing)
            await api.ask(
                SetPrice(price=Price(gpu_type="L4", micros_per_hour=7, currency="USD", valid_from=now + HOUR))
            )
        async with running(build(settings)):
            assert [price.gpu_type for price in (await api.ask(AskPrices())).upcoming] == ["L4"]
