"""All SQL of the API, bound to one transaction."""

from datetime import datetime

from penstock_api.store.accounts import Accounts
from penstock_api.store.endpoints import Endpoints
from penstock_api.store.idempotency import Idempotency
from penstock_api.store.keys import Keys
from penstock_api.store.logs import Logs
from penstock_api.store.rollups import Rollups
from penstock_api.store.upkeep import Upkeep
from penstock_common.contracts.base import Event
from penstock_common.delivery.outbox import Connection, Outbox


class Store:
    """The tables of the API, and what a transaction tells others."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self.accounts = Accounts(connection)
        self.keys = Keys(connection, outbox)
        self.endpoints = Endpoints(connection)
        self.logs = Logs(connection)
        self.rollups = Rollups(connection)
        self.idempotency = Idempotency(connection)
        self.upkeep = Upkeep(connection)

    async def now(self) -> datetime:
        """The platform's one clock."""
        now: datetime = await self._connection.fetchval("select clock_timestamp()")
        return now

    async def emit(self, event: Event) -> None:
        """Publish a fact once the transaction commits."""
        await self._outbox.emit(event)
