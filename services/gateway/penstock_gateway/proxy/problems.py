"""Answers of the gateway's own, written as HTTP."""

import json
import time
from email.utils import formatdate
from http import HTTPStatus

from penstock_gateway.domain import Refusal
from penstock_gateway.proxy.response_head import STATUS_LINES

PING = b'{"status":"ok"}'


class _Date:
    """The Date header, written once a second."""

    def __init__(self) -> None:
        self.second = 0
        self.line = b""

    def current(self) -> bytes:
        second = int(time.time())
        if second != self.second:
            self.second = second
            self.line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self.line


_date = _Date()


def problem_response(refusal: Refusal, *, ending: bytes, with_body: bool) -> bytes:
    """A refusal as problem+json (RFC 9457). `ending` holds further lines, and the empty line."""
    problem = {
        "type": f"urn:penstock:problem:{refusal.code}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "errors": [],
        **refusal.members,
    }
    body = refusal.body or json.dumps(problem, ensure_ascii=False).encode()
    fields = [f"{name}: {value}\r\n".encode() for name, value in refusal.headers]
    if refusal.retry_after_s is not None:
        fields.append(b"Retry-After: %d\r\n" % refusal.retry_after_s)
    return response(refusal.status, b"application/problem+json", body, b"".join(fields) + ending, with_body=with_body)


def ping_response(*, ending: bytes, with_body: bool) -> bytes:
    """200 of `GET /ping`, equal to what the replica itself would say."""
    return response(200, b"application/json", PING, ending, with_body=with_body)


def response(status: int, content_type: bytes, body: bytes, ending: bytes, *, with_body: bool) -> bytes:
    head = b"%b%bContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%b" % (
        STATUS_LINES[status],
        _date.current(),
        content_type,
        len(body),
        ending,
    )
    return head + body if with_body else head
