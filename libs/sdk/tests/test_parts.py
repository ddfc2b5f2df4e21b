"""Answers of endpoints as Python values."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import InvalidRequest, UnexpectedAnswer
from penstock.effects import Response
from penstock.errors import problem_error
from penstock.parts import PartDecoder, decode_answer

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


def decode(media_type: str, *chunks: bytes) -> list[Any]:
    decoder = PartDecoder(media_type)
    return [part for chunk in (*chunks, b"") for part in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("media_type", "body", "expected"),
    [
        ("application/json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("application/vnd.api+json; charset=utf-8", b"3", 3),
        ("text/plain; charset=utf-8", "né".encode(), "né"),
        ("application/octet-stream", b"\x00\x01", b"\x00\x01"),
        ("application/x-ndjson", b'{"a": 1}\n\n2\n', [{"a": 1}, 2]),
        ("text/event-stream", b"data: 1\n\ndata: x\n\n", [1, "x"]),
        ("application/json", b"", None),
    ],
)
def test_an_answer_is_decoded_by_its_content_type(media_type: str, body: bytes, expected: Any) -> None:
    assert decode_answer(Response(200, {"content-type": media_type}, body)) == expected


@given(st.lists(values, max_size=5), st.lists(st.integers(0, 200), max_size=5))
def test_json_lines_may_be_cut_anywhere(sent: list[Any], cuts: list[int]) -> None:
    whole = "".join(json.dumps(value) + "\n" for value in sent).encode()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    # Empty pieces would mean the end.
    chunks = [whole[a:b] for a, b in pairwise(places) if a < b]
    assert decode("application/x-ndjson", *chunks) == sent


def test_text_may_be_cut_inside_a_character() -> None:
    assert "".join(decode("text/plain", "aé".encode()[:2], "é".encode()[1:])) == "aé"
    assert decode("text/plain", b"\xc3") == ["\ufffd"]


def test_bytes_come_as_they_are_and_json_as_one_part() -> None:
    assert decode("application/octet-stream", b"\x00", b"\x01") == [b"\x00", b"\x01"]
    assert decode("application/json", b'{"a"', b": 1}") == [{"a": 1}]
    assert decode("application/json") == []
    assert decode("application/x-ndjson", b"1\n2") == [1, 2]


@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
def test_broken_json_is_told_apart_from_a_bug_of_the_caller(media_type: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="not valid"):
        decode(media_type, b"{nope}")


def test_an_error_event_without_a_problem_still_is_an_error() -> None:
    with pytest.raises(Exception, match="it broke"):
        decode("text/event-stream", b"event: error\ndata: it broke\n\n")


def test_a_problem_names_every_wrong_field() -> None:
    problem = {"code": "invalid_body", "detail": "Bad.", "errors": [{"field": "a", "message": "is missing"}]}
    found = problem_error(problem, status=422, at_endpoint=True)
    assert isinstance(found, InvalidRequest)
    assert str(found) == "Bad.\n  a: is missing\n"
