"""A request's head: parsed and checked.

llhttp checks whole heads with all leniencies off: it refuses bare CR and LF, folded lines, spaces
before a colon, control characters, bad names, several or malformed lengths, and lengths beside a
transfer coding. What it lets pass is checked here. It is not asked for the fields: in a head that it
has accepted they are simply the lines, and calls from it cost more than splitting.
"""

import httptools

from penstock_gateway.domain import BadRequest
from penstock_gateway.proxy.fields import TOKEN, passes, tokens, without
from penstock_gateway.settings import GatewaySettings

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
LENGTH_DIGITS_MAX = 18
_PLAIN_CONNECTION = frozenset({b"close", b"keep-alive", b"upgrade"})
_NEVER_UPGRADED_TO = (b"h2c", b"http/", b"tls/")
"""After these the client could send requests that the gateway does not see."""
_NO_CALLBACKS = object()


class RequestHead:
    """What a head says. `fields` are the lines that go on as they came; `length` is -1 without one."""

    __slots__ = (
        "authorization",
        "chunked",
        "connection",
        "expects_continue",
        "fields",
        "host",
        "http10",
        "keep_alive",
        "length",
        "method",
        "prefer",
        "priority",
        "target",
        "traceparent",
        "tracestate",
        "transfer_encoding",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes) -> None:
        self.method = method
        self.target = target
        self.http10 = False
        self.host: bytes | None = None
        self.prefer: bytes | None = None
        self.authorization: bytes | None = None
        self.fields: list[bytes] = []
        self.length = -1
        self.chunked = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade: bytes | None = None
        self.connection: bytes | None = None
        self.transfer_encoding: bytes | None = None
        self.priority: bytes | None = None
        self.traceparent: bytes | None = None
        self.tracestate: list[bytes] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending the request twice does no harm, and no body is lost by it."""
        return self.method in SAFE_METHODS and not self.chunked and self.length <= 0

    @property
    def recognisable(self) -> bool:
        """Whether all that follows from this head also follows from one with another length."""
        return self.length < 0 or (self.upgrade is None and self.method not in SAFE_METHODS)

    # --- fields with a meaning of their own -----------------------------------------------

    def _take_host(self, value: bytes) -> None:
        if self.host is not None:
            raise BadRequest("there is more than one Host header")
        self.host = value

    def _take_authorization(self, value: bytes) -> None:
        if self.authorization is not None:
            raise BadRequest("there is more than one Authorization header")
        self.authorization = value

    def _take_length(self, value: bytes) -> None:
        # llhttp has checked that it is one decimal number, but takes any count of zeros in front.
        if len(value) > LENGTH_DIGITS_MAX:
            raise BadRequest("the Content-Length has too many digits")
        self.length = int(value)

    def _take_transfer_encoding(self, value: bytes) -> None:
        self.transfer_encoding = value

    def _take_connection(self, value: bytes) -> None:
        self.connection = value if self.connection is None else self.connection + b"," + value

    def _take_upgrade(self, value: bytes) -> None:
        self.upgrade = value if self.upgrade is None else self.upgrade + b"," + value

    def _take_expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            raise BadRequest(
                "the only expectation that can be met is 100-continue", status=417, code="expectation_failed"
            )
        self.expects_continue = True

    def _take_priority(self, value: bytes) -> None:
        self.priority = value if self.priority is None else self.priority + b"," + value

    def _take_traceparent(self, value: bytes) -> None:
        # Sent twice it is void, as the specification asks.
        self.traceparent = value if self.traceparent is None else b""

    def _take_tracestate(self, value: bytes) -> None:
        self.tracestate = [*(self.tracestate or []), value]

    def _take_prefer(self, value: bytes) -> None:
        self.prefer = value if self.prefer is None else self.prefer + b"," + value
        # Other preferences are the model's.
        self.fields.append(b"Prefer: " + value)


_TAKERS = {
    b"host": RequestHead._take_host,
    b"authorization": RequestHead._take_authorization,
    b"content-length": RequestHead._take_length,
    b"transfer-encoding": RequestHead._take_transfer_encoding,
    b"connection": RequestHead._take_connection,
    b"upgrade": RequestHead._take_upgrade,
    b"expect": RequestHead._take_expect,
    b"x-penstock-priority": RequestHead._take_priority,
    b"prefer": RequestHead._take_prefer,
    b"traceparent": RequestHead._take_traceparent,
    b"tracestate": RequestHead._take_tracestate,
}


def parse_request_head(raw: bytes, limits: GatewaySettings) -> RequestHead:
    """Read a head, from the first byte of the request line to the empty line. Raises BadRequest."""
    parser = httptools.HttpRequestParser(_NO_CALLBACKS)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadRequest(f"the request is not valid HTTP: {error}") from None
    lines = raw.split(b"\r\n")
    head = _parse_line(lines[0], parser.get_method(), limits)
    fields = head.fields
    for line in lines[1:-2]:
        name, _, value = line.partition(b":")
        key = name.lower()
        take = _TAKERS.get(key)
        if take is not None:
            take(head, value.strip(b" \t"))
        elif passes(key):
            fields.append(line)
    if len(lines) - 3 > limits.headers_max:
        raise BadRequest("there are too many headers", status=431, code="head_too_large")
    if head.host is None and not head.http10:
        raise BadRequest("there is no Host header")
    if head.transfer_encoding is not None:
        _check_transfer_encoding(head)
    if head.connection is not None or head.http10:
        _apply_connection(head)
    if head.upgrade is not None:
        _check_upgrade(head)
    return head


def begins_no_head(data: bytes) -> bool:
    """Whether no head can begin with this: then there is no point in waiting for the rest."""
    if data == b"\r":
        return False
    ends = data.count(b"\r\n")
    returns = data.count(b"\r") - data.endswith(b"\r")
    return not 65 <= data[0] <= 90 or data.count(b"\n") != ends or returns != ends


def _parse_line(line: bytes, method_read: bytes, limits: GatewaySettings) -> RequestHead:
    """The request line has one form only: llhttp also reads line ends before it, two spaces in it,
    HTTP/0.9, HTTP/2.0 and RTSP. `method_read` is what llhttp took for the method."""
    parts = line.split(b" ")
    if len(parts) != 3 or parts[0] != method_read or parts[2] not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise BadRequest("the request line is not of the form METHOD target HTTP/1.1")
    method, target, version = parts
    if len(target) > limits.target_bytes_max:
        raise BadRequest("the path and query are too long", status=414, code="target_too_long")
    if method not in METHODS:
        raise BadRequest("this method is not served", status=501, code="not_implemented")
    head = RequestHead(method, target)
    head.http10 = version == b"HTTP/1.0"
    return head


def _check_transfer_encoding(head: RequestHead) -> None:
    value = head.transfer_encoding or b""
    if head.http10:
        raise BadRequest("Transfer-Encoding does not exist in HTTP/1.0")
    if value.lower() != b"chunked":
        raise BadRequest("the only transfer coding served is chunked", status=501, code="not_implemented")
    head.chunked = True


def _apply_connection(head: RequestHead) -> None:
    if head.upgrade is None and not head.http10 and head.connection in {b"keep-alive", b"Keep-Alive"}:
        return
    named = tokens(head.connection or b"")
    if head.http10:
        head.keep_alive = b"keep-alive" in named and b"close" not in named
        head.expects_continue = False
    else:
        head.keep_alive = b"close" not in named
    if b"upgrade" not in named:
        head.upgrade = None
    dropped = set(named) - _PLAIN_CONNECTION
    if dropped:
        head.fields = without(head.fields, dropped)


def _check_upgrade(head: RequestHead) -> None:
    """An upgrade is optional to the server: one that cannot be tunnelled is left out."""
    protocol = (head.upgrade or b"").lower()
    one = TOKEN.fullmatch(protocol.partition(b"/")[0]) is not None and b"," not in protocol
    bodied = head.chunked or head.length > 0
    if head.http10 or head.connection is None or bodied or not one or protocol.startswith(_NEVER_UPGRADED_TO):
        head.upgrade = None
