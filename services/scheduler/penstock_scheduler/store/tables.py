"""All of the scheduler's SQL, on one open transaction."""

from collections.abc import Collection, Mapping
from datetime import datetime

from penstock_common.contracts.base import Event, Record
from penstock_common.contracts.records import Assignment, Route
from penstock_common.delivery.outbox import Connection, Outbox
from penstock_scheduler.domain import (
    Definition,
    Deployment,
    EarlyRequest,
    EndpointRecord,
    Gpu,
    Host,
    Policy,
    Replica,
    Snapshot,
)
from penstock_scheduler.records import RouteContent, content_due
from penstock_scheduler.store.rows import definition_of, endpoint_of, gpu_of, host_of, replica_of

_IDLE_MAX = "10s"
"""A process that stops while it holds the lock loses it after this, so that another can go on."""
_PURGES_MAX = 100
_STOPS_SAMPLED = 50

_DEMAND = "gpu_type, gpu_count, cpu_cores, memory_gb, disk_gb"
_RECORD = (
    f"endpoint_id, {_DEMAND}, desired_replicas, state, reason, requested_at, request_version, version, position,"
    " estimated_start_at, told_at, generation, crash_streak, crashed_at, next_start_at, stopped_at, restart_wanted,"
    " required_replicas, route_version, shortage, idle_since, idle_replicas, idle_told_at"
)


