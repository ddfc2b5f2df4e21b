"""A request ready to go: its head is parsed, its endpoint found, its key checked, its new head written.

All of that holds again for the next request with an equal head, until a route or a key changes.
"""

import copy
from typing import TYPE_CHECKING

from penstock_gateway.auth import bearer_key
from penstock_gateway.fairness import Place
from penstock_gateway.proxy import tracing
from penstock_gateway.proxy.request_head import RequestHead

if TYPE_CHECKING:
    from penstock_gateway.proxy.endpoint import Endpoint

_EXPECT = b"Expect: 100-continue"


def forwarding_lines(host: bytes, peer: bytes, scheme: bytes) -> bytes:
    """The lines about the client and its connection, equal for all requests with one Host."""
    peer_node = b'"[%b]"' % peer if b":" in peer else peer
    return (
        b"Host: %b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b'Forwarded: for=%b;host="%b";proto=%b' % (host, peer, scheme, host, peer_node, host, scheme)
    )


class PreparedRequest:
    """`write` gives the head for the replica. It stands for equal heads while the directory's
    generation is `generation` and the monotonic clock has not passed `until_s`.

    `place` is where it waits, if it must. `plain` requests are HTTP/1.1, kept alive, and not HEAD. `ping` is
    answered by the gateway; `deferred` ones are answered later, or ask about such. `trace` is the client's,
    if it is to be continued.
    """

    __slots__ = (
        "_before",
        "deferred",
        "endpoint",
        "generation",
        "head",
        "ping",
        "place",
        "plain",
        "trace",
        "until_s",
    )

    def __init__(
        self, head: RequestHead, endpoint: "Endpoint", place: Place, *, generation: int, until_s: float
    ) -> None:
        self.head = head
        self.endpoint = endpoint
        self.place = place
        self.generation = generation
        self.until_s = until_s
        self.plain = head.keep_alive and not head.http10 and head.method != b"HEAD"
        self.ping = False
        self.deferred = False
        self.trace = (tracing.continued(head.traceparent) or b"") if head.traceparent else b""
        self._before = b""

    def compose(self, target: bytes, forwarding: bytes, *, public: bool, prefix: bytes) -> None:
        """Write the head as the replica gets it, but for its length and ids.

        The caller's Penstock key stays here. On a public endpoint another Authorization is the model's
        own business and goes on; on a private one the header was the key.
        """
        head = self.head
        lines = [b"%b %b HTTP/1.1" % (head.method, target), forwarding, *head.fields]
        if public and head.authorization is not None and bearer_key(head.authorization) is None:
            lines.append(b"Authorization: " + head.authorization)
        if prefix:
            lines.append(b"X-Forwarded-Prefix: " + prefix)
        if head.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if head.expects_continue:
            lines.append(_EXPECT)
        if head.upgrade is not None:
            lines.append(b"Connection: Upgrade\r\nUpgrade: " + head.upgrade)
        if self.trace and head.tracestate:
            lines.append(b"tracestate: " + b",".join(head.tracestate))
        if head.length >= 0:
            lines.append(b"Content-Length: ")
        self._before = b"\r\n".join(lines)

    def with_expectation_met(self) -> "PreparedRequest":
        """The same request once the gateway has said 100 Continue itself: the replica is not asked again."""
        met = copy.copy(self)
        met._before = self._before.replace(b"\r\n" + _EXPECT, b"", 1)
        return met

    def write(self, digits: bytes, trace: bytes, request_id: bytes) -> bytes:
        """The head for the replica. `digits` is the value of Content-Length and `trace` the trace to
        continue, each empty without one.

        The trace id of a trace begun here is the request id. Its flag is 0: nothing here records a span,
        so whoever comes next decides about sampling.
        """
        if trace:
            middle = b"\r\ntraceparent: %b\r\nX-Request-Id: " % trace
            return b"".join((self._before, digits, middle, request_id, b"\r\n\r\n"))
        return b"".join(
            (
                self._before,
                digits,
                b"\r\ntraceparent: 00-",
                request_id,
                b"-",
                request_id[8:24],
                b"-00\r\nX-Request-Id: ",
                request_id,
                b"\r\n\r\n",
            )
        )
