"""The scheduler's facts, and what replicas print, become what users see."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from penstock_api.domain import timeline
from penstock_api.domain.lifecycle import ENDPOINT_FACTS, REPLICA_FACTS, after_endpoint_fact, after_replica_fact
from penstock_api.domain.text import storable, tail
from penstock_api.store import Store
from penstock_common.contracts.base import Message
from penstock_common.contracts.events import EndpointFact, LogBatch, LogLine, ReplicaFact
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.errors import Permanent

log = logging.getLogger(__name__)

LINE_CHARACTERS_MAX = 16_384
REASON_CHARACTERS_MAX = 4_096
LOG_TAIL_CHARACTERS_MAX = 65_536


async def endpoint_changed(received: Received[EndpointFact], store: Store) -> None:
    """Show the endpoint as the fact says, unless something newer is known."""
    fact = _clean(received.message)
    status = await store.endpoints.status_to_change(fact.endpoint_id)
    if status is None:
        raise _unknown(fact.endpoint_id)
    changed = after_endpoint_fact(status, fact)
    if changed is None:
        return
    await store.endpoints.save_status(fact.endpoint_id, changed)
    await store.endpoints.add_event(fact.endpoint_id, timeline.of_endpoint_fact(fact, status.state))


async def replica_changed(received: Received[ReplicaFact], store: Store) -> None:
    """Show the replica as the fact says, unless something newer is known."""
    fact = _clean(received.message)
    status = await store.endpoints.status_to_change(fact.endpoint_id)
    if status is None:
        raise _unknown(fact.endpoint_id)
    known = await store.endpoints.replica(fact.replica_id)
    changed = after_replica_fact(known, fact)
    if changed is None:
        return
    await store.endpoints.save_replica(changed)
    others_ready = await store.endpoints.ready_replicas(fact.endpoint_id, but=fact.replica_id)
    await store.endpoints.add_event(fact.endpoint_id, timeline.of_replica_fact(fact, status.state, others_ready))


async def lines_printed(received: Received[LogBatch], store: Store) -> None:
    """Keep the lines; those that are there already are skipped."""
    batch = received.message
    if not batch.lines:
        return
    if not await store.endpoints.exists(batch.endpoint_id):
        # Not worth a dead letter: nobody could ever read these lines.
        log.warning("log lines of an unknown endpoint dropped", extra={"endpoint_id": batch.endpoint_id})
        return
    lines = [
        LogLine(offset=line.offset, at=line.at, text=storable(line.text, LINE_CHARACTERS_MAX)) for line in batch.lines
    ]
    await store.logs.add(batch.endpoint_id, batch.replica_id, lines)


LIFECYCLE_HANDLERS: Mapping[type[Message], Callable[[Received[Any], Store], Awaitable[None]]] = {
    **dict.fromkeys(ENDPOINT_FACTS, endpoint_changed),
    **dict.fromkeys(REPLICA_FACTS, replica_changed),
}


def _clean(fact: Any) -> Any:
    """Models print what they like, and hosts quote it: it must not keep a fact from being stored."""
    changes: dict[str, str] = {}
    for name in ("reason", "detail"):
        if hasattr(fact, name):
            changes[name] = storable(getattr(fact, name), REASON_CHARACTERS_MAX)
    if hasattr(fact, "log_tail"):
        changes["log_tail"] = tail(fact.log_tail, LOG_TAIL_CHARACTERS_MAX)
    return fact.model_copy(update=changes) if changes else fact


def _unknown(endpoint_id: str) -> Permanent:
    return Permanent(f"the API has no endpoint {endpoint_id}: its database and the scheduler's do not match")
