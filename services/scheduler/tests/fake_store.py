"""The tables as dictionaries. It behaves as the store on PostgreSQL does: one suite runs on both."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from penstock_common.contracts.base import Event, Record
from penstock_common.contracts.records import Assignment, Route
from penstock_scheduler.domain import (
    WANTED_STATES,
    Definition,
    Deployment,
    EarlyRequest,
    EndpointRecord,
    Host,
    Policy,
    Replica,
    Snapshot,
)

from .builders import T0


@dataclass
class FakeStore:
    """Also keeps what was told: the facts, and the buckets as their readers see them."""

    clock: datetime = T0
    definitions: dict[str, Definition] = field(default_factory=dict)
    records: dict[str, EndpointRecord] = field(default_factory=dict)
    early: dict[str, EarlyRequest] = field(default_factory=dict)
    all_replicas: dict[str, Replica] = field(default_factory=dict)
    reservations: dict[str, str] = field(default_factory=dict)
    all_hosts: dict[str, Host] = field(default_factory=dict)
    facts: list[Event] = field(default_factory=list)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)

    async def lock(self) -> None: ...

    async def now(self) -> datetime:
        return self.clock

    async def deployment(self, endpoint_id: str) -> Deployment | None:
        return (await self.deployments([endpoint_id])).get(endpoint_id)

    async def deployments(self, endpoint_ids: Collection[str]) -> dict[str, Deployment]:
        return {
            endpoint_id: Deployment(
                self.definitions[endpoint_id],
                self.records[endpoint_id],
                tuple(each for each in self.all_replicas.values() if each.live and each.endpoint_id == endpoint_id),
            )
            for endpoint_id in endpoint_ids
            if endpoint_id in self.records
        }

    async def insert_endpoint(self, definition: Definition, endpoint: EndpointRecord) -> None:
        assert endpoint.endpoint_id not in self.records
        await self.update_endpoint(definition, endpoint)

    async def update_endpoint(self, definition: Definition, endpoint: EndpointRecord) -> None:
        self.definitions[definition.endpoint_id] = definition
        self.records[endpoint.endpoint_id] = endpoint

    async def early_request(self, endpoint_id: str) -> EarlyRequest | None:
        return self.early.get(endpoint_id)

    async def save_early_request(self, early: EarlyRequest) -> None:
        known = self.early.get(early.endpoint_id)
        if known is None or known.version < early.version:
            self.early[early.endpoint_id] = early

    async def forget_early_request(self, endpoint_id: str) -> None:
        self.early.pop(endpoint_id, None)

    async def endpoint_of(self, replica_id: str) -> str | None:
        known = self.all_replicas.get(replica_id)
        return known.endpoint_id if known else None

    async def replicas(self, replica_ids: Collection[str]) -> dict[str, Replica]:
        return {each: self.all_replicas[each] for each in replica_ids if each in self.all_replicas}

    async def live_replicas_on(self, host_id: str) -> list[Replica]:
        return [each for each in self.all_replicas.values() if each.live and each.host_id == host_id]

    async def insert_replica(self, replica: Replica) -> None:
        assert replica.host_id in self.all_hosts
        assert replica.replica_id not in self.all_replicas
        self.all_replicas[replica.replica_id] = replica
        for gpu_uuid in replica.gpu_uuids:
            if gpu_uuid in self.reservations:
                raise ValueError(f"GPU {gpu_uuid} is reserved twice")
            self.reservations[gpu_uuid] = replica.replica_id

    async def update_replica(self, replica: Replica) -> None:
        self.all_replicas[replica.replica_id] = replica
        if not replica.live:
            for gpu_uuid in replica.gpu_uuids:
                if self.reservations.get(gpu_uuid) == replica.replica_id:
                    del self.reservations[gpu_uuid]

    async def host(self, host_id: str) -> Host | None:
        return self.all_hosts.get(host_id)

    async def hosts(self) -> list[Host]:
        return [self.all_hosts[host_id] for host_id in sorted(self.all_hosts)]

    async def save_host(self, host: Host) -> None:
        known = self.all_hosts.get(host.host_id)
        seen_at = max(host.last_seen_at, known.last_seen_at) if known else host.last_seen_at
        self.all_hosts[host.host_id] = replace(host, last_seen_at=seen_at)

    async def saw_hosts(self, ages_s: Mapping[str, float]) -> None:
        for host_id, age_s in ages_s.items():
            if host_id in self.all_hosts:
                known = self.all_hosts[host_id]
                seen_at = max(known.last_seen_at, self.clock - timedelta(seconds=age_s))
                self.all_hosts[host_id] = replace(known, last_seen_at=seen_at)

    async def snapshot(self, policy: Policy, listening_since: datetime) -> Snapshot:
        stopped = {
            each.endpoint_id: each.stopped_at
            for each in self.records.values()
            if each.state == "stopped" and each.stopped_at is not None
        }
        ended = [each for each in self.all_replicas.values() if each.cause == "stopped"]
        stops = sorted(
            (each.ended_at - each.unassigned_at).total_seconds()
            for each in ended
            if each.ended_at is not None and each.unassigned_at is not None and each.ended_at > each.unassigned_at
        )
        return Snapshot(
            policy=policy,
            hosts=tuple(await self.hosts()),
            endpoints=tuple(
                each
                for each in self.records.values()
                if each.state in WANTED_STATES
                or (each.endpoint_id in stopped and stopped[each.endpoint_id] <= self.clock - policy.purge_after)
            ),
            replicas=tuple(each for each in self.all_replicas.values() if each.live),
            reserved=frozenset(self.reservations),
            listening_since=listening_since,
            release_s=stops[-1] if stops else None,
            next_purge_at=min(stopped.values()) + policy.purge_after if stopped else None,
        )

    async def emit(self, fact: Event) -> None:
        self.facts.append(type(fact).model_validate_json(fact.model_dump_json()))

    async def put(self, record: Record) -> None:
        if isinstance(record, Assignment):
            self.assignments[record.key()] = record
        elif isinstance(record, Route):
            self.routes[record.key()] = record

    async def delete_assignment(self, key: str) -> None:
        self.assignments.pop(key, None)

    async def delete_route(self, endpoint_id: str) -> None:
        self.routes.pop(endpoint_id, None)
