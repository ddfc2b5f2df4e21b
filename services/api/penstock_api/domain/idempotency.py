"""Requests that may be sent again: the same answer for the same request."""

import hashlib
from dataclasses import dataclass

from penstock_api.domain.problems import IDEMPOTENCY_MISMATCH, Problem


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that carries an Idempotency-Key."""

    api_key_id: str
    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What such a request was answered. Secrets are left out; `nonce` lets the caller's key make them again."""

    request_sha256: str
    status: int
    answer: str
    """JSON."""
    nonce: bytes | None = None


def request_digest(method: str, path: str, query: str, body: bytes) -> str:
    """What makes two requests the same."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode(), query.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def check_same(attempt: Attempt, kept: KeptAnswer) -> None:
    """Raises Problem when the key was used for another request."""
    if attempt.request_sha256 != kept.request_sha256:
        raise Problem(
            IDEMPOTENCY_MISMATCH,
            f"The Idempotency-Key {attempt.key!r} was used for another request: take a new key for each new request.",
        )
