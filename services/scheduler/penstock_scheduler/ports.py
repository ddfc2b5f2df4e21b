"""What handlers and the planner need of a store. The real one is in store.py; tests have another."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from penstock_common.contracts.base import Event, Record
from penstock_scheduler.domain import (
    Definition,
    Deployment,
    EarlyRequest,
    EndpointRecord,
    Host,
    Policy,
    Replica,
    Snapshot,
)


class SchedulerStore(Protocol):
    """One open transaction on the scheduler's tables, and its outbox."""

    async def lock(self) -> None:
        """Wait until no other transaction changes the lifecycle; held until the end of this one.

        Everyone who writes takes it first: so facts leave in the order of what they tell, and a plan
        is carried out on the very state it was made for.
        """

    async def now(self) -> datetime:
        """The one clock that lifecycle times come from."""

    # --- endpoints

    async def deployment(self, endpoint_id: str) -> Deployment | None:
        """An endpoint with its live replicas."""

    async def deployments(self, endpoint_ids: Collection[str]) -> dict[str, Deployment]:
        """Those of these endpoints that are known, by id."""

    async def insert_endpoint(self, definition: Definition, endpoint: EndpointRecord) -> None: ...

    async def update_endpoint(self, definition: Definition, endpoint: EndpointRecord) -> None: ...

    async def early_request(self, endpoint_id: str) -> EarlyRequest | None: ...

    async def save_early_request(self, early: EarlyRequest) -> None:
        """Keep it, unless a newer one is kept already."""

    async def forget_early_request(self, endpoint_id: str) -> None: ...

    # --- replicas

    async def endpoint_of(self, replica_id: str) -> str | None:
        """The endpoint of a replica that lives or lived."""

    async def replicas(self, replica_ids: Collection[str]) -> dict[str, Replica]:
        """Those of these replicas that are known, live or not, by id."""

    async def live_replicas_on(self, host_id: str) -> list[Replica]: ...

    async def insert_replica(self, replica: Replica) -> None:
        """Add it and reserve its GPUs. Raises when one of them is reserved already."""

    async def update_replica(self, replica: Replica) -> None:
        """Save what can change about it; once it has ended its GPUs are free."""

    # --- hosts

    async def host(self, host_id: str) -> Host | None: ...

    async def hosts(self) -> list[Host]:
        """Every host there ever was."""

    async def save_host(self, host: Host) -> None:
        """Add it, or replace what is known of it and its GPUs."""

    async def saw_hosts(self, ages_s: Mapping[str, float]) -> None:
        """Note how long ago, in seconds, each of these hosts was last heard."""

    # --- planning

    async def snapshot(self, policy: Policy, listening_since: datetime) -> Snapshot: ...

    # --- what others must hear

    async def emit(self, fact: Event) -> None: ...

    async def put(self, record: Record) -> None: ...

    async def delete_assignment(self, key: str) -> None: ...

    async def delete_route(self, endpoint_id: str) -> None: ...
