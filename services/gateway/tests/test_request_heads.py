"""Request heads: what is taken, what is refused, and what the replica gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_gateway.domain import BadRequest
from penstock_gateway.fairness import Place
from penstock_gateway.proxy.context import Context
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.prepared import PreparedRequest, forwarding_lines
from penstock_gateway.proxy.request_head import RequestHead, parse_request_head
from penstock_gateway.proxy.templates import HeadTemplate
from penstock_gateway.proxy.tracing import continued, new_request_id
from penstock_gateway.settings import GatewaySettings

from .plane import route

LIMITS = GatewaySettings()
ID = b"0123456789abcdef0123456789abcdef"
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def head(fields: bytes = b"", line: bytes = b"POST /x HTTP/1.1") -> RequestHead:
    return parse_request_head(line + b"\r\nHost: a\r\n" + fields + b"\r\n", LIMITS)


async def written(
    fields: bytes = b"", *, public: bool = False, prefix: bytes = b"", digits: bytes = b""
) -> list[bytes]:
    """The lines of the head that the replica gets, below the request line."""
    parsed = head(fields)
    endpoint = Endpoint(Context(LIMITS), route())
    prepared = PreparedRequest(parsed, endpoint, Place(), generation=0, until_s=0)
    prepared.compose(b"/x", forwarding_lines(b"a", b"10.0.0.1", b"http"), public=public, prefix=prefix)
    lines = prepared.write(digits, prepared.trace, ID).split(b"\r\n")
    assert lines[0] == b"POST /x HTTP/1.1"
    assert lines[-2:] == [b"", b""]
    return lines[1:-2]


def names(lines: list[bytes]) -> set[bytes]:
    return {line.partition(b":")[0].lower() for line in lines}


async def test_the_replica_learns_who_calls_and_which_request_it_is() -> None:
    assert await written() == [
        b"Host: a",
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: a",
        b'Forwarded: for=10.0.0.1;host="a";proto=http',
        b"traceparent: 00-" + ID + b"-89abcdef01234567-00",
        b"X-Request-Id: " + ID,
    ]


async def test_a_stripped_prefix_is_told_and_ordinary_fields_pass_unchanged() -> None:
    lines = await written(b"X-Custom:  a, b \r\nAccept: */*\r\nX-Empty:\r\nCookie: a=\xe9\r\n", prefix=b"/e/w/x")
    assert lines[5:9] == [b"X-Custom:  a, b ", b"Accept: */*", b"X-Empty:", b"Cookie: a=\xe9"]
    assert b"X-Forwarded-Prefix: /e/w/x" in lines


@pytest.mark.parametrize(
    "field",
    [
        b"X-Forwarded-For: 6.6.6.6",
        b"x-forwarded-host: evil",
        b"X-Forwarded-Anything: x",
        b"X_Forwarded_For: 6.6.6.6",
        b"X-Penstock-Organization: org_2",
        b"x_penstock_key: x",
        b"Forwarded: for=6.6.6.6",
        b"X-Real-IP: 6.6.6.6",
        b"X-Request-Id: mine",
        b"True-Client-IP: 6.6.6.6",
        b"Proxy: http://evil",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Proxy-Authorization: Basic x",
        b"Proxy-Connection: keep-alive",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"Tracestate: a=b",
        b"Upgrade: websocket",
        b"Connection: x-custom, close",
    ],
)
async def test_fields_that_could_forge_or_are_for_one_hop_stay_here(field: bytes) -> None:
    lines = await written(field + b"\r\nX-Custom: 1\r\n" if not field.startswith(b"Conn") else field + b"\r\n")
    assert not any(line.lower() == field.lower() for line in lines)
    assert not any(b"6.6.6.6" in line or b"evil" in line or b"org_2" in line for line in lines)


async def test_fields_named_by_connection_stay_here_wherever_they_are() -> None:
    fields = b"X-One: 1\r\nConnection: X-One\r\nX-Two: 2\r\nConnection: close,  x-two\r\nX-Three: 3\r\n"
    assert names(await written(fields)) & {b"x-one", b"x-two", b"x-three", b"connection"} == {b"x-three"}


async def test_connection_cannot_take_away_what_the_gateway_says() -> None:
    lines = await written(b"Connection: X-Forwarded-For, Host, X-Request-Id\r\n")
    assert {b"x-forwarded-for", b"host", b"x-request-id"} <= names(lines)


@pytest.mark.parametrize("public", [True, False])
async def test_the_penstock_key_never_reaches_the_replica(public: bool) -> None:
    lines = await written(b"authorization: bearer psk_secret\r\n", public=public)
    assert not any(b"psk_secret" in line for line in lines)


async def test_another_authorization_reaches_a_public_endpoint_only() -> None:
    fields = b"Authorization: Basic dXNlcg==\r\n"
    assert b"Authorization: Basic dXNlcg==" in await written(fields, public=True)
    assert b"authorization" not in names(await written(fields, public=False))


async def test_the_length_is_written_once_and_last_of_the_message_fields() -> None:
    lines = await written(b"content-length:  007\r\n", digits=b"7")
    assert [line for line in lines if b"ength" in line] == [b"Content-Length: 7"]


async def test_chunked_expect_and_upgrade_are_said_anew() -> None:
    lines = await written(b"transfer-encoding: Chunked\r\nexpect: 100-Continue\r\n")
    assert {b"Transfer-Encoding: chunked", b"Expect: 100-continue"} <= set(lines)
    lines = await written(b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n")
    assert {b"Connection: Upgrade", b"Upgrade: websocket"} <= set(lines)


async def test_a_valid_trace_is_continued_with_its_state() -> None:
    lines = await written(b"traceparent: " + TRACE + b"\r\ntracestate: a=1\r\nTracestate: b=2\r\n")
    assert b"traceparent: " + TRACE in lines
    assert b"tracestate: a=1,b=2" in lines


async def test_an_invalid_or_repeated_trace_is_replaced_and_its_state_dropped() -> None:
    for fields in (b"traceparent: 00-x-y-01\r\n", (b"traceparent: " + TRACE + b"\r\n") * 2):
        lines = await written(fields + b"tracestate: a=1\r\n")
        assert b"traceparent: 00-" + ID + b"-89abcdef01234567-00" in lines
        assert b"tracestate" not in names(lines)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (TRACE, TRACE),
        (b"cc" + TRACE[2:] + b"-what-the-future-brings", TRACE),
        (TRACE + b"-more", None),
        (b"ff" + TRACE[2:], None),
        (TRACE.upper(), None),
        (b"00-" + b"0" * 32 + TRACE[35:], None),
        (TRACE[:36] + b"0" * 16 + b"-01", None),
        (TRACE[:-1], None),
        (b"", None),
    ],
)
def test_only_a_valid_traceparent_is_continued(value: bytes, kept: bytes | None) -> None:
    assert continued(value) == kept


def test_request_ids_differ_and_are_32_hexadecimal_digits() -> None:
    made = [new_request_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in made)


def test_an_ipv6_peer_is_quoted_in_forwarded() -> None:
    assert b'Forwarded: for="[::1]";host="a";proto=http' in forwarding_lines(b"a", b"::1", b"http")


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: Close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: foo, close\r\n", False),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_whether_the_connection_is_kept_follows_version_and_connection(
    line: bytes, fields: bytes, keep_alive: bool
) -> None:
    assert head(fields, line).keep_alive is keep_alive


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n",
        b"Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\nUpgrade: web socket\r\n",
    ],
)
def test_an_upgrade_that_cannot_be_tunnelled_safely_is_left_out(fields: bytes) -> None:
    assert head(fields).upgrade is None


def test_only_whole_heads_of_safe_methods_may_be_repeated() -> None:
    assert head(line=b"GET / HTTP/1.1").repeatable
    assert not head(line=b"POST / HTTP/1.1").repeatable
    assert not head(b"Content-Length: 3\r\n", b"GET / HTTP/1.1").repeatable
    assert not head(b"Transfer-Encoding: chunked\r\n", b"GET / HTTP/1.1").repeatable


def test_a_refusal_carries_its_status() -> None:
    for line, status in ((b"TRACE / HTTP/1.1", 501), (b"GET /%s HTTP/1.1" % (b"x" * 9000), 414)):
        with pytest.raises(BadRequest) as caught:
            head(line=line)
        assert caught.value.refusal.status == status


def recognise(raw: bytes, data: bytes) -> tuple[int, bytes, bytes] | None:
    template = HeadTemplate.of(raw, sized=b"ength" in raw)
    assert template is not None
    return template.match(data)


# --- templates --------------------------------------------------------------------------------

RAW = b"POST /x HTTP/1.1\r\nHost: a\r\ncontent-length: 30\r\nX: y\r\n\r\n"


def test_a_head_that_differs_only_in_its_length_is_recognised() -> None:
    assert recognise(RAW, RAW + b"body") == (len(RAW), b"30", b"")
    longer = RAW.replace(b"30", b"1234")
    assert recognise(RAW, longer) == (len(longer), b"1234", b"")


@pytest.mark.parametrize(
    "other",
    [
        RAW[:-1],
        RAW[:-2] + b"Z: 1\r\n\r\n",
        RAW.replace(b"30", b""),
        RAW.replace(b"30", b"+3"),
        RAW.replace(b"30", b"3 "),
        RAW.replace(b"30", b"0x3"),
        RAW.replace(b"30", b"30\r\ncontent-length: 30"),
        RAW.replace(b"30", b"\xb2"),
        RAW.replace(b"30", b"1" * 16),
        RAW.replace(b"/x", b"/y"),
        RAW.replace(b"Host", b"host"),
        RAW.replace(b"X: y", b"X: z"),
        b"",
        b"\r\n" + RAW,
    ],
)
def test_a_head_that_differs_in_anything_else_is_not(other: bytes) -> None:
    assert recognise(RAW, other) is None


def test_a_head_without_a_length_is_recognised_only_whole() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert recognise(raw, raw + b"GET") == (len(raw), b"", b"")
    assert recognise(raw, raw[:-2] + b"Content-Length: 3\r\n\r\n") is None


def test_a_length_written_in_an_uncommon_way_makes_no_template() -> None:
    assert HeadTemplate.of(RAW.replace(b"30", b"30 "), sized=True) is None


TRACED = RAW.replace(b"X: y", b"traceparent: " + TRACE)
OTHER_TRACE = TRACE[:3] + b"a" * 32 + TRACE[35:]


def recognise_traced(data: bytes) -> tuple[int, bytes, bytes] | None:
    template = HeadTemplate.of(TRACED, sized=True, traced=True)
    assert template is not None
    return template.match(data)


def test_a_head_that_differs_in_its_trace_is_recognised_with_the_new_one() -> None:
    assert recognise_traced(TRACED) == (len(TRACED), b"30", TRACE)
    other = TRACED.replace(TRACE, OTHER_TRACE).replace(b"30", b"7")
    assert recognise_traced(other + b"body") == (len(other), b"7", OTHER_TRACE)


@pytest.mark.parametrize(
    "value", [b"", b"00-x", TRACE + b"-more", TRACE + b"\r\nX: y", b"ff" + TRACE[2:], TRACE[:-1] + b"\x00"]
)
def test_a_head_whose_trace_is_not_valid_is_not_recognised(value: bytes) -> None:
    assert recognise_traced(TRACED.replace(TRACE, value)) is None


def test_a_trace_that_is_not_continued_is_no_gap() -> None:
    raw = RAW.replace(b"X: y", b"traceparent: none")
    template = HeadTemplate.of(raw, sized=True)
    assert template is not None
    assert template.match(raw) == (len(raw), b"30", b"")
    assert template.match(raw.replace(b"none", TRACE)) is None


def comparable(parsed: RequestHead) -> list[object]:
    return [getattr(parsed, name) for name in RequestHead.__slots__ if name != "length"]


@given(
    fields=st.permutations([b"Host: a", b"Content-Length: 12", b"X: content-length: 3", b"Accept: */*"]),
    digits=st.from_regex(rb"[0-9 +x]{0,17}", fullmatch=True),
)
def test_what_a_template_recognises_parses_alike(fields: list[bytes], digits: bytes) -> None:
    raw = b"POST / HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"
    other = raw.replace(b"Content-Length: 12", b"Content-Length: " + digits)
    found = recognise(raw, other)
    if found is not None:
        parsed = parse_request_head(other, LIMITS)
        assert found == (len(other), digits, b"")
        assert parsed.length == int(digits)
        assert comparable(parsed) == comparable(parse_request_head(raw, LIMITS))
