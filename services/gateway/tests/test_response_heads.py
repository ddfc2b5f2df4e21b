"""Response heads: what is passed on, and what is no answer at all."""

import pytest

from penstock_gateway.domain import BadResponse
from penstock_gateway.proxy.response_head import (
    parse_response_head,
    prepare_answer,
    status_line,
    write_response_head,
)

ID = b"0" * 32


def passed_on(raw: bytes) -> bytes:
    return write_response_head(parse_response_head(raw), b"\r\n")


def test_fields_pass_unchanged_and_those_for_one_hop_do_not() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n"
        b"Set-Cookie: a\r\nSet-Cookie: b\r\nX-Request-Id: theirs\r\nX-Empty:\r\ncontent-length: 02\r\n\r\n"
    )
    assert passed_on(raw) == (
        b"HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Empty:\r\nContent-Length: 2\r\n\r\n"
    )


def test_a_reason_of_the_replicas_own_is_kept_unless_it_holds_control_characters() -> None:
    assert passed_on(b"HTTP/1.1 200 Fine, thanks\r\n\r\n") == b"HTTP/1.1 200 Fine, thanks\r\n\r\n"
    assert passed_on(b"HTTP/1.1 200\r\n\r\n") == b"HTTP/1.1 200 \r\n\r\n"
    assert status_line(299, b"a\x01b") == b"HTTP/1.1 299 \r\n"


def test_an_http_1_0_answer_becomes_1_1_on_a_connection_that_is_not_kept() -> None:
    head = parse_response_head(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n")
    assert not head.keep_alive
    assert write_response_head(head, b"\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_204_promises_no_body() -> None:
    assert b"Content-Length" not in passed_on(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 600 High\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_what_is_not_valid_http_is_not_passed_on(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_response_head(raw)


def test_an_equal_head_is_written_again_with_its_own_length_and_id() -> None:
    raw = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\nX: y\r\n\r\n"
    answer = prepare_answer(raw, parse_response_head(raw), is_json=False)
    assert answer is not None
    found = answer.template.match(raw.replace(b": 2", b": 3") + b"abc")
    assert found is not None
    assert answer.write(found.digits, ID, b"abc") == (
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\nX-Request-Id: " + ID + b"\r\n\r\nabc"
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2 \r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_only_sized_answers_on_kept_connections_are_prepared(raw: bytes) -> None:
    assert prepare_answer(raw, parse_response_head(raw), is_json=False) is None
