"""Asynchronous requests: what they ask for, what is kept of them, and where and how their outcome is told."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_gateway.deferred.addresses import BadWebhook, is_public, parse_target
from penstock_gateway.deferred.prefer import Asked, applied, asked, others
from penstock_gateway.deferred.recognizing import is_inquiry
from penstock_gateway.deferred.requests import NotTaken, head_to_send, keep_request
from penstock_gateway.deferred.signing import hkdf, organization_secret, signature, written

# --- the Prefer header ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("respond-async", Asked()),
        (" Respond-ASYNC\t", Asked()),
        ("return=minimal, respond-async", Asked()),
        ("respond-async, wait=10", Asked(10)),
        ("wait = 10 , respond-async", Asked(10)),
        ('respond-async;foo="a,b";bar, wait="7"', Asked(7)),
        ("respond-async=", Asked()),
        ('respond-async=""', Asked()),
        ("wait=1, wait=2, respond-async", Asked(1)),
        ("respond-async, wait=soon", Asked()),
        ("respond-async, wait=-1", Asked()),
        ("respond-async, wait=٣", Asked()),
        ("respond-async, wait=99999999999", Asked()),
        (",, ,respond-async,", Asked()),
        ("(broken), respond-async", Asked()),
        ('x="unfinished, respond-async', Asked()),
        ("respond-async=yes", None),
        ("respond-async=yes, respond-async", None),
        ("respond-asynchronously", None),
        ('x="a, respond-async, b"', None),
        ("wait=10", None),
        ("", None),
        ("respond-async," * 100, None),
    ],
)
def test_prefer_is_read_as_the_standard_says(value: str, expected: Asked | None) -> None:
    assert asked(value) == expected


def test_what_the_endpoint_may_honour_goes_on_to_it() -> None:
    assert others('respond-async, handling=strict; a="b,c", wait=5, return="x y"') == (
        'handling=strict; a="b,c", return="x y"'
    )
    assert others("respond-async") == ""


def test_what_was_honoured_is_said() -> None:
    assert applied(None, later=True) == "respond-async"
    assert applied(5, later=True) == "respond-async, wait=5"
    assert applied(5, later=False) == "wait=5"


@given(st.text(max_size=1100))
def test_no_prefer_header_is_too_strange(value: str) -> None:
    asked(value)
    others(value)


# --- what is kept of a request ----------------------------------------------------------------

HEAD = (
    b"POST /run?a=1 HTTP/1.1\r\nHost: iris.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /e/a/b\r\n"
    b"Content-Type: application/json\r\nPrefer: respond-async, handling=strict\r\nCookie: a=b\r\n"
    b"authorization: Basic x\r\nIdempotency-Key: 5e5d\r\nPenstock-Webhook: https://example.com/told\r\n"
    b"Expect: 100-continue\r\nContent-Length: 12\r\ntraceparent: 00-1\r\n\r\n"
)


def test_a_request_is_kept_without_credentials_and_what_was_meant_for_the_gateway() -> None:
    kept = keep_request(HEAD)
    assert (kept.method, kept.target, kept.length, kept.repeatable) == ("POST", "/run?a=1", 12, True)
    assert (kept.endpoint_url, kept.endpoint_path) == ("https://iris.example/e/a/b", "/e/a/b")
    assert (kept.webhook, kept.idempotency_key) == ("https://example.com/told", "5e5d")
    assert head_to_send(kept.head, 12) == (
        b"POST /run?a=1 HTTP/1.1\r\nHost: iris.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /e/a/b\r\n"
        b"Content-Type: application/json\r\nIdempotency-Key: 5e5d\r\ntraceparent: 00-1\r\nPrefer: handling=strict\r\n"
        b"Content-Length: 12\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "body_bytes", "sized"),
    [("GET", 0, False), ("DELETE", 0, False), ("GET", 5, True), ("POST", 0, True), ("PUT", 3, True)],
)
def test_a_length_is_sent_where_there_is_a_body_or_one_is_expected(method: str, body_bytes: int, sized: bool) -> None:
    head = head_to_send(f"{method} / HTTP/1.1\r\nHost: a".encode(), body_bytes)
    assert (b"\r\nContent-Length: %d\r\n\r\n" % body_bytes in head) is sized
    assert head.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("value", [b"", b"a" * 256, b"\xe9", b"a\tb"])
def test_an_idempotency_key_that_cannot_be_one_is_refused_by_name(value: bytes) -> None:
    with pytest.raises(NotTaken) as refused:
        keep_request(HEAD.replace(b"5e5d", value))
    assert refused.value.refusal.members["errors"] == [
        {"field": "Idempotency-Key", "message": "write 1 to 255 printable ASCII characters"}
    ]


def test_two_webhooks_are_one_too_many() -> None:
    with pytest.raises(NotTaken, match="more than once"):
        keep_request(HEAD.replace(b"Expect:", b"Penstock-Webhook: https://b.example\r\nExpect:"))


@pytest.mark.parametrize(
    ("target", "ours"),
    [(b"/.inferences", True), (b"/.inferences/x?y", True), (b"/.inferences?", True), (b"/.inferences2", False)],
)
def test_only_what_is_below_the_prefix_is_about_inferences(target: bytes, ours: bool) -> None:
    assert is_inquiry(target) is ours


# --- signatures -------------------------------------------------------------------------------


def test_a_signature_is_the_one_of_the_specifications_own_libraries() -> None:
    """The case `test_sign_function` of their Python library."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert written(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_derived_as_rfc_5869_says() -> None:
    """Its appendix A.3, of which we need the first block."""
    assert hkdf(b"\x0b" * 22, b"").hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    secrets = {organization_secret(ours, theirs) for ours in ("a" * 32, "b" * 32) for theirs in ("org_1", "org_2")}
    assert len(secrets) == 4
    assert all(24 <= len(secret) <= 64 for secret in secrets)


# --- where webhooks may go --------------------------------------------------------------------

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "224.0.1.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "::8.8.8.8",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "nonsense",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_of_the_public_internet_is_none(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_public_internet_is_one(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/", "https"),
        ("ftp://example.com/", "https"),
        ("//example.com/", "https"),
        ("https://user:password@example.com/", "user name"),
        ("https://example.com/#x", "fragment"),
        ("https:///x", "neither"),
        ("https://exa mple.com/", "printable"),
        ("https://example.com/\r\nX: y", "printable"),
        ("https://exämple.com/", "printable"),
        ("https://example.com:99999/", "not a URL"),
        ("https://127.0.0.1/", "not a public"),
        ("https://[::1]:8443/", "not a public"),
        ("https://[fe80::1%25eth0]/", "not a public"),
        ("https://2130706433/", "neither"),
        ("https://127.1/", "neither"),
        ("https://0x7f.0.0.1/", "neither"),
        ("https://-a_b!.example/", "neither"),
        ("https://example.com/" + "x" * 2048, "at most 2048"),
    ],
)
def test_an_address_where_no_webhook_may_go_is_refused_with_the_reason(url: str, message: str) -> None:
    with pytest.raises(BadWebhook, match=message):
        parse_target(url, allow_http=False, allow_private=False)


def test_a_good_address_is_taken_apart() -> None:
    target = parse_target("https://hooks.example.com:8443?a=b", allow_http=False, allow_private=False)
    assert (target.secure, target.host, target.port, target.path) == (True, "hooks.example.com", 8443, "/?a=b")
    assert target.authority == "hooks.example.com:8443"
    target = parse_target("http://[::1]/told", allow_http=True, allow_private=True)
    assert (target.secure, target.host, target.port, target.authority) == (False, "::1", 80, "[::1]")
