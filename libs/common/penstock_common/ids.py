"""Identifiers: UUIDv7 in Crockford base32 behind a typed prefix, such as `ep_01k9…`.

They sort by creation time, are safe in a NATS subject token and in a URL, and say what they name.
"""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26

ENDPOINT = "ep"
REPLICA = "rep"
ORGANIZATION = "org"
WORKSPACE = "ws"
MEMBER = "mem"
API_KEY = "key"
EVENT = "evt"


def uuid7(unix_ms: int, random_bits: int) -> int:
    """A UUIDv7 (RFC 9562, section 5.7) as an integer, from 48 bits of time and 74 random bits."""
    rand_a = (random_bits >> 62) & 0xFFF
    rand_b = random_bits & ((1 << 62) - 1)
    return (unix_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b


def encode(prefix: str, value: int) -> str:
    digits = [_ALPHABET[(value >> shift) & 31] for shift in range((_LENGTH - 1) * 5, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def new_id(prefix: str) -> str:
    """A fresh identifier of the kind named by `prefix`."""
    return encode(prefix, uuid7(time.time_ns() // 1_000_000, secrets.randbits(74)))


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` has the shape of an identifier of this kind."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(c in _ALPHABET for c in tail)
