"""What tests of delivery share: a store with one table, a recording handler, and two services."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock_common.contracts.events import EndpointStopRequested
from penstock_common.contracts.topology import SCHEDULER_REQUESTS
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.outbox import Connection, Outbox
from penstock_common.service import Service
from penstock_common.settings import ServiceSettings

Make = Callable[..., ServiceSettings]
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass
class Notes:
    """A store with one table."""

    connection: Connection
    outbox: Outbox

    async def add(self, text: str) -> None:
        await self.connection.execute("insert into notes (text) values ($1)", text)


async def notes(service: Service[Notes]) -> list[str]:
    return [row["text"] for row in await service.pool.fetch("select text from notes order by id")]


def stop_requested(endpoint: str, version: int = 1) -> EndpointStopRequested:
    return EndpointStopRequested(endpoint_id=endpoint, organization_id="org", version=version)


@dataclass
class Recorder:
    """A handler that notes each endpoint id, and fails as told."""

    fail: Callable[[Received[Any]], Exception | None] = lambda _: None
    deliveries: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, received: Received[Any], store: Notes) -> None:
        self.deliveries.append((received.message.endpoint_id, received.delivery))
        await store.add(received.message.endpoint_id)
        failure = self.fail(received)
        if failure is not None:
            raise failure


def api(make: Make) -> Service[Notes]:
    return Service("api", make("api"), make_store=Notes, migrations=MIGRATIONS)


def scheduler(make: Make, handler: Callable[[Received[Any], Notes], Awaitable[None]]) -> Service[Notes]:
    service = Service("scheduler", make("scheduler"), make_store=Notes, migrations=MIGRATIONS)
    service.subscribe(SCHEDULER_REQUESTS, {EndpointStopRequested: handler})
    return service


async def send(service: Service[Notes], *endpoints: str) -> None:
    async with service.transaction() as store:
        for endpoint in endpoints:
            await store.outbox.emit(stop_requested(endpoint))
