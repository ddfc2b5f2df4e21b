"""Results as bytes: JSON for almost everything, bytes as they are.

NumPy, PyTorch and their like are recognised by what they can do (`tolist`), so nothing of theirs is imported.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

JSON = "application/json"
BINARY = "application/octet-stream"

_DEPTH_MAX = 200
_PLAIN = frozenset({str, int, float, bool, type(None)})
_BYTES = (bytes, bytearray, memoryview)


class Encoded(NamedTuple):
    """A result ready to send."""

    body: bytes
    content_type: str


class UnencodableResult(Exception):
    """A result that cannot be sent; the message says where in it, what it is, and the mend."""


def encode(result: object) -> Encoded:
    """Bytes as application/octet-stream, all else as JSON. Raises UnencodableResult."""
    if isinstance(result, _BYTES):
        return Encoded(bytes(result), BINARY)
    return Encoded(encode_json(result), JSON)


def encode_json(result: object) -> bytes:
    """The result as JSON in UTF-8 on one line; NaN and infinities, which JSON lacks, become null.

    Raises UnencodableResult.
    """
    plain = _plain(result, "result", _DEPTH_MAX)
    try:
        return to_json(plain, inf_nan_mode="null")
    except ValueError as error:  # a string with half of a surrogate pair is not Unicode
        raise UnencodableResult(f"The function returned text that is not valid Unicode: {error}.") from error


def _plain(value: Any, where: str, depth_left: int) -> Any:
    """The value in terms of str, int, float, bool, None, list and dict; itself if it is already."""
    if type(value) in _PLAIN:
        return value
    if depth_left == 0:
        raise UnencodableResult(
            f"The function returned a value that is more than {_DEPTH_MAX} levels deep, or holds itself: "
            "return a flatter one."
        )
    if isinstance(value, dict):
        return _plain_dict(value, where, depth_left)
    if isinstance(value, (list, tuple)):
        if _PLAIN.issuperset(map(type, value)):
            return value
        return [_plain(item, f"{where}[{position}]", depth_left - 1) for position, item in enumerate(value)]
    return _plain_other(value, where, depth_left)


def _plain_dict(value: Mapping[Any, Any], where: str, depth_left: int) -> dict[str, Any]:
    if type(value) is dict and _PLAIN.issuperset(map(type, value.values())) and all(type(key) is str for key in value):
        return value
    return {_key(key, where): _plain(item, f"{where}[{key!r}]", depth_left - 1) for key, item in value.items()}


def _key(key: Any, where: str) -> str:
    """A dict's key as JSON has it: text. Numbers and None become what JSON would write for them."""
    plain = _plain(key, where, 1)
    if type(plain) is str:
        return plain
    if type(plain) in _PLAIN:
        return to_json(plain, inf_nan_mode="constants").decode()
    raise UnencodableResult(
        f"The function returned a dict with a key of type {type(key).__name__} at {where}: use strings as keys."
    )


def _plain_other(value: Any, where: str, depth_left: int) -> Any:
    convert = next((convert for kinds, convert in _CONVERSIONS if isinstance(value, kinds)), None)
    if convert is not None:
        return _plain(convert(value), where, depth_left - 1)
    if isinstance(value, type):
        raise _unencodable(value, where)
    if callable(getattr(value, "tolist", None)):
        return _plain_array(value, where, depth_left)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(fields, where, depth_left - 1)
    if callable(getattr(value, "model_dump", None)):  # a pydantic model
        return _plain(value.model_dump(), where, depth_left - 1)
    raise _unencodable(value, where)


def _plain_array(value: Any, where: str, depth_left: int) -> Any:
    dtype = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", None)
    if kind == "M":  # NumPy's times: tolist would give bare integers for those finer than a microsecond
        return _times(value.astype("U").tolist())
    plain = value.tolist()
    if kind in ("b", "i", "u", "f") and getattr(dtype, "itemsize", 0) <= 8:  # surely Python's own numbers now
        return plain
    if type(plain) is type(value):
        raise _unencodable(value, where)
    return _plain(plain, where, depth_left - 1)


def _times(texts: Any) -> Any:
    """Times as text, with None for those that NumPy and pandas call not-a-time."""
    if isinstance(texts, list):
        return [_times(text) for text in texts]
    return None if texts == "NaT" else texts


def _unencodable(value: object, where: str) -> UnencodableResult:
    if isinstance(value, _BYTES):
        return UnencodableResult(
            f"The function returned bytes inside JSON at {where}: return the bytes alone, or text such as base64."
        )
    return UnencodableResult(
        f"The function returned a value of type {type(value).__name__} at {where}, which JSON cannot hold: "
        "return numbers, strings, lists and dicts, NumPy arrays, or bytes alone."
    )


_CONVERSIONS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    (Enum, lambda value: value.value),
    (str, str.__str__),
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    ((datetime, date, time), lambda value: _times(value.isoformat())),
    ((Decimal, UUID, PurePath), str),
    (Mapping, dict),
    ((Set, deque), list),
)
