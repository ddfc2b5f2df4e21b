"""API keys: `psk_`, 30 random base62 characters, and 6 of their CRC32.

The checksum tells a typing slip, or a stranger's guess, from a key without asking the database. The
30 characters carry 178 random bits. Only the SHA-256 of the whole text is ever stored.
"""

import hashlib
import hmac
import zlib

PREFIX = "psk_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 30
_CHECKSUM_LENGTH = 6
KEY_LENGTH = len(PREFIX) + _RANDOM_LENGTH + _CHECKSUM_LENGTH
RANDOM_VALUES = int(len(_DIGITS) ** _RANDOM_LENGTH)
"""How many different keys there are: `key_text` takes a number below it."""
_SHOWN_LENGTH = len(PREFIX) + 4


def key_text(random_value: int) -> str:
    """The key made from a random number in `[0, RANDOM_VALUES)`."""
    body = _base62(random_value, _RANDOM_LENGTH)
    return PREFIX + body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether `text` has the shape and the checksum of a key; says nothing of whether it is valid."""
    if len(text) != KEY_LENGTH or not text.startswith(PREFIX):
        return False
    body = text[len(PREFIX) : -_CHECKSUM_LENGTH]
    if any(character not in _DIGITS for character in body):
        return False
    return hmac.compare_digest(_checksum(body).encode(), text[-_CHECKSUM_LENGTH:].encode())


def sha256_of(text: str) -> str:
    """What is stored in place of the key, and the key's name in the bucket `api_keys`."""
    return hashlib.sha256(text.encode()).hexdigest()


def shown_part(text: str) -> str:
    """The beginning of a key, by which its owner tells it from others."""
    return text[:_SHOWN_LENGTH]


def derived_value(callers_key: str, nonce: bytes) -> int:
    """A number for `key_text` that only who holds `callers_key` can make again from `nonce`.

    So a repeated request gets the same new key, though neither the key nor its number is stored.
    """
    digest = hmac.digest(callers_key.encode(), b"penstock new key" + nonce, "sha512")
    return int.from_bytes(digest, "big") % RANDOM_VALUES


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(value: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        value, remainder = divmod(value, len(_DIGITS))
        digits.append(_DIGITS[remainder])
    return "".join(reversed(digits))
