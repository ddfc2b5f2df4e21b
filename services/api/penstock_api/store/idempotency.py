"""SQL of requests that may be sent again."""

from penstock_api.domain.idempotency import Attempt, KeptAnswer
from penstock_common.delivery.outbox import Connection


class Idempotency:
    """The answers to requests that carried an Idempotency-Key."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find(self, attempt: Attempt) -> KeptAnswer | None:
        row = await self._connection.fetchrow(
            "select request_sha256, status, answer, nonce from idempotency_keys where api_key_id = $1 and key = $2",
            attempt.api_key_id,
            attempt.key,
        )
        return None if row is None else KeptAnswer(**row)

    async def keep(self, attempt: Attempt, kept: KeptAnswer) -> bool:
        """Store the answer with what it did. False when another transaction was first: undo this one."""
        stored = await self._connection.fetchval(
            "insert into idempotency_keys (api_key_id, key, request_sha256, status, answer, nonce)"
            " values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning true",
            attempt.api_key_id,
            attempt.key,
            attempt.request_sha256,
            kept.status,
            kept.answer,
            kept.nonce,
        )
        return stored is True
