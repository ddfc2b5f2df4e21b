"""Writes a transition down: the tables, the facts and the bucket records, in one transaction."""

from penstock_scheduler.domain import Deployment, Outcome, Replica
from penstock_scheduler.ports import SchedulerStore
from penstock_scheduler.records import assignment_key, assignment_of, route_of, same_but_for_version


async def save(store: SchedulerStore, before: Deployment | None, outcome: Outcome) -> None:
    """Save what differs between `before` and the outcome. An unchanged outcome writes nothing."""
    after = outcome.deployment
    if before is None:
        await store.insert_endpoint(after.definition, after.endpoint)
    elif (before.definition, before.endpoint) != (after.definition, after.endpoint):
        await store.update_endpoint(after.definition, after.endpoint)
    known = {replica.replica_id: replica for replica in before.replicas} if before is not None else {}
    for replica in after.replicas:
        if known.get(replica.replica_id) != replica:
            await _save_replica(store, known.get(replica.replica_id), replica, after)
    for fact in outcome.facts:
        await store.emit(fact)
    route = route_of(after)
    if route is None:
        if before is None or before.endpoint.state != "terminated":
            await store.delete_route(after.endpoint.endpoint_id)
    elif before is None or not same_but_for_version(route_of(before), route):
        await store.put(route)


async def _save_replica(store: SchedulerStore, before: Replica | None, replica: Replica, after: Deployment) -> None:
    if before is None:
        await store.insert_replica(replica)
        await store.put(assignment_of(after.definition, replica))
        return
    await store.update_replica(replica)
    if before.unassigned_at is None and replica.unassigned_at is not None:
        await store.delete_assignment(assignment_key(replica))
