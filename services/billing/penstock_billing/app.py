"""Composition root: wires billing's facts and questions to its handlers."""

from pathlib import Path

from penstock_billing import handlers
from penstock_billing.settings import BillingSettings
from penstock_billing.store import Store
from penstock_common.contracts.events import ReplicaEnded, ReplicaStarted
from penstock_common.contracts.questions import AskPrices, AskUsage, PricesReply, SetPrice, UsageReply
from penstock_common.contracts.topology import BILLING_REPLICAS
from penstock_common.service import Service

MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: BillingSettings) -> Service[Store]:
    """The billing service, ready to run."""
    service = Service("billing", settings, make_store=lambda connection, _: Store(connection), migrations=MIGRATIONS)

    async def prices(question: AskPrices) -> PricesReply:
        async with service.transaction() as store:
            return await handlers.ask_prices(question, store)

    async def set_price(question: SetPrice) -> PricesReply:
        async with service.transaction() as store:
            return await handlers.set_price(question, store)

    async def usage(question: AskUsage) -> UsageReply:
        async with service.transaction() as store:
            return await handlers.ask_usage(question, store, rows_max=settings.usage_rows_max)

    service.subscribe(
        BILLING_REPLICAS, {ReplicaStarted: handlers.replica_started, ReplicaEnded: handlers.replica_ended}
    )
    service.answer(AskPrices, prices)
    service.answer(SetPrice, set_price)
    service.answer(AskUsage, usage)
    return service
