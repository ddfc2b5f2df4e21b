"""Requests that come from other gateways, and their heartbeats where NATS does not bring them."""

import os
from typing import TYPE_CHECKING

from penstock_gateway.domain import BadRequest, Refusal
from penstock_gateway.proxy.client import ClientConnection
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.exchange import Exchange
from penstock_gateway.proxy.prepared import PreparedRequest
from penstock_gateway.proxy.problems import response
from penstock_gateway.proxy.request_head import RequestHead, parse_request_head
from penstock_gateway.proxy.sharing.envelope import HEARTBEAT, STARTED, Envelope, request_id_of, unseal

if TYPE_CHECKING:
    from penstock_gateway.proxy.plane import DataPlane
    from penstock_gateway.proxy.replica import Replica
    from penstock_gateway.proxy.sharing.cluster import Cluster

STRANGER = Refusal(
    403, "stranger", "this port is for other gateways, and the secret is not theirs: set the same gateway_secret"
)
BAD_HEARTBEAT = Refusal(400, "bad_heartbeat", "this is no heartbeat of a gateway with the same gateway_secret")
_EXPECT = b"\r\nExpect: 100-continue\r\n"


class ForwardedRequest(PreparedRequest):
    """A request that another gateway has admitted: it goes on as it came."""

    __slots__ = ("_raw", "request_id")

    def __init__(self, head: RequestHead, endpoint: Endpoint, envelope: Envelope, raw: bytes) -> None:
        super().__init__(head, endpoint, envelope.place, generation=0, until_s=0.0)
        self._raw = raw
        self.request_id = request_id_of(raw)
        self.trace = b""

    def with_expectation_met(self) -> "ForwardedRequest":
        self._raw = self._raw.replace(_EXPECT, b"\r\n", 1)
        return self

    def write(self, digits: bytes, trace: bytes, request_id: bytes) -> bytes:
        return self._raw


class ForwardedExchange(Exchange):
    """An exchange whose client is another gateway."""

    __slots__ = ()
    forwarded = True

    def start(self, replica: "Replica", now_s: float) -> None:
        if isinstance(self.client, PeerConnection):
            self.client.say_started()
        super().start(replica, now_s)


class PeerConnection(ClientConnection):
    """A connection from another gateway."""

    __slots__ = ("_cluster", "_is_heartbeat")

    exchange_type = ForwardedExchange

    def __init__(self, plane: "DataPlane", cluster: "Cluster") -> None:
        super().__init__(plane)
        self._limits = cluster.limits
        self._cluster = cluster
        self._is_heartbeat = False

    def say_started(self) -> None:
        """Told past the transport's buffer: it must be on its way before a byte of the request reaches a replica."""
        sent = 0
        if not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, STARTED)
            except OSError:
                # Full or gone; the transport deals with either.
                sent = 0
        if sent < len(STARTED):
            self.send(STARTED[sent:])

    def _take_head(self, raw: bytes, rest: bytes, now_s: float) -> None:
        self._empty_lines = 0
        try:
            head = parse_request_head(raw, self._limits)
        except BadRequest as bad:
            self._refuse_connection(bad.refusal)
            return
        unsealed = unseal(raw, self._cluster.secret)
        if unsealed is None:
            self._refuse_connection(STRANGER)
            return
        envelope, request = unsealed
        self._is_heartbeat = envelope.endpoint_id == HEARTBEAT
        endpoint = self._directory.endpoints.get(envelope.endpoint_id)
        prepared: PreparedRequest | Refusal = self._cluster.moved
        if endpoint is not None and envelope.gateway_id == self._cluster.gateway_id:
            prepared = ForwardedRequest(head, endpoint, envelope, request)
        self._begin(head, prepared, b"%d" % head.length if head.length >= 0 else b"", b"", rest, now_s)

    def _submit(self, exchange: Exchange, prepared: PreparedRequest | Refusal, digits: bytes, trace: bytes) -> None:
        if self._is_heartbeat:
            said = self._cluster.asked(b"".join(exchange.pending))
            if said is None:
                exchange.refuse(BAD_HEARTBEAT)
            else:
                data = response(200, b"application/json", said, self._ending(exchange), with_body=True)
                self._answer(exchange, data)
            return
        if isinstance(prepared, ForwardedRequest) and prepared.request_id:
            exchange.request_id = prepared.request_id
        super()._submit(exchange, prepared, digits, trace)
