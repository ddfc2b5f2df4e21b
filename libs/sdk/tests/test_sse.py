"""The parser of server-sent events: as the standard says, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import sse
from penstock.sse import EventParser, ServerEvent

LINE_ENDS = ("\n", "\r", "\r\n")
texts = st.text(alphabet=st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)
names = texts.filter(lambda text: text != "")
events = st.builds(
    lambda data, event, id: ServerEvent("\n".join(data), event, id),
    st.lists(texts, min_size=1, max_size=4),
    names,
    names,
)


def parse(*chunks: bytes, last_id: str = "") -> list[ServerEvent]:
    parser = EventParser(last_id)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def encode(event: ServerEvent, end: str) -> str:
    lines = [f"id: {event.id}", f"event: {event.event}", ": a comment"]
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return end.join([*lines, "", ""])


@given(st.lists(events, max_size=5), st.sampled_from(LINE_ENDS))
def test_events_survive_the_way(sent: list[ServerEvent], end: str) -> None:
    assert parse("".join(encode(event, end) for event in sent).encode()) == sent


@given(st.lists(events, max_size=3), st.sampled_from(LINE_ENDS), st.lists(st.integers(0, 400), max_size=8))
def test_where_the_bytes_are_cut_makes_no_difference(sent: list[ServerEvent], end: str, cuts: list[int]) -> None:
    whole = "".join(encode(event, end) for event in sent).encode()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    chunks = [whole[a:b] for a, b in pairwise(places)]
    assert parse(*chunks) == sent


@given(st.lists(events, min_size=1, max_size=3), st.sampled_from(LINE_ENDS))
def test_an_event_is_given_with_its_last_byte(sent: list[ServerEvent], end: str) -> None:
    parser = EventParser()
    got: list[ServerEvent] = []
    for number, event in enumerate(sent, 1):
        for byte in encode(event, end).encode():
            got += parser.feed(bytes([byte]))
        # The \n of a last \r\n may still be missing, never more.
        assert got == sent[:number]


@given(st.binary(max_size=400))
def test_no_bytes_break_the_parser(noise: bytes) -> None:
    parse(noise)
    parse(*[bytes([byte]) for byte in noise])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerEvent("YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
         [ServerEvent("first", id="1"), ServerEvent("second"), ServerEvent(" third")]),
        (b"data\n\ndata\ndata\n\ndata:", [ServerEvent(""), ServerEvent("\n")]),
        (b"data:test\n\ndata: test\n\n", [ServerEvent("test"), ServerEvent("test")]),
        (b"event: x\n\ndata: y\n\n", [ServerEvent("y")]),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", [ServerEvent("after a byte order mark")]),
        (b"id: 1\ndata: a\n\ndata: b\n\n", [ServerEvent("a", id="1"), ServerEvent("b", id="1")]),
        (b"id: 1\n\nid: 2\0\ndata: a\n\n", [ServerEvent("a", id="1")]),
        (b"unknown: x\ndata: a: b\n\n", [ServerEvent("a: b")]),
        (b"data: \xff\n\n", [ServerEvent("\ufffd")]),
        (b"data: cut off", []),
    ],
)  # fmt: skip
def test_examples_of_the_standard(stream: bytes, expected: list[ServerEvent]) -> None:
    assert parse(stream) == expected


def test_an_id_without_data_still_moves_the_place_to_resume_from() -> None:
    parser = EventParser("5")
    assert list(parser.feed(b"id: 7\n")) == []
    assert parser.last_id == "5"
    assert list(parser.feed(b"\n")) == []
    assert parser.last_id == "7"


@pytest.mark.parametrize(("line", "expected"), [("retry: 1500", 1.5), ("retry: 1.5", None), ("retry: x", None)])
def test_retry_is_a_whole_number_of_milliseconds(line: str, expected: float | None) -> None:
    parser = EventParser()
    list(parser.feed(f"{line}\n\n".encode()))
    assert parser.retry_s == expected


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: xxxxxxxxx\n" * 12])
def test_an_event_without_end_is_refused(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_CHARS", 80)
    with pytest.raises(ValueError, match="more than 80 characters"):
        parse(stream)
