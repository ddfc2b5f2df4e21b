"""SQL of log lines."""

from collections.abc import Sequence

from penstock_api.domain.endpoints import StoredLine
from penstock_api.store.endpoints import STREAMS_CHANNEL
from penstock_common.contracts.events import LogLine
from penstock_common.delivery.outbox import Connection

_LINE = "id, at, replica_id, text"


class Logs:
    """What replicas printed, kept for a while."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, endpoint_id: str, replica_id: str, lines: Sequence[LogLine]) -> int:
        """Store the lines that are not there yet, and wake who follows them; returns how many."""
        await self._lock(endpoint_id)
        added: int = await self._connection.fetchval(
            "with added as (insert into log_lines (endpoint_id, replica_id, line_offset, at, text)"
            " select $1, $2, line_offset, at, text from unnest($3::bigint[], $4::timestamptz[], $5::text[])"
            " with ordinality as given (line_offset, at, text, place) order by place"
            " on conflict (replica_id, line_offset) do nothing returning 1)"
            " select count(*) from added",
            endpoint_id,
            replica_id,
            [line.offset for line in lines],
            [line.at for line in lines],
            [line.text for line in lines],
        )
        if added:
            await self._connection.execute(
                "with counted as"
                " (update log_counts set lines = lines + $2 where endpoint_id = $1 returning endpoint_id)"
                f" select pg_notify('{STREAMS_CHANNEL}', 'logs:' || endpoint_id) from counted",
                endpoint_id,
                added,
            )
        return added

    async def newest(
        self, endpoint_id: str, *, replica_id: str | None, before: int | None, limit: int
    ) -> list[StoredLine]:
        """Newest first, from before line `before`."""
        rows = await self._connection.fetch(
            f"select {_LINE} from log_lines where endpoint_id = $1 and ($2::text is null or replica_id = $2)"
            " and ($3::bigint is null or id < $3) order by id desc limit $4",
            endpoint_id,
            replica_id,
            before,
            limit,
        )
        return [StoredLine(**row) for row in rows]

    async def after(self, endpoint_id: str, *, replica_id: str | None, after: int, limit: int) -> list[StoredLine]:
        """Oldest first, from behind line `after`."""
        rows = await self._connection.fetch(
            f"select {_LINE} from log_lines where endpoint_id = $1 and ($2::text is null or replica_id = $2)"
            " and id > $3 order by id limit $4",
            endpoint_id,
            replica_id,
            after,
            limit,
        )
        return [StoredLine(**row) for row in rows]

    async def _lock(self, endpoint_id: str) -> None:
        await self._connection.execute(
            "insert into log_counts (endpoint_id, lines) values ($1, 0)"
            " on conflict (endpoint_id) do update set lines = log_counts.lines",
            endpoint_id,
        )
