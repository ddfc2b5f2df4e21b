"""The chunked coding: by example, and against llhttp's reading of the same bytes."""

import contextlib
import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_gateway.domain import BadRequest
from penstock_gateway.proxy.bodies import BadChunk, ChunkedDecoder, encode_chunks, last_chunk
from penstock_gateway.proxy.intake import ChunkedBody, SizedBody


def decode(data: bytes, cuts: list[int] | None = None) -> tuple[bytes, bool, bytes, list[bytes]]:
    decoder = ChunkedDecoder()
    payload, rest = b"", b""
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    for start, end in itertools.pairwise(bounds):
        if decoder.done:
            rest += data[start:end]
            continue
        pieces, rest = decoder.feed(data[start:end])
        payload += b"".join(pieces)
    return payload, decoder.done, rest, decoder.trailers


def test_chunks_are_put_together_and_what_follows_is_left() -> None:
    data = b'3\r\nabc\r\nA;name=value;flag;q="a \\" b"\r\n0123456789\r\n0\r\n\r\nGET'
    assert decode(data) == (b"abc0123456789", True, b"GET", [])


def test_trailers_are_kept_as_lines() -> None:
    assert decode(b"0\r\nX: 1\r\nY:2\r\n\r\n") == (b"", True, b"", [b"X: 1", b"Y:2"])


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-3\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3_0\r\n",
        b"3\nabc\r\n",
        b"3\r\nabc0\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nab\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"3;a\rb\r\nabc\r\n",
        b"3;\x00\r\nabc\r\n",
        b"3;\r\nabc\r\n",
        b"3; a\r\nabc\r\n",
        b"3;a=\r\nabc\r\n",
        b'3;a="b\r\nabc\r\n',
        b"1" * 17 + b"\r\n",
        b"ffffffffffffffff\r\n",
        b"3;" + b"x" * 300 + b"\r\n",
        b"3;" + b"x" * 300,
        b"3\rabc",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: empty\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n folded\r\n\r\n",
        b"0\r\nA: b\nB: c\r\n\r\n",
        b"0\r\nA: \x01\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
        b"0\r\nA: " + b"x" * 9000,
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadChunk):
        decode(data)
    with pytest.raises(BadChunk):
        decode(data, list(range(len(data))))


def test_an_unfinished_body_is_waited_for() -> None:
    for data in (b"", b"3", b"3\r", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r", b"0\r\n", b"0\r\nA: b\r\n\r"):
        assert decode(data)[1] is False


@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_any_split_of_what_was_encoded_reads_the_same(chunks: list[bytes], cuts: list[int]) -> None:
    data = encode_chunks(chunks) + last_chunk([b"T: 1"])
    assert decode(data + b"rest", cuts) == (b"".join(chunks), True, b"rest", [b"T: 1"])


class _Body:
    def __init__(self) -> None:
        self.body = b""
        self.done = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.done = True


def llhttp(data: bytes) -> tuple[bytes, bool] | None:
    read = _Body()
    parser = httptools.HttpRequestParser(read)
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    except httptools.HttpParserError:
        return None if not read.done else (read.body, True)
    return read.body, read.done


FRAGMENTS = st.sampled_from(
    [
        b"0",
        b"3",
        b"a",
        b"F",
        b"\r",
        b"\n",
        b"\r\n",
        b";",
        b"x=y",
        b" ",
        b"abc",
        b"\r\n0\r\n\r\n",
        b"T: v",
        b"+",
        b"\x00",
    ]
)


@given(st.lists(FRAGMENTS, max_size=14).map(b"".join))
def test_whatever_is_taken_as_whole_llhttp_reads_alike(data: bytes) -> None:
    with contextlib.suppress(BadChunk):
        payload, done, _, _ = decode(data)
        if done:
            assert llhttp(data) == (payload, True)


def test_a_sized_body_ends_where_its_length_says() -> None:
    body = SizedBody(5)
    assert body.feed(b"abc") == (b"abc", False, b"")
    assert body.feed(b"deGET") == (b"de", True, b"GET")


def test_a_chunked_body_is_chunked_anew_without_extensions_or_dangerous_trailers() -> None:
    body = ChunkedBody(100)
    sent = b"3;ext\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: x\r\nX-Forwarded-For: y\r\n\r\nGET"
    assert body.feed(sent) == (b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", True, b"GET")


def test_a_chunked_body_has_a_longest_length() -> None:
    body = ChunkedBody(5)
    body.feed(b"5\r\nabcde\r\n")
    with pytest.raises(BadRequest) as caught:
        body.feed(b"1\r\nf\r\n")
    assert caught.value.refusal.status == 413
