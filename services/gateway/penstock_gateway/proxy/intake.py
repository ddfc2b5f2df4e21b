"""A request body as it arrives from the client, framed as the replica gets it. Pure."""

from penstock_gateway.domain import BODY_TOO_LARGE, BadRequest
from penstock_gateway.proxy.bodies import BadChunk, ChunkedDecoder, encode_chunks, last_chunk
from penstock_gateway.proxy.fields import passing_trailers
from penstock_gateway.settings import GatewaySettings


class SizedBody:
    """A body with a Content-Length: passed on as it is."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """What goes to the replica, whether the body is complete, and what follows it."""
        left = self._left
        if len(data) <= left:
            self._left = left - len(data)
            return data, self._left == 0, b""
        self._left = 0
        return data[:left], True, data[left:]


class ChunkedBody:
    """A chunked body: read strictly and chunked anew, without extensions."""

    __slots__ = ("_bytes_max", "_decoder")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._decoder = ChunkedDecoder()

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """As SizedBody.feed. Raises BadRequest for bad chunks and for a body that is too long."""
        decoder = self._decoder
        try:
            pieces, rest = decoder.feed(data)
        except BadChunk as bad:
            raise BadRequest(str(bad)) from None
        if decoder.total > self._bytes_max:
            raise BadRequest(BODY_TOO_LARGE.detail, status=BODY_TOO_LARGE.status, code=BODY_TOO_LARGE.code)
        framed = encode_chunks(pieces)
        if decoder.done:
            framed += last_chunk(passing_trailers(decoder.trailers))
        return framed, decoder.done, rest


class Pace:
    """How slowly a body may arrive: no silence longer than `body_timeout_s`, and once that long has passed, on
    average at least `body_bytes_per_s_min`. Time in which the client was not read does not count."""

    __slots__ = ("_due_s", "_limits", "_paused_s")

    def __init__(self, limits: GatewaySettings) -> None:
        self._limits = limits
        self._due_s = 0.0
        self._paused_s = 0.0

    def begin(self, now_s: float) -> float:
        """A body begins. This, `arrived` and `resume` return when more of it must have come."""
        self._due_s = now_s + self._limits.body_timeout_s
        return self._due_s

    def arrived(self, count: int, now_s: float) -> float:
        """So many bytes of it have come."""
        self._due_s += count / self._limits.body_bytes_per_s_min
        return min(now_s + self._limits.body_timeout_s, self._due_s)

    def pause(self, now_s: float) -> None:
        """The client is not read for now."""
        self._paused_s = now_s

    def resume(self, now_s: float) -> float:
        """The client is read again."""
        self._due_s += now_s - self._paused_s
        return min(now_s + self._limits.body_timeout_s, self._due_s)
