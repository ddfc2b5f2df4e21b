"""How a request travels from one gateway to another: its head as the replica is to get it, with one line more.

The line is the first header. It holds the secret of the gateways, for which gateway and endpoint the request is, and
where it waits. What a client sends can hold no such line: all X-Penstock- headers of clients are dropped. Pure.
"""

import hashlib
import hmac
from typing import NamedTuple
from urllib.parse import quote, unquote

from penstock_gateway.fairness import Place, Priority

_NAME = b"X-Penstock-Forward: "
STARTED = b"HTTP/1.1 102 Processing\r\nX-Penstock-Started: yes\r\n\r\n"
"""Told by the owner before a byte of the request reaches a replica: until then it may be sent again."""
STARTED_LINE = b"X-Penstock-Started: yes"
MOVED = 421
"""Answered, with the secret in MOVED_HEADER, by a gateway that does not own the endpoint."""
MOVED_HEADER = "X-Penstock-Moved"
HEARTBEAT = ""
"""Stands for the endpoint where the body is a heartbeat, to be answered with one."""
ANYBODY = "*"


class Envelope(NamedTuple):
    """What the line says."""

    gateway_id: str
    endpoint_id: str
    place: Place


def seal(request: bytes, secret: str, envelope: Envelope) -> bytes:
    """The head `request` with the line put in."""
    first, rest = request.split(b"\r\n", 1)
    gateway_id, endpoint_id, (key_id, priority) = envelope
    words = (secret, gateway_id, quote(endpoint_id), str(int(priority)), quote(key_id))
    return b"%b\r\n%b%b\r\n%b" % (first, _NAME, " ".join(words).encode(), rest)


def unseal(request: bytes, secret: str) -> tuple[Envelope, bytes] | None:
    """What the line says and the head without it; None when it is not there, or the secret is another."""
    first, line, rest = (*request.split(b"\r\n", 2), b"", b"")[:3]
    words = line.removeprefix(_NAME).split(b" ")
    if not line.startswith(_NAME) or len(words) != 5 or not hmac.compare_digest(words[0], secret.encode()):
        return None
    _, gateway_id, endpoint_id, priority, key_id = (word.decode("latin-1") for word in words)
    try:
        place = Place(unquote(key_id), Priority(int(priority)))
    except ValueError:
        return None
    return Envelope(gateway_id, unquote(endpoint_id), place), first + b"\r\n" + rest


def request_id_of(request: bytes) -> bytes:
    """The X-Request-Id of a head that a gateway wrote: its last line. Empty without one."""
    name, _, value = request[:-4].rpartition(b"\r\n")[2].partition(b": ")
    return value if name == b"X-Request-Id" else b""


def proof(secret: str, gateway_id: str, address: str) -> str:
    """What a heartbeat shows instead of the secret."""
    return hmac.new(secret.encode(), f"{gateway_id} {address}".encode(), hashlib.sha256).hexdigest()
