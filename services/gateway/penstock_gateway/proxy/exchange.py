"""One request and its answer, from admission to the end."""

from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from penstock_gateway.domain import Refusal
from penstock_gateway.fairness import Place
from penstock_gateway.proxy.request_head import RequestHead
from penstock_gateway.stats import CLIENT_LEFT

if TYPE_CHECKING:
    from penstock_gateway.proxy.client import ClientConnection
    from penstock_gateway.proxy.endpoint import Endpoint
    from penstock_gateway.proxy.replica import Replica
    from penstock_gateway.proxy.upstream import UpstreamConnection


class Stage(IntEnum):
    """Where a request is."""

    NEW = 0
    WAITING = 1
    CONNECTING = 2
    SENT = 3
    TUNNEL = 4
    DONE = 5


_NEW, _WAITING, _CONNECTING, _SENT, _TUNNEL, _DONE = Stage

PIECES_MAX = 64
"""A body that waits is joined when it is in so many pieces: each costs more than the byte it may hold."""


class Exchange:
    """Holds a slot of `replica` while CONNECTING, SENT or TUNNEL, and a place in the queue while WAITING.

    `request` is the head that the replica gets, `pending` what it has not got yet of the body. `place` is
    where it waits; an endpoint that was asked to admit it has set it.
    `request_done`: the whole request has arrived. `first_byte_s` is 0 until the answer began.
    """

    __slots__ = (
        "arrived_s",
        "bound_s",
        "client",
        "endpoint",
        "first_byte_s",
        "head",
        "held_bytes",
        "keep_alive",
        "pending",
        "place",
        "plain",
        "replica",
        "request",
        "request_done",
        "request_id",
        "stage",
        "status",
        "upstream",
    )

    place: Place
    forwarded: ClassVar[bool] = False
    """Whether it comes from another gateway, and so may not be forwarded again."""

    def __init__(self, client: "ClientConnection", head: RequestHead, request_id: bytes, now_s: float) -> None:
        self.client = client
        self.head = head
        self.request_id = request_id
        self.arrived_s = self.bound_s = now_s
        self.first_byte_s = 0.0
        self.keep_alive = head.keep_alive
        self.plain = False
        self.request_done = False
        self.held_bytes = 0
        self.stage: Stage = _NEW
        self.status = 0
        self.endpoint: Endpoint | None = None
        self.replica: Replica | None = None
        self.upstream: UpstreamConnection | None = None
        self.request = b""
        self.pending: list[bytes] = []

    # --- towards the replica --------------------------------------------------------------

    def start(self, replica: "Replica", now_s: float) -> None:
        """A slot of `replica` was taken for this request: send it."""
        self.replica = replica
        self.bound_s = now_s
        upstream = replica.checkout(now_s)
        if upstream is not None:
            self.stage = _SENT
            upstream.begin(self)
        else:
            self.stage = _CONNECTING
            replica.connect(self)

    def on_connected(self, upstream: "UpstreamConnection") -> None:
        """The connection asked for stands; if the request was given up meanwhile, another may use it."""
        if upstream.closed:
            self.on_connect_failed(upstream.replica)
        elif self.stage is _CONNECTING:
            self.stage = _SENT
            upstream.begin(self)
        else:
            upstream.park(monotonic())

    def on_connect_failed(self, replica: "Replica") -> None:
        """No byte was sent: another replica may have the request, or it waits again, first in line."""
        self._endpoint.eject(replica)
        if self.stage is _CONNECTING:
            self.stage = _NEW
            self.replica = None
            self._endpoint.release(replica, None, monotonic(), answered=False)
            self._endpoint.readmit(self)

    def come_back(self) -> None:
        """Another gateway did not begin with it, and no part of it is lost: it is to be placed again."""
        self.stage = _NEW
        self.upstream = None
        self.replica = None
        self._endpoint.readmit(self)

    def body(self, data: bytes, *, done: bool) -> None:
        """More of the request body, framed as the replica gets it; `done` with the last of it."""
        if done:
            self.request_done = True
        if not data:
            return
        if self.stage is _SENT and self.upstream is not None:
            self.upstream.write(data)
        else:
            self.pending.append(data)
            self.held_bytes += len(data)
            if len(self.pending) > PIECES_MAX:
                self.pending = [b"".join(self.pending)]

    def repeat(self) -> None:
        """Send the request again on a fresh connection: the kept one was closed under it."""
        if self.replica is not None:
            self.stage = _CONNECTING
            self.upstream = None
            self.replica.connect(self)

    # --- towards the client ---------------------------------------------------------------

    def begin_answer(self, status: int, *, sized: bool) -> bytes:
        """The replica has answered; returns the lines that end the head for the client."""
        self.status = status
        self.first_byte_s = monotonic()
        if self.client.draining or (not sized and self.head.http10):
            self.keep_alive = False
        return self.ending(chunked=not sized and not self.head.http10)

    def ending(self, *, chunked: bool = False) -> bytes:
        """The lines that the gateway adds to a response head, and the empty line."""
        coding = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        connection = b""
        if not self.keep_alive:
            connection = b"Connection: close\r\n"
        elif self.head.http10:
            connection = b"Connection: keep-alive\r\n"
        return b"%b%bX-Request-Id: %b\r\n\r\n" % (coding, connection, self.request_id)

    def interim(self, status: int, data: bytes) -> None:
        """The replica has more to say before its answer; HTTP/1.0 clients would not understand."""
        if not self.head.http10 and (status != 100 or self.head.expects_continue):
            self.client.send(data)

    def begin_tunnel(self, data: bytes) -> None:
        """The replica has switched protocols; `data` is its answer and what came with it."""
        self.status = 101
        self.first_byte_s = monotonic()
        self.stage = _TUNNEL
        self.keep_alive = False
        self.client.begin_tunnel(self, data)

    # --- ends; each request has one -------------------------------------------------------

    def complete(self, now_s: float) -> None:
        """The answer was passed on whole."""
        service_s = None if self.stage is _TUNNEL else now_s - self.bound_s
        self.stage = _DONE
        self.upstream = None
        arrived_s = self.arrived_s
        endpoint = self.endpoint or self._endpoint
        endpoint.stats.answered(
            self.status,
            int((self.bound_s - arrived_s) * 1e6),
            int((self.first_byte_s - arrived_s) * 1e6),
            int((now_s - arrived_s) * 1e6),
        )
        replica, self.replica = self.replica, None
        if replica is not None:
            endpoint.release(replica, service_s, now_s, answered=True)
        self.client.finished(self, now_s)

    def refuse(self, refusal: Refusal) -> None:
        """Answer without a replica."""
        self._leave()
        if self.endpoint is not None:
            self.endpoint.stats.ended(refusal.status)
        self.client.refuse(self, refusal)

    def fail(self, refusal: Refusal) -> None:
        """Nothing can come of it. The client is told why, unless its answer has already begun."""
        if self.first_byte_s == 0.0:
            self.refuse(refusal)
            return
        self._leave()
        self._endpoint.stats.ended(refusal.status)
        self.client.break_off(self)

    def fail_upstream(self, refusal: Refusal, *, eject: bool = False) -> None:
        """The connection to the replica is gone."""
        self.upstream = None
        if eject and self.replica is not None:
            self._endpoint.eject(self.replica)
        self.fail(refusal)

    def abandon(self) -> None:
        """The client left: whatever was under way for it ends now."""
        if self.stage is _DONE:
            return
        if self.stage is _TUNNEL and self.upstream is not None:
            self.upstream.close()
            self.complete(monotonic())
            return
        self._leave()
        if self.endpoint is not None:
            self.endpoint.stats.ended(CLIENT_LEFT)

    def _leave(self) -> None:
        """Give up the place in the queue, the connection and the slot."""
        stage, self.stage = self.stage, _DONE
        self.pending = []
        self.held_bytes = 0
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()
        replica, self.replica = self.replica, None
        if stage is _WAITING:
            self._endpoint.leave(self)
        elif replica is not None:
            self._endpoint.release(replica, None, monotonic(), answered=False)

    @property
    def _endpoint(self) -> "Endpoint":
        if self.endpoint is None:
            raise RuntimeError("the request was not submitted to an endpoint")
        return self.endpoint