class Store:
    """The tables and the outbox, inside one transaction. Implements SchedulerStore."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def lock(self) -> None:
        await self._connection.execute(
            "select set_config('idle_in_transaction_session_timeout', $1, true),"
            " pg_advisory_xact_lock(hashtext('scheduler:lifecycle'))",
            _IDLE_MAX,
        )

    async def now(self) -> datetime:
        moment: datetime = await self._connection.fetchval("select clock_timestamp()")
        return moment

    # --- endpoints ------------------------------------------------------------------------

    async def deployment(self, endpoint_id: str) -> Deployment | None:
        return (await self.deployments([endpoint_id])).get(endpoint_id)

    async def deployments(self, endpoint_ids: Collection[str]) -> dict[str, Deployment]:
        rows = await self._connection.fetch(
            f"select {_RECORD}, organization_id, workspace_id, workspace, slug, spec::text, source::text, traceparent"
            " from endpoints where endpoint_id = any($1)",
            list(endpoint_ids),
        )
        live: dict[str, list[Replica]] = {row["endpoint_id"]: [] for row in rows}
        for row in await self._connection.fetch(
            "select * from replicas where endpoint_id = any($1) and ended_at is null order by generation", list(live)
        ):
            live[row["endpoint_id"]].append(replica_of(row))
        return {
            row["endpoint_id"]: Deployment(definition_of(row), endpoint_of(row), tuple(live[row["endpoint_id"]]))
            for row in rows
        }

    async def insert_endpoint(self, definition: Definition, endpoint: EndpointRecord) -> None:
        demand = endpoint.demand
        await self._connection.execute(
            "insert into endpoints (endpoint_id, organization_id, workspace_id, workspace, slug, spec, source,"
            f" {_DEMAND}, desired_replicas, state, reason, requested_at, request_version, version, generation,"
            " crash_streak, restart_wanted)"
            " values ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9, $10, $11, $12, $13, 'queued', '',"
            " $14, 0, 0, 0, 0, false)",
            definition.endpoint_id,
            definition.organization_id,
            definition.workspace_id,
            definition.workspace,
            definition.slug,
            definition.spec.model_dump_json(),
            definition.source.model_dump_json(),
            demand.gpu_type,
            demand.gpu_count,
            demand.cpu_cores,
            demand.memory_gb,
            demand.disk_gb,
            endpoint.desired_replicas,
            endpoint.requested_at,
        )
        await self.update_endpoint(definition, endpoint)

    async def update_endpoint(self, definition: Definition, endpoint: EndpointRecord) -> None:
        await self._connection.execute(
            "update endpoints set traceparent = $2, state = $3, reason = $4, requested_at = $5, request_version = $6,"
            " version = $7, position = $8, estimated_start_at = $9, told_at = $10, generation = $11,"
            " crash_streak = $12, crashed_at = $13, next_start_at = $14, stopped_at = $15, restart_wanted = $16,"
            " desired_replicas = $17, required_replicas = $18, route_version = $19, shortage = $20, idle_since = $21,"
            " idle_replicas = $22, idle_told_at = $23"
            " where endpoint_id = $1",
            endpoint.endpoint_id,
            definition.traceparent,
            endpoint.state,
            endpoint.reason,
            endpoint.requested_at,
            endpoint.request_version,
            endpoint.version,
            endpoint.position,
            endpoint.estimated_start_at,
            endpoint.told_at,
            endpoint.generation,
            endpoint.crash_streak,
            endpoint.crashed_at,
            endpoint.next_start_at,
            endpoint.stopped_at,
            endpoint.restart_wanted,
            endpoint.desired_replicas,
            endpoint.required_replicas,
            endpoint.route_version,
            endpoint.shortage,
            endpoint.idle_since,
            list(endpoint.idle_replicas),
            endpoint.idle_told_at,
        )

    async def early_request(self, endpoint_id: str) -> EarlyRequest | None:
        row = await self._connection.fetchrow("select * from early_requests where endpoint_id = $1", endpoint_id)
        return EarlyRequest(row["endpoint_id"], row["kind"], row["version"]) if row else None

    async def save_early_request(self, early: EarlyRequest) -> None:
        await self._connection.execute(
            "insert into early_requests (endpoint_id, kind, version) values ($1, $2, $3)"
            " on conflict (endpoint_id) do update set kind = excluded.kind, version = excluded.version"
            " where early_requests.version < excluded.version",
            early.endpoint_id,
            early.kind,
            early.version,
        )

    async def forget_early_request(self, endpoint_id: str) -> None:
        await self._connection.execute("delete from early_requests where endpoint_id = $1", endpoint_id)

    # --- replicas -------------------------------------------------------------------------

    async def endpoint_of(self, replica_id: str) -> str | None:
        endpoint_id: str | None = await self._connection.fetchval(
            "select endpoint_id from replicas where replica_id = $1", replica_id
        )
        return endpoint_id

    async def replicas(self, replica_ids: Collection[str]) -> dict[str, Replica]:
        rows = await self._connection.fetch("select * from replicas where replica_id = any($1)", list(replica_ids))
        return {row["replica_id"]: replica_of(row) for row in rows}

    async def live_replicas_on(self, host_id: str) -> list[Replica]:
        rows = await self._connection.fetch(
            "select * from replicas where host_id = $1 and ended_at is null order by replica_id", host_id
        )
        return [replica_of(row) for row in rows]

    async def insert_replica(self, replica: Replica) -> None:
        demand = replica.demand
        await self._connection.execute(
            f"insert into replicas (replica_id, endpoint_id, host_id, generation, {_DEMAND}, gpu_uuids, phase, detail,"
            " sequence, scheduled_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            replica.replica_id,
            replica.endpoint_id,
            replica.host_id,
            replica.generation,
            demand.gpu_type,
            demand.gpu_count,
            demand.cpu_cores,
            demand.memory_gb,
            demand.disk_gb,
            list(replica.gpu_uuids),
            replica.phase,
            replica.detail,
            replica.sequence,
            replica.scheduled_at,
        )
        if replica.gpu_uuids:
            await self._connection.execute(
                "insert into gpu_reservations (gpu_uuid, replica_id) select unnest($1::text[]), $2",
                list(replica.gpu_uuids),
                replica.replica_id,
            )

    async def update_replica(self, replica: Replica) -> None:
        await self._connection.execute(
            "update replicas set phase = $2, detail = $3, address = $4, sequence = $5, ready_at = $6,"
            " unassign_at = $7, unassigned_at = $8, ended_at = $9, cause = $10, exit_code = $11,"
            " drain_version = $12, gives_way = $13"
            " where replica_id = $1",
            replica.replica_id,
            replica.phase,
            replica.detail,
            replica.address,
            replica.sequence,
            replica.ready_at,
            replica.unassign_at,
            replica.unassigned_at,
            replica.ended_at,
            replica.cause,
            replica.exit_code,
            replica.drain_version,
            replica.gives_way,
        )
        if not replica.live and replica.gpu_uuids:
            await self._connection.execute(
                "update gpu_reservations set released_at = clock_timestamp()"
                " where replica_id = $1 and released_at is null",
                replica.replica_id,
            )

    async def forget_replicas_ended_before(self, moment: datetime) -> None:
        """Housekeeping: a late report about one of them is about nothing, as it should be."""
        await self._connection.execute("delete from replicas where ended_at < $1", moment)

    # --- hosts ----------------------------------------------------------------------------

    async def host(self, host_id: str) -> Host | None:
        row = await self._connection.fetchrow("select * from hosts where host_id = $1", host_id)
        if row is None:
            return None
        gpus = await self._connection.fetch("select * from gpus where host_id = $1 order by uuid", host_id)
        return host_of(row, [gpu_of(gpu) for gpu in gpus])

    async def hosts(self) -> list[Host]:
        gpus: dict[str, list[Gpu]] = {}
        for row in await self._connection.fetch("select * from gpus order by host_id, uuid"):
            gpus.setdefault(row["host_id"], []).append(gpu_of(row))
        rows = await self._connection.fetch("select * from hosts order by host_id")
        return [host_of(row, gpus.get(row["host_id"], [])) for row in rows]

    async def save_host(self, host: Host) -> None:
        await self._connection.execute(
            "insert into hosts (host_id, state, boot_id, driver, cpu_cores, memory_gb, disk_gb, simulated, fenced,"
            " last_seen_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            " on conflict (host_id) do update set state = excluded.state, boot_id = excluded.boot_id,"
            " driver = excluded.driver, cpu_cores = excluded.cpu_cores, memory_gb = excluded.memory_gb,"
            " disk_gb = excluded.disk_gb, simulated = excluded.simulated, fenced = excluded.fenced,"
            " last_seen_at = greatest(hosts.last_seen_at, excluded.last_seen_at)",
            host.host_id,
            host.state,
            host.boot_id,
            host.driver,
            host.cpu_cores,
            host.memory_gb,
            host.disk_gb,
            host.simulated,
            host.fenced,
            host.last_seen_at,
        )
        await self._connection.execute(
            "delete from gpus where host_id = $1 and not uuid = any($2)", host.host_id, [gpu.uuid for gpu in host.gpus]
        )
        await self._connection.executemany(
            "insert into gpus (host_id, uuid, type, memory_gb) values ($1, $2, $3, $4)"
            " on conflict (host_id, uuid) do update set type = excluded.type, memory_gb = excluded.memory_gb",
            [(host.host_id, gpu.uuid, gpu.type, gpu.memory_gb) for gpu in host.gpus],
        )

    async def saw_hosts(self, ages_s: Mapping[str, float]) -> None:
        await self._connection.execute(
            "update hosts set last_seen_at = greatest(last_seen_at, clock_timestamp() - make_interval(secs => age_s))"
            " from unnest($1::text[], $2::float8[]) as seen (id, age_s) where host_id = seen.id",
            list(ages_s),
            list(ages_s.values()),
        )

    # --- planning -------------------------------------------------------------------------

    async def snapshot(self, policy: Policy, listening_since: datetime) -> Snapshot:
        endpoints = await self._connection.fetch(
            f"select {_RECORD} from endpoints where state in ('queued', 'starting', 'running')"
            f" union all (select {_RECORD} from endpoints"
            " where state = 'stopped' and stopped_at <= clock_timestamp() - $1::interval"
            f" order by stopped_at limit {_PURGES_MAX})",
            policy.purge_after,
        )
        replicas = await self._connection.fetch("select * from replicas where ended_at is null")
        scalars = await self._connection.fetchrow(
            "select (select array_agg(gpu_uuid) from gpu_reservations where released_at is null) as reserved,"
            " (select min(stopped_at) from endpoints where state = 'stopped') as stopped_first,"
            " (select percentile_cont(0.9) within group (order by extract(epoch from ended_at - unassigned_at)::float8)"
            "  from (select ended_at, unassigned_at from replicas where cause = 'stopped' and ended_at > unassigned_at"
            f"  order by ended_at desc limit {_STOPS_SAMPLED}) as stops) as release_s"
        )
        assert scalars is not None
        stopped_first: datetime | None = scalars["stopped_first"]
        return Snapshot(
            policy=policy,
            hosts=tuple(await self.hosts()),
            endpoints=tuple(endpoint_of(row) for row in endpoints),
            replicas=tuple(replica_of(row) for row in replicas),
            reserved=frozenset(scalars["reserved"] or ()),
            listening_since=listening_since,
            release_s=scalars["release_s"],
            next_purge_at=stopped_first + policy.purge_after if stopped_first else None,
        )

    # --- what buckets must hold -----------------------------------------------------------

    async def assigned(self) -> dict[str, str]:
        """Key of each assignment that must exist → its endpoint."""
        rows = await self._connection.fetch(
            "select host_id || '.' || replica_id as key, endpoint_id from replicas"
            " where ended_at is null and unassigned_at is null"
        )
        return {row["key"]: row["endpoint_id"] for row in rows}

    async def routed(self) -> dict[str, RouteContent]:
        """Endpoint → what its route must say, for all that are not terminated."""
        endpoints = await self._connection.fetch(f"select {_RECORD} from endpoints where state <> 'terminated'")
        routed: dict[str, list[Replica]] = {row["endpoint_id"]: [] for row in endpoints}
        for row in await self._connection.fetch("select * from replicas where ended_at is null and phase = 'ready'"):
            if row["endpoint_id"] in routed:
                routed[row["endpoint_id"]].append(replica_of(row))
        return {row["endpoint_id"]: content_due(endpoint_of(row), routed[row["endpoint_id"]]) for row in endpoints}

    async def emit(self, fact: Event) -> None:
        await self._outbox.emit(fact)

    async def put(self, record: Record) -> None:
        await self._outbox.put(record)

    async def delete_assignment(self, key: str) -> None:
        await self._outbox.delete(Assignment, key)

    async def delete_route(self, endpoint_id: str) -> None:
        await self._outbox.delete(Route, endpoint_id)
