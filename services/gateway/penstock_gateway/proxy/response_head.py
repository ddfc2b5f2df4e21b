"""A replica's response head: parsed and checked, then written anew for the client."""

from http import HTTPStatus

import httptools

from penstock_gateway.domain import BadResponse
from penstock_gateway.proxy.fields import tokens, without
from penstock_gateway.proxy.request_head import LENGTH_DIGITS_MAX
from penstock_gateway.proxy.templates import HeadTemplate

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
BODILESS = frozenset({204, 304})
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t"
_NO_CALLBACKS = object()


class ResponseHead:
    """What a head says. `lines` are the fields that go on as they came; `length` is -1 without one."""

    __slots__ = ("chunked", "connection", "http10", "keep_alive", "length", "lines", "reason", "status", "upgrade")

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.http10 = False
        self.lines: list[bytes] = []
        self.length = -1
        self.chunked = False
        self.keep_alive = True
        self.connection: bytes | None = None
        self.upgrade: bytes | None = None

    def _take_length(self, value: bytes) -> None:
        if len(value) > LENGTH_DIGITS_MAX:
            raise BadResponse("the Content-Length has too many digits")
        self.length = int(value)

    def _take_transfer_encoding(self, value: bytes) -> None:
        if value.lower() != b"chunked" or self.chunked:
            raise BadResponse("the only transfer coding passed on is chunked")
        self.chunked = True

    def _take_connection(self, value: bytes) -> None:
        self.connection = value if self.connection is None else self.connection + b"," + value

    def _take_upgrade(self, value: bytes) -> None:
        self.upgrade = value

    def _leave_out(self, _: bytes) -> None:
        """Meant for us only, or said anew."""


_TAKERS = {
    b"content-length": ResponseHead._take_length,
    b"transfer-encoding": ResponseHead._take_transfer_encoding,
    b"connection": ResponseHead._take_connection,
    b"upgrade": ResponseHead._take_upgrade,
    b"keep-alive": ResponseHead._leave_out,
    b"proxy-connection": ResponseHead._leave_out,
    b"proxy-authenticate": ResponseHead._leave_out,
    b"te": ResponseHead._leave_out,
    b"x-request-id": ResponseHead._leave_out,
}


def parse_response_head(raw: bytes) -> ResponseHead:
    """Read a head, from the status line to the empty line. Raises BadResponse."""
    parser = httptools.HttpResponseParser(_NO_CALLBACKS)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadResponse(str(error)) from None
    lines = raw.split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    head = ResponseHead(parser.get_status_code(), rest.partition(b" ")[2])
    if not 100 <= head.status <= 599:
        raise BadResponse(f"{head.status} is no status code")
    if version != b"HTTP/1.1":
        if version != b"HTTP/1.0":
            raise BadResponse("the status line does not begin with HTTP/1.1")
        head.http10 = True
        head.keep_alive = False
    kept = head.lines
    for line in lines[1:-2]:
        name, _, value = line.partition(b":")
        take = _TAKERS.get(name.lower())
        if take is None:
            kept.append(line)
        else:
            take(head, value.strip(b" \t"))
    if head.connection is not None and head.connection != b"keep-alive":
        _apply_connection(head, head.connection)
    if head.chunked and head.http10:
        raise BadResponse("Transfer-Encoding does not exist in HTTP/1.0")
    if head.status == 204:
        # Some clients would wait for the body that a length promises and the status forbids.
        head.length = -1
    return head


def _apply_connection(head: ResponseHead, connection: bytes) -> None:
    named = set(tokens(connection))
    if b"close" in named:
        head.keep_alive = False
    dropped = named - {b"close", b"keep-alive", b"upgrade"}
    if dropped:
        head.lines = without(head.lines, dropped)


def write_response_head(head: ResponseHead, ending: bytes) -> bytes:
    """The head as the client gets it. `ending` holds the lines that the gateway adds, and the empty line."""
    beginning = status_line(head.status, head.reason)
    if head.lines:
        beginning += b"\r\n".join(head.lines) + b"\r\n"
    if head.length >= 0:
        return b"%bContent-Length: %d\r\n%b" % (beginning, head.length, ending)
    return beginning + ending


def status_line(status: int, reason: bytes) -> bytes:
    """A status line; a reason with control characters in it is left out."""
    known = STATUS_LINES.get(status)
    if known is not None and known[13:-2] == reason:
        return known
    if reason.translate(None, _PRINTABLE):
        reason = b""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


class PreparedAnswer:
    """The head of a sized answer on a kept connection, ready to be written again for an equal head.

    `is_json`: its body may hold a usage object.
    """

    __slots__ = ("_before", "is_json", "status", "template")

    def __init__(self, template: HeadTemplate, head: ResponseHead, *, is_json: bool) -> None:
        self.status = head.status
        self.is_json = is_json
        self.template = template
        beginning = status_line(head.status, head.reason)
        if head.lines:
            beginning += b"\r\n".join(head.lines) + b"\r\n"
        self._before = beginning + b"Content-Length: "

    def write(self, digits: bytes, request_id: bytes, body: bytes) -> bytes:
        """The whole answer, for a plain request."""
        return b"".join((self._before, digits, b"\r\nX-Request-Id: ", request_id, b"\r\n\r\n", body))


def prepare_answer(raw: bytes, head: ResponseHead, *, is_json: bool) -> PreparedAnswer | None:
    """What can be reused for an equal head, or None for answers whose end says more than their length."""
    if not head.keep_alive or head.length < 0 or head.status in BODILESS or head.status < 200:
        return None
    template = HeadTemplate.of(raw, sized=True)
    return None if template is None else PreparedAnswer(template, head, is_json=is_json)
