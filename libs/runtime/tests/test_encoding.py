"""Results as bytes: what JSON holds, what is made to fit, and the sentence for what cannot."""

import json
import math
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from penstock_runtime.encoding import BINARY, JSON, UnencodableResult, encode, encode_json

Point = namedtuple("Point", "x y")

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Label(str):
    __slots__ = ()


@dataclass
class Box:
    left: float
    label: Colour


class Answer(BaseModel):
    label: str
    scores: list[float]


def without_nan(value: Any) -> Any:
    """The oracle: what JSON can hold of a value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return value


@settings(derandomize=True, deadline=None, max_examples=300)
@given(values)
def test_json_values_come_back_as_they_were_with_null_for_nan(value: Any) -> None:
    text = encode_json(value).decode()
    assert "\n" not in text
    assert json.loads(text) == without_nan(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.float64("nan"), None),
        (np.float32("inf"), None),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(3.5), 3.5),
        (np.array([1.0, np.nan]), [1.0, None]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "a", None, np.int8(3)], dtype=object), [1, "a", None, 3]),
        (np.array([]), []),
        (np.datetime64("2024-05-06T07:08:09"), "2024-05-06T07:08:09"),
        (np.array(["2024-05-06", "NaT"], dtype="datetime64[D]"), ["2024-05-06", None]),
        (
            {"label": np.str_("a"), "scores": np.array([0.25, 0.75], dtype=np.float32)},
            {"label": "a", "scores": [0.25, 0.75]},
        ),
        ({np.int64(3): 1, 2.5: 2, True: 3, None: 4, "a": 5}, {"3": 1, "2.5": 2, "true": 3, "null": 4, "a": 5}),
        ([np.float64(0.5)] * 2, [0.5, 0.5]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Label("a"), "a"),
        (Point(1, 2), [1, 2]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1}, [1]),
        (deque([1, 2]), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Box(1.5, Colour.RED), {"left": 1.5, "label": "red"}),
        (Answer(label="a", scores=[1.0]), {"label": "a", "scores": [1.0]}),
        (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), "2024-05-06T07:08:09+00:00"),
        (date(2024, 5, 6), "2024-05-06"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (2**100, 2**100),
    ],
    ids=repr,
)
def test_what_models_return_is_made_to_fit(value: Any, expected: Any) -> None:
    assert json.loads(encode_json(value)) == expected
    assert json.loads(encode_json({"inside": [value]})) == {"inside": [expected]}


@pytest.mark.parametrize("value", ["text", {"a": 1}, [1], 1, 1.5, None, True])
def test_anything_but_bytes_is_json(value: Any) -> None:
    encoded = encode(value)
    assert encoded.content_type == JSON
    assert json.loads(encoded.body) == value


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_bytes_alone_are_sent_as_they_are(value: Any) -> None:
    assert encode(value) == (b"\x00\xff", BINARY)


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"image": b"x"}, "bytes inside JSON at result['image']: return the bytes alone, or text such as base64"),
        ([1, [object()]], "returned a value of type object at result[1][0], which JSON cannot hold"),
        ({"a": lambda: 1}, "returned a value of type function at result['a']"),
        ({"a": int}, "returned a value of type type at result['a']"),
        ({(1, 2): 3}, "a key of type tuple at result: use strings as keys"),
        ({b"a": 3}, "bytes inside JSON at result"),
        (np.complex128(1), "returned a value of type complex at result"),
        (np.longdouble(1), "returned a value of type longdouble at result"),
        ((number for number in range(1)), "returned a value of type generator at result"),
        (holding_itself(), "more than 200 levels deep, or holds itself"),
        ("\ud800", "text that is not valid Unicode"),
    ],
    ids=[
        "bytes",
        "object",
        "function",
        "class",
        "tuple key",
        "bytes key",
        "complex",
        "long",
        "generator",
        "self",
        "half",
    ],
)
def test_what_json_cannot_hold_says_where_and_what_to_do(value: Any, sentence: str) -> None:
    with pytest.raises(UnencodableResult) as caught:
        encode(value)
    assert sentence in str(caught.value)
