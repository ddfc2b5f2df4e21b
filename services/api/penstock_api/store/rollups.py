"""SQL of the rollups that metrics are made of."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from penstock_api.domain.metrics import Rollup, Tally
from penstock_common.delivery.outbox import Connection

_TALLY = TypeAdapter(Tally)
_ROLLUP = "id, endpoint_id, at, step_s, tally"


class Rollups:
    """What was counted of each endpoint, by steps of time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, rollups: Sequence[Rollup]) -> None:
        """Write them in one statement, over those with the same ids; those of unknown endpoints are left out."""
        await self._connection.execute(
            f"insert into rollups ({_ROLLUP})"
            " select given.id, given.endpoint_id, given.at, given.step_s, given.tally"
            " from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::int[], $5::jsonb[])"
            " as given (id, endpoint_id, at, step_s, tally) join endpoints e on e.id = given.endpoint_id"
            " on conflict (id) do update set tally = excluded.tally",
            [rollup.id for rollup in rollups],
            [rollup.endpoint_id for rollup in rollups],
            [rollup.at for rollup in rollups],
            [rollup.step_s for rollup in rollups],
            [_TALLY.dump_json(rollup.tally).decode() for rollup in rollups],
        )

    async def of(self, endpoint_id: str, start: datetime, end: datetime) -> list[Rollup]:
        """Those of one endpoint that begin from `start` on and before `end`."""
        rows = await self._connection.fetch(
            f"select {_ROLLUP} from rollups where endpoint_id = $1 and at >= $2 and at < $3", endpoint_id, start, end
        )
        return [_rollup(row) for row in rows]

    async def take(self, step_s: int, before: datetime, limit: int) -> list[Rollup]:
        """Remove and return the oldest of this step that begin before a moment, at most `limit`."""
        rows = await self._connection.fetch(
            "delete from rollups where id in (select id from rollups where step_s = $1 and at < $2"
            f" order by at limit $3 for update skip locked) returning {_ROLLUP}",
            step_s,
            before,
            limit,
        )
        return [_rollup(row) for row in rows]


def _rollup(row: Any) -> Rollup:
    return Rollup(**{**row, "id": str(row["id"]), "tally": _TALLY.validate_json(row["tally"])})
