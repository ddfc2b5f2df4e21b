"""Opaque marks of where a list goes on. They are checked: users may send anything."""

import base64
import binascii
import zlib

from penstock_api.domain.problems import Problem, invalid_field
from penstock_common.ids import is_id

_LENGTH_MAX = 128
_ROW_MAX = 2**63 - 1


def after_id(prefix: str, identifier: str) -> str:
    """The cursor of a list of things with ids such as `ep_…`, after one of them."""
    return _encode(f"{prefix}:{identifier}")


def after_row(list_name: str, row: int) -> str:
    """The cursor of a numbered list, such as log lines, after one of them."""
    return _encode(f"{list_name}:{row}")


def read_id(prefix: str, cursor: str) -> str:
    """The id in a cursor made by `after_id` with the same prefix. Raises Problem for any other text."""
    kind, _, identifier = _decode(cursor).partition(":")
    if kind != prefix or not is_id(prefix, identifier):
        raise _wrong()
    return identifier


def read_row(list_name: str, cursor: str) -> int:
    """The number in a cursor made by `after_row` for the same list. Raises Problem for any other text."""
    kind, _, digits = _decode(cursor).partition(":")
    if kind != list_name or not digits.isascii() or not digits.isdigit() or int(digits) > _ROW_MAX:
        raise _wrong()
    return int(digits)


def _encode(position: str) -> str:
    body = position.encode()
    return base64.urlsafe_b64encode(zlib.crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def _decode(cursor: str) -> str:
    if len(cursor) > _LENGTH_MAX or not cursor.isascii():
        raise _wrong()
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise _wrong() from None
    if zlib.crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
        raise _wrong()
    return raw[4:].decode("ascii", "replace")


def _wrong() -> Problem:
    return invalid_field("cursor", "is not a cursor of this list: use next_cursor of its last answer, as it is")
