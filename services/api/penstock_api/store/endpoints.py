"""SQL of endpoints, their history and their replicas."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from penstock_api.domain.endpoints import Endpoint, Filter, StoredEvent
from penstock_api.domain.lifecycle import EndpointStatus, ReplicaStatus, Scaling
from penstock_api.domain.timeline import Entry
from penstock_common.contracts.endpoint import EndpointSpec, PinnedSource
from penstock_common.delivery.outbox import Connection

STREAMS_CHANNEL = "api_streams"
"""NOTIFY channel that wakes event and log streams; the payload says which (`events:ep_…`)."""

_STATUS = (
    "e.state, e.wanted, e.version, e.reason, e.position, e.estimated_start_at, e.started_at, e.log_tail, e.idle_since,"
    " e.desired_replicas, e.scaled_version, e.scalings"
)
_ENDPOINT = (
    "select e.id, e.organization_id, e.workspace_id, w.slug as workspace, e.slug, e.spec, e.source, e.request_version,"
    f" {_STATUS}, e.created_at, e.updated_at from endpoints e join workspaces w on w.id = e.workspace_id"
)
_REPLICA = "id, endpoint_id, host_id, generation, version, phase, detail, gpu_uuids, scheduled_at, ready_at, ended_at"
_SCALINGS = TypeAdapter(tuple[Scaling, ...])


class Endpoints:
    """The endpoints, as their users asked for them and as the scheduler's facts say they are."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- endpoints ------------------------------------------------------------------------

    async def add(self, endpoint: Endpoint) -> bool:
        """False when an endpoint of that workspace has the name already."""
        status = endpoint.status
        added = await self._connection.fetchval(
            "insert into endpoints (id, organization_id, workspace_id, name, slug, spec, source, request_version,"
            " wanted, state, reason, created_at, updated_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
            " on conflict (workspace_id, slug) where state <> 'terminated' do nothing returning true",
            endpoint.id,
            endpoint.organization_id,
            endpoint.workspace_id,
            endpoint.spec.name,
            endpoint.slug,
            endpoint.spec.model_dump_json(),
            endpoint.source.model_dump_json(),
            endpoint.request_version,
            status.wanted,
            status.state,
            status.reason,
            endpoint.created_at,
            endpoint.updated_at,
        )
        return added is True

    async def name_is_taken(self, workspace_id: str, slug: str) -> bool:
        taken: bool = await self._connection.fetchval(
            "select exists (select from endpoints where workspace_id = $1 and slug = $2 and state <> 'terminated')",
            workspace_id,
            slug,
        )
        return taken

    async def workspace_is_used(self, workspace_id: str) -> bool:
        used: bool = await self._connection.fetchval(
            "select exists (select from endpoints where workspace_id = $1 and state <> 'terminated')", workspace_id
        )
        return used

    async def one(self, organization_id: str, identifier: str) -> Endpoint | None:
        return await self._one(" where e.organization_id = $1 and e.id = $2", organization_id, identifier)

    async def one_to_change(self, organization_id: str, identifier: str) -> Endpoint | None:
        """The same, for this transaction alone."""
        return await self._one(
            " where e.organization_id = $1 and e.id = $2 for update of e", organization_id, identifier
        )

    async def page(self, organization_id: str, wanted: Filter, after: str | None, limit: int) -> list[Endpoint]:
        """Newest first."""
        rows = await self._connection.fetch(
            f"{_ENDPOINT} where e.organization_id = $1"
            " and ($2::text is null or w.slug = $2) and ($3::text is null or e.slug = $3)"
            " and case when $4::text is null then e.state <> 'terminated' else e.state = $4 end"
            " and ($5::text is null or e.id < $5) order by e.id desc limit $6",
            organization_id,
            wanted.workspace,
            wanted.slug,
            wanted.state,
            after,
            limit,
        )
        return [_endpoint(row) for row in rows]

    async def status_to_change(self, identifier: str) -> EndpointStatus | None:
        """What is known of an endpoint, for this transaction alone."""
        row = await self._connection.fetchrow(
            f"select {_STATUS} from endpoints e where id = $1 for no key update", identifier
        )
        return None if row is None else _status(row)

    async def exists(self, identifier: str) -> bool:
        found: bool = await self._connection.fetchval("select exists (select from endpoints where id = $1)", identifier)
        return found

    async def save_status(self, identifier: str, status: EndpointStatus) -> None:
        await self._connection.execute(
            "update endpoints set state = $2, wanted = $3, version = $4, reason = $5, position = $6,"
            " estimated_start_at = $7, started_at = $8, log_tail = $9, idle_since = $10, desired_replicas = $11,"
            " scaled_version = $12, scalings = $13, updated_at = clock_timestamp() where id = $1",
            identifier,
            status.state,
            status.wanted,
            status.version,
            status.reason,
            status.position,
            status.estimated_start_at,
            status.started_at,
            status.log_tail,
            status.idle_since,
            status.desired_replicas,
            status.scaled_version,
            _SCALINGS.dump_json(status.scalings).decode(),
        )

    async def save_request(self, identifier: str, status: EndpointStatus, request_version: int) -> None:
        await self.save_status(identifier, status)
        await self._connection.execute(
            "update endpoints set request_version = $2 where id = $1", identifier, request_version
        )

    async def _one(self, condition: str, *arguments: str) -> Endpoint | None:
        row = await self._connection.fetchrow(_ENDPOINT + condition, *arguments)
        return None if row is None else _endpoint(row)

    # --- history --------------------------------------------------------------------------

    async def add_event(self, endpoint_id: str, entry: Entry) -> None:
        """The endpoint's row must be locked, so that followers see its events in order."""
        await self._connection.execute(
            "with added as (insert into endpoint_events (endpoint_id, at, type, phase, message, replica_id)"
            " values ($1, $2, $3, $4, $5, $6) returning endpoint_id)"
            f" select pg_notify('{STREAMS_CHANNEL}', 'events:' || endpoint_id) from added",
            endpoint_id,
            entry.at,
            entry.type,
            entry.phase,
            entry.message,
            entry.replica_id,
        )

    async def events(self, endpoint_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Oldest first, from behind event `after`."""
        rows = await self._connection.fetch(
            "select id, at, type, phase, message, replica_id from endpoint_events"
            " where endpoint_id = $1 and id > $2 order by id limit $3",
            endpoint_id,
            after,
            limit,
        )
        return [StoredEvent(**row) for row in rows]

    # --- replicas -------------------------------------------------------------------------

    async def replica(self, identifier: str) -> ReplicaStatus | None:
        row = await self._connection.fetchrow(f"select {_REPLICA} from replicas where id = $1", identifier)
        return None if row is None else _replica(row)

    async def replicas(self, endpoint_ids: Sequence[str]) -> list[ReplicaStatus]:
        """Those that have not ended, of these endpoints."""
        rows = await self._connection.fetch(
            f"select {_REPLICA} from replicas where endpoint_id = any($1::text[]) and phase <> 'ended' order by id",
            list(endpoint_ids),
        )
        return [_replica(row) for row in rows]

    async def ready_replicas(self, endpoint_id: str, *, but: str) -> int:
        """How many of its replicas are ready, one left out."""
        count: int = await self._connection.fetchval(
            "select count(*) from replicas where endpoint_id = $1 and phase = 'ready' and id <> $2", endpoint_id, but
        )
        return count

    async def save_replica(self, replica: ReplicaStatus) -> None:
        await self._connection.execute(
            f"insert into replicas ({_REPLICA}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
            " on conflict (id) do update set version = $5, phase = $6, detail = $7, gpu_uuids = $8,"
            " scheduled_at = $9, ready_at = $10, ended_at = $11",
            replica.id,
            replica.endpoint_id,
            replica.host_id,
            replica.generation,
            replica.version,
            replica.phase,
            replica.detail,
            list(replica.gpu_uuids),
            replica.scheduled_at,
            replica.ready_at,
            replica.ended_at,
        )


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        id=row["id"],
        organization_id=row["organization_id"],
        workspace_id=row["workspace_id"],
        workspace=row["workspace"],
        slug=row["slug"],
        spec=EndpointSpec.model_validate_json(row["spec"], extra="ignore"),
        source=PinnedSource.model_validate_json(row["source"], extra="ignore"),
        request_version=row["request_version"],
        status=_status(row),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _status(row: Any) -> EndpointStatus:
    columns = {name.partition(".")[2]: row[name.partition(".")[2]] for name in _STATUS.split(", ")}
    return EndpointStatus(**{**columns, "scalings": _SCALINGS.validate_json(row["scalings"])})


def _replica(row: Any) -> ReplicaStatus:
    return ReplicaStatus(**{**row, "gpu_uuids": tuple(row["gpu_uuids"])})
