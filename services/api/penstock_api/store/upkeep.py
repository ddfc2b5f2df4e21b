"""SQL that keeps the tables bounded. Each call does a bounded piece of the work."""

from datetime import timedelta

from penstock_common.delivery.outbox import Connection

_ROWS_MAX = 10_000
_ENDPOINTS_MAX = 20
_TERMINATED_LOGS_KEPT = timedelta(hours=1)
"""An endpoint's logs go with it; its user has this long to read how it ended."""


class Upkeep:
    """Deletes what has been kept long enough. Every method returns how many rows it deleted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def trim_logs(self, *, kept_days: int, lines_per_endpoint: int) -> int:
        """Log lines of one endpoint that has too old or too many; 0 when there is no such endpoint."""
        row = await self._connection.fetchrow(
            "select c.endpoint_id, c.lines, e.state = 'terminated' and e.updated_at < clock_timestamp() - $3::interval"
            " as is_over, first.is_old"
            " from log_counts c join endpoints e on e.id = c.endpoint_id cross join lateral"
            " (select received_at < clock_timestamp() - $1::interval as is_old from log_lines l"
            " where l.endpoint_id = c.endpoint_id order by id limit 1) first"
            " where c.lines > $2 or first.is_old"
            " or e.state = 'terminated' and e.updated_at < clock_timestamp() - $3::interval"
            " limit 1",
            timedelta(days=kept_days),
            lines_per_endpoint,
            _TERMINATED_LOGS_KEPT,
        )
        if row is None:
            return 0
        too_many = row["lines"] if row["is_over"] else row["lines"] - lines_per_endpoint
        if too_many > 0:
            return await self._delete_lines(row["endpoint_id"], "true", min(too_many, _ROWS_MAX))
        old = "received_at < clock_timestamp() - $3::interval"
        return await self._delete_lines(row["endpoint_id"], old, _ROWS_MAX, timedelta(days=kept_days))

    async def _delete_lines(self, endpoint_id: str, condition: str, limit: int, *arguments: object) -> int:
        # The count is locked first, as who writes lines does.
        await self._connection.execute("select 1 from log_counts where endpoint_id = $1 for update", endpoint_id)
        deleted: int = await self._connection.fetchval(
            "with gone as (delete from log_lines where id in (select id from log_lines"
            f" where endpoint_id = $1 and {condition} order by id limit $2) returning 1) select count(*) from gone",
            endpoint_id,
            limit,
            *arguments,
        )
        await self._connection.execute(
            "update log_counts set lines = lines - $2 where endpoint_id = $1", endpoint_id, deleted
        )
        return deleted

    async def trim_events(self, events_per_endpoint: int) -> int:
        """The oldest events of every endpoint that has more than this."""
        return await self._delete(
            "delete from endpoint_events e using"
            " (select endpoint_id from endpoint_events group by endpoint_id having count(*) > $1) crowded"
            " where e.endpoint_id = crowded.endpoint_id and e.id <= (select id from endpoint_events k"
            " where k.endpoint_id = crowded.endpoint_id order by id desc offset $1 limit 1)",
            events_per_endpoint,
        )

    async def drop_terminated(self, kept_days: int) -> int:
        """Some endpoints that were terminated so long ago, with all that is kept of them but log lines, which
        go before: their bill is no part of this."""
        rows = await self._connection.fetch(
            "select id from endpoints e where state = 'terminated' and updated_at < clock_timestamp() - $1::interval"
            " and not exists (select from log_lines l where l.endpoint_id = e.id)"
            " order by updated_at limit $2 for update skip locked",
            timedelta(days=kept_days),
            _ENDPOINTS_MAX,
        )
        ids = [row["id"] for row in rows]
        for table in ("endpoint_events", "replicas", "rollups", "log_counts"):
            await self._delete(f"delete from {table} where endpoint_id = any($1::text[])", ids)
        return await self._delete("delete from endpoints where id = any($1::text[])", ids)

    async def drop_ended_replicas(self, kept_days: int) -> int:
        return await self._delete(
            "delete from replicas where phase = 'ended' and ended_at < clock_timestamp() - $1::interval",
            timedelta(days=kept_days),
        )

    async def forget_requests(self, kept_h: int) -> int:
        """Idempotency keys."""
        return await self._delete(
            "delete from idempotency_keys where created_at < clock_timestamp() - $1::interval", timedelta(hours=kept_h)
        )

    async def _delete(self, statement: str, *arguments: object) -> int:
        status = await self._connection.execute(statement, *arguments)
        return int(status.rpartition(" ")[2])
