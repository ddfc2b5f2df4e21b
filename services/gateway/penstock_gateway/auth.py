"""Who may call: API keys, looked up by the SHA-256 of their text. Pure: the time is an argument.

Nothing is remembered per key text: hashing costs a third of a microsecond, and so a revoked key is
refused from the moment its record is gone.
"""

import hashlib
from enum import Enum
from typing import NamedTuple

from penstock_common.contracts.records import ApiKeyRecord

INVOKE = "endpoints:invoke"
KEY_PREFIX = b"psk_"
KEY_BYTES_MAX = 256


class Verdict(Enum):
    """What a caller's key allows on one endpoint."""

    ALLOWED = "allowed"
    MISSING = "missing"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    """No such key is known: it is wrong, or newer than what is known."""
    NO_SCOPE = "no_scope"
    OTHER_ORGANIZATION = "other_organization"


class Checked(NamedTuple):
    """What a key allows, until when in seconds of the Unix clock, and which key it is (empty when unknown)."""

    verdict: Verdict
    until_s: float
    key_id: str = ""


class _Key:
    __slots__ = ("expires_at_s", "key_id", "may_invoke", "organization_id", "record")

    def __init__(self, record: ApiKeyRecord) -> None:
        self.record = record
        self.key_id = record.key_id
        self.organization_id = record.organization_id
        self.may_invoke = INVOKE in record.scopes
        self.expires_at_s = record.expires_at.timestamp() if record.expires_at else float("inf")


class KeyTable:
    """The usable API keys, as the `api_keys` bucket has them."""

    def __init__(self) -> None:
        self._keys: dict[bytes, _Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, record: ApiKeyRecord) -> None:
        """Add a key or change it. Raises ValueError when `sha256` is not hexadecimal."""
        self._keys[bytes.fromhex(record.sha256)] = _Key(record)

    def remove(self, sha256: str) -> None:
        self._keys.pop(bytes.fromhex(sha256), None)

    def hashes(self) -> set[str]:
        """The SHA-256 of every key, in hexadecimal."""
        return {digest.hex() for digest in self._keys}

    def records(self) -> list[ApiKeyRecord]:
        return [key.record for key in self._keys.values()]

    def check(self, authorization: bytes | None, organization_id: str, unix_s: float) -> Checked:
        """What the value of an Authorization header allows on an endpoint of `organization_id`."""
        if authorization is None:
            return Checked(Verdict.MISSING, unix_s)
        text = bearer_key(authorization)
        if text is None:
            return Checked(Verdict.INVALID, unix_s)
        key = self._keys.get(hashlib.sha256(text).digest())
        if key is None:
            return Checked(Verdict.UNKNOWN, unix_s)
        if unix_s >= key.expires_at_s:
            return Checked(Verdict.INVALID, unix_s, key.key_id)
        if key.organization_id != organization_id:
            return Checked(Verdict.OTHER_ORGANIZATION, key.expires_at_s, key.key_id)
        return Checked(Verdict.ALLOWED if key.may_invoke else Verdict.NO_SCOPE, key.expires_at_s, key.key_id)


def bearer_key(authorization: bytes) -> bytes | None:
    """The Penstock key in the value of an Authorization header, or None when it holds none."""
    scheme, _, text = authorization.partition(b" ")
    text = text.lstrip(b" ")
    if len(text) > KEY_BYTES_MAX or not text.startswith(KEY_PREFIX) or scheme.lower() != b"bearer":
        return None
    return text
