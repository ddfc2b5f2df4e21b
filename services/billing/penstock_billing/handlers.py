"""One function for each fact and question: load, decide, save."""

from datetime import datetime

from penstock_billing import domain
from penstock_billing.domain import GroupKey, PriceLine, Segment, Use, Window
from penstock_billing.store import Store
from penstock_common.contracts.events import ReplicaEnded, ReplicaFact, ReplicaStarted
from penstock_common.contracts.questions import (
    AskPrices,
    AskUsage,
    Grouping,
    Price,
    PricesReply,
    SetPrice,
    UsageReply,
    UsageRow,
)
from penstock_common.delivery.envelope import Received
from penstock_common.errors import DomainError


async def replica_started(received: Received[ReplicaStarted], store: Store) -> None:
    """Open the replica's segment: it is ready."""
    fact = received.message
    segment = await store.segment_for_update(_unknown(fact))
    await store.save_segment(
        segment.with_start(fact.at, gpu_type=fact.gpu_type, gpu_count=fact.gpu_count, cpu_cores=fact.cpu_cores)
    )


async def replica_ended(received: Received[ReplicaEnded], store: Store) -> None:
    """Close the replica's segment, also when its start is not known yet."""
    fact = received.message
    segment = await store.segment_for_update(_unknown(fact))
    await store.save_segment(segment.with_end(fact.at))


async def ask_prices(_: AskPrices, store: Store) -> PricesReply:
    """The prices in force, and those that will be."""
    return _prices_reply(await store.price_lines(), now=await store.now())


async def set_price(question: SetPrice, store: Store) -> PricesReply:
    """Set a price from a date on, so that nothing already metered changes.

    Raises DomainError: `invalid_price`; `price_in_use` when use metered since that date would cost
    something else; `other_currency` when use was metered in another currency.
    """
    await store.lock_prices()
    now = await store.now()
    lines = await store.price_lines()
    wanted = domain.checked_price(PriceLine(**question.price.model_dump()), now)
    if domain.holds_already(wanted, lines):
        return _prices_reply(lines, now)
    if any(line.currency != wanted.currency for line in lines):
        await _change_currency(wanted.currency, lines, store)
    if wanted.valid_from < now and await store.metered_since(wanted.valid_from, domain.types_priced_by(wanted, lines)):
        raise DomainError(
            "price_in_use",
            f"replicas were metered at the price of {wanted.gpu_type!r} since {wanted.valid_from.isoformat()},"
            " and what was metered keeps its price: leave valid_from out, or give a date in the future",
        )
    await store.save_price(wanted)
    return _prices_reply(await store.price_lines(), now)


async def ask_usage(question: AskUsage, store: Store, *, rows_max: int) -> UsageReply:
    """Metered use in the window, up to now, in rows sorted by the fields grouped by.

    Raises DomainError: `invalid_window`; `too_many_rows` when there are more than `rows_max`.
    """
    if question.start >= question.end:
        raise DomainError("invalid_window", "the window is empty: give an end later than its start")
    now = await store.now()
    lines = await store.price_lines()
    window = Window(question.start, min(question.end, now))
    group_by = tuple(dict.fromkeys(question.group_by))
    totals: dict[GroupKey, Use] = {}
    async for segments in store.segments(question.organization_id, question.endpoint_id, window):
        totals = domain.combined(totals, domain.usage(segments, lines, window, group_by))
        if len(totals) > rows_max:
            raise DomainError(
                "too_many_rows",
                f"the answer would have more than {rows_max} rows: ask for a shorter window, one endpoint,"
                " or fewer fields to group by",
            )
    currency = lines[0].currency
    return UsageReply(
        rows=tuple(_row(group_by, key, totals[key], currency) for key in sorted(totals)),
        total_cost_micros=sum(use.cost_micros for use in totals.values()),
        currency=currency,
        as_of=now,
        running_replicas=await store.running_replicas(question.organization_id, question.endpoint_id),
    )


async def _change_currency(currency: str, lines: list[PriceLine], store: Store) -> None:
    """A ledger keeps one currency. Until something was metered, it is the one last asked for."""
    if await store.metered_ever():
        kept = lines[0].currency
        raise DomainError(
            "other_currency", f"this ledger is kept in {kept} and use was metered in it: give the price in {kept}"
        )
    await store.set_currency(currency)


def _unknown(fact: ReplicaFact) -> Segment:
    return Segment(fact.replica_id, fact.organization_id, fact.endpoint_id)


def _prices_reply(lines: list[PriceLine], now: datetime) -> PricesReply:
    return PricesReply(
        prices=tuple(_price(line) for line in domain.in_force(lines, now)),
        upcoming=tuple(_price(line) for line in domain.upcoming(lines, now)),
    )


def _price(line: PriceLine) -> Price:
    return Price(
        gpu_type=line.gpu_type,
        micros_per_hour=line.micros_per_hour,
        currency=line.currency,
        valid_from=line.valid_from,
    )


def _row(group_by: tuple[Grouping, ...], key: GroupKey, use: Use, currency: str) -> UsageRow:
    group = dict(zip(group_by, key, strict=True))
    return UsageRow(
        endpoint_id=group.get("endpoint"),
        day=group.get("day"),
        gpu_type=group.get("gpu_type"),
        replica_us=use.replica_us,
        gpu_us=use.gpu_us,
        cost_micros=use.cost_micros,
        currency=currency,
    )
