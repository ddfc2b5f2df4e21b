"""Requests of who runs the platform: hosts, dead letters, replay and prices."""

import asyncio
from typing import Protocol

from penstock_api.domain.dead import CONSUMER, DELIVERIES, ERROR, SUBJECT, Resend, StoredLetter, preview, resend
from penstock_api.domain.problems import in_utc, not_found
from penstock_api.handlers.endpoints import Desk
from penstock_api.handlers.platform import Platform, answer_of
from penstock_api.views import admin as views
from penstock_common.contracts.questions import (
    AskHosts,
    AskPrices,
    HostsReply,
    Price,
    PricesReply,
    Replay,
    ReplayReply,
    SetPrice,
)
from penstock_common.contracts.topology import replay_subject
from penstock_common.errors import DomainError

OUTBOX_OWNERS = ("api", "scheduler")
"""The services that publish facts through an outbox."""


class DeadLetters(Protocol):
    """The stream DEAD."""

    async def newest(self, before: int | None, limit: int) -> tuple[list[StoredLetter], int | None]: ...
    async def get(self, sequence: int) -> StoredLetter | None: ...
    async def publish(self, message: Resend) -> None: ...
    async def delete(self, sequence: int) -> None: ...


async def list_hosts(platform: Platform) -> views.Hosts:
    reply: HostsReply = await answer_of(platform, AskHosts())
    return views.Hosts(
        items=[views.Host(id=host.host_id, **host.model_dump(exclude={"host_id"})) for host in reply.hosts]
    )


# --- dead letters ---------------------------------------------------------------------------


async def list_dead(letters: DeadLetters, before: int | None, limit: int) -> views.DeadLetters:
    found, next_before = await letters.newest(before, limit)
    return views.DeadLetters(items=[_letter(letter) for letter in found], next_before=next_before)


async def retry_dead(letters: DeadLetters, sequence: int) -> views.DeadLetter:
    """Send it again, then delete it; never the other way round."""
    letter = await _find(letters, sequence)
    await letters.publish(resend(letter))
    await letters.delete(sequence)
    return _letter(letter)


async def delete_dead(letters: DeadLetters, sequence: int) -> None:
    await _find(letters, sequence)
    await letters.delete(sequence)


async def _find(letters: DeadLetters, sequence: int) -> StoredLetter:
    letter = await letters.get(sequence)
    if letter is None:
        raise not_found("dead letter", str(sequence))
    return letter


def _letter(letter: StoredLetter) -> views.DeadLetter:
    deliveries = letter.headers.get(DELIVERIES, "")
    return views.DeadLetter(
        sequence=letter.sequence,
        at=letter.at,
        subject=letter.headers.get(SUBJECT, ""),
        type=letter.headers.get("ce-type", ""),
        message_id=letter.headers.get("ce-id"),
        consumer=letter.headers.get(CONSUMER, ""),
        error=letter.headers.get(ERROR, ""),
        deliveries=int(deliveries) if deliveries.isdecimal() else 0,
        preview=preview(letter.payload),
    )


# --- replay ---------------------------------------------------------------------------------


async def replay(platform: Platform, body: views.ReplayRequest) -> views.Replay:
    """What NATS lost is made anew, then each service that owns an outbox is asked to publish again; one
    that is away does not keep the others from it."""
    await platform.restore_topology()
    question = Replay(since=in_utc("since", body.since))
    replies = await asyncio.gather(*(_replay_one(platform, service, question) for service in OUTBOX_OWNERS))
    return views.Replay(services=dict(zip(OUTBOX_OWNERS, replies, strict=True)))


async def _replay_one(platform: Platform, service: str, question: Replay) -> views.Replayed:
    try:
        reply: ReplayReply = await platform.ask(question, subject=replay_subject(service))
    except DomainError as error:
        return views.Replayed(events=0, records=0, error=error.detail)
    return views.Replayed(events=reply.events, records=reply.records)


# --- prices ---------------------------------------------------------------------------------


async def list_prices(platform: Platform) -> views.Prices:
    return _prices(await answer_of(platform, AskPrices()))


async def set_price(desk: Desk, body: views.NewPrice) -> views.Prices:
    async with desk.platform.transaction() as store:
        now = await store.now()
    price = Price(
        gpu_type=body.gpu_type,
        micros_per_hour=body.micros_per_hour,
        currency=body.currency,
        valid_from=now if body.valid_from is None else in_utc("valid_from", body.valid_from),
    )
    reply: PricesReply = await answer_of(desk.platform, SetPrice(price=price))
    desk.prices.forget()
    return _prices(reply)


def _prices(reply: PricesReply) -> views.Prices:
    return views.Prices(
        items=[views.Price.model_validate(price) for price in reply.prices],
        upcoming=[views.Price.model_validate(price) for price in reply.upcoming],
    )
