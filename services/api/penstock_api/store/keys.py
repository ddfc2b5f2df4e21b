"""SQL of API keys, and the records of the bucket `api_keys` that follow from it."""

from datetime import timedelta
from typing import Any

from penstock_api.domain.access import Caller, effective_scopes
from penstock_api.domain.accounts import ApiKey, NewKey, bucket_record
from penstock_api.domain.keys import sha256_of, shown_part
from penstock_common.contracts.records import ApiKeyRecord
from penstock_common.delivery.outbox import Connection, Outbox

_KEY = (
    "k.id, k.organization_id, k.member_id, k.name, k.start, k.scopes, k.sha256, k.created_at, k.expires_at,"
    " k.last_used_at"
)
_USABLE = "k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp()) and m.removed_at is null"
_JOINED = "api_keys k join members m on m.id = k.member_id join organizations o on o.id = k.organization_id"
_LAST_USE_PRECISION = timedelta(minutes=1)


class Keys:
    """API keys. Each change writes its bucket record in the same transaction."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def lock(self) -> None:
        """Changes of keys, members and their records happen one transaction at a time.

        So the bucket gets them in the order in which they were committed, and a repair cannot bring
        back a key that is being revoked. To be called before anything that decides is read.
        """
        await self._connection.execute("select pg_advisory_xact_lock(hashtext('api keys'))")

    async def caller(self, sha256: str) -> Caller | None:
        """Who calls with the key of this digest; None unless it is usable now. Notes the use, to the minute."""
        row = await self._connection.fetchrow(
            "select k.organization_id, o.name as organization, o.operator, m.id as member_id, m.name as member, m.role,"
            " k.id as key_id, k.scopes, k.expires_at,"
            " coalesce(k.last_used_at < clock_timestamp() - $2::interval, true) as use_is_news"
            f" from {_JOINED} where k.sha256 = $1 and {_USABLE}",
            sha256,
            _LAST_USE_PRECISION,
        )
        if row is None:
            return None
        fields = dict(row)
        if fields.pop("use_is_news"):
            await self._connection.execute(
                "update api_keys set last_used_at = clock_timestamp()"
                " where id = $1 and coalesce(last_used_at < clock_timestamp() - $2::interval, true)",
                row["key_id"],
                _LAST_USE_PRECISION,
            )
        scopes = effective_scopes(fields.pop("scopes"), row["role"], operator=row["operator"])
        return Caller(scopes=frozenset(scopes), **fields)

    async def add(self, new: NewKey) -> ApiKey:
        """Store a key, and let the gateway know it. Needs `lock`."""
        await self._connection.execute(
            "insert into api_keys (id, organization_id, member_id, name, sha256, start, scopes, expires_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8)",
            new.id,
            new.organization_id,
            new.member_id,
            new.name,
            sha256_of(new.text),
            shown_part(new.text),
            list(new.scopes),
            new.expires_at,
        )
        await self._write_records("k.id = $1", new.id)
        key = await self.key(new.organization_id, new.id)
        if key is None:
            raise LookupError("a key that was just stored is gone")
        return key

    async def key(self, organization_id: str, identifier: str) -> ApiKey | None:
        """A key that is not revoked."""
        row = await self._connection.fetchrow(
            f"select {_KEY} from api_keys k where k.organization_id = $1 and k.id = $2 and k.revoked_at is null",
            organization_id,
            identifier,
        )
        return None if row is None else _key(row)

    async def keys(self, organization_id: str, after: str | None, limit: int) -> list[ApiKey]:
        rows = await self._connection.fetch(
            f"select {_KEY} from api_keys k where k.organization_id = $1 and k.revoked_at is null"
            " and ($2::text is null or k.id > $2) order by k.id limit $3",
            organization_id,
            after,
            limit,
        )
        return [_key(row) for row in rows]

    async def revoke(self, organization_id: str, identifier: str) -> bool:
        """False when there is no such key, or no longer. Needs `lock`."""
        return await self._revoke("organization_id = $1 and id = $2", organization_id, identifier) > 0

    async def revoke_of_member(self, member_id: str) -> int:
        """All keys of one member; returns how many. Needs `lock`."""
        return await self._revoke("member_id = $1", member_id)

    async def write_records_of_member(self, member_id: str) -> int:
        """After a change of role; returns how many. Needs `lock`."""
        return await self._write_records("k.member_id = $1", member_id)

    async def write_all_records(self) -> int:
        """For a replay; returns how many. Needs `lock`."""
        return await self._write_records("true")

    async def repair_records(self, found: dict[str, ApiKeyRecord]) -> tuple[int, int]:
        """Make the bucket right, given what it held a moment ago: (records written, records deleted).

        Needs `lock`.
        """
        right = {record.sha256: record for record in await self._usable("true")}
        wrong = [record for sha256, record in right.items() if found.get(sha256) != record]
        stale = [sha256 for sha256 in found if sha256 not in right]
        for record in wrong:
            await self._outbox.put(record)
        for sha256 in stale:
            await self._outbox.delete(ApiKeyRecord, sha256)
        return len(wrong), len(stale)

    async def _write_records(self, condition: str, *arguments: str) -> int:
        records = await self._usable(condition, *arguments)
        for record in records:
            await self._outbox.put(record)
        return len(records)

    async def _usable(self, condition: str, *arguments: str) -> list[ApiKeyRecord]:
        rows = await self._connection.fetch(
            f"select {_KEY}, m.role, o.operator from {_JOINED} where {_USABLE} and {condition} order by k.id",
            *arguments,
        )
        return [_record(row) for row in rows]

    async def _revoke(self, condition: str, *arguments: str) -> int:
        rows = await self._connection.fetch(
            "update api_keys set revoked_at = clock_timestamp() where revoked_at is null"
            f" and {condition} returning sha256",
            *arguments,
        )
        for row in rows:
            await self._outbox.delete(ApiKeyRecord, row["sha256"])
        return len(rows)


def _key(row: Any) -> ApiKey:
    return ApiKey(**{**row, "scopes": tuple(row["scopes"])})


def _record(row: Any) -> ApiKeyRecord:
    fields = dict(row)
    role, operator = fields.pop("role"), fields.pop("operator")
    return bucket_record(_key(fields), role, operator=operator)
