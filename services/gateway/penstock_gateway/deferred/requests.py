"""A request as it is kept: its head without what was meant for the gateway or is a credential. Pure."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_gateway.deferred.prefer import others
from penstock_gateway.domain import Refusal

WEBHOOK = b"penstock-webhook"
IDEMPOTENCY_KEY = b"idempotency-key"
KEY_CHARACTERS_MAX = 255
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_SAID_ANEW = frozenset({b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade", b"prefer"})
_CREDENTIALS = frozenset({b"authorization", b"cookie"})
"""They are not kept: what is at rest may be read by whoever reads the disk."""
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class NotTaken(Exception):
    """An asynchronous request that is refused; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A head to be sent later. `lines` holds its request line and fields, without the length of the body."""

    method: str
    target: str
    """Path and query, below the endpoint's URL."""
    lines: tuple[bytes, ...]
    endpoint_url: str
    """The endpoint's URL as the caller wrote it."""
    endpoint_path: str
    """The path of that URL, without a slash at its end."""
    length: int | None
    """Of the body, in bytes, if it was said."""
    expects_continue: bool
    prefer: str
    idempotency_key: str | None
    webhook: str | None

    @property
    def repeatable(self) -> bool:
        """Whether running it again after it may have run is asked for, or does no harm."""
        return self.idempotency_key is not None or self.method in SAFE_METHODS

    @property
    def head(self) -> bytes:
        """The lines as they are kept."""
        return b"\r\n".join(self.lines)


def keep_request(request: bytes) -> KeptRequest:
    """What is kept of a request. `request` is the head that a replica would have got, whole.

    Raises NotTaken for an Idempotency-Key or Penstock-Webhook header that cannot be honoured.
    """
    first, *fields = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = first.decode("latin-1").split(" ")
    said: dict[bytes, list[str]] = {}
    kept = [first]
    for line in fields:
        name, _, value = line.partition(b":")
        key = name.lower()
        said.setdefault(key, []).append(value.strip(b" \t").decode("latin-1"))
        if key not in _SAID_ANEW and key not in _CREDENTIALS and key != WEBHOOK:
            kept.append(line)
    prefer = ",".join(said.get(b"prefer", []))
    preferred = others(prefer)
    if preferred:
        kept.append(b"Prefer: " + preferred.encode("latin-1"))
    prefix = said.get(b"x-forwarded-prefix", [""])[0]
    return KeptRequest(
        method=method,
        target=target,
        lines=tuple(kept),
        endpoint_url=f"{said[b'x-forwarded-proto'][0]}://{said[b'host'][0]}{prefix}",
        endpoint_path=prefix,
        length=int(said[b"content-length"][0]) if b"content-length" in said else None,
        expects_continue=b"expect" in said,
        prefer=prefer,
        idempotency_key=_idempotency_key(said.get(IDEMPOTENCY_KEY, [])),
        webhook=_one("Penstock-Webhook", said.get(WEBHOOK, [])),
    )


def head_to_send(head: bytes, body_bytes: int) -> bytes:
    """The head of a kept request as its replica gets it now."""
    first, _, fields = head.partition(b"\r\n")
    length = b""
    if body_bytes or first.partition(b" ")[0] not in {b"GET", b"HEAD", b"OPTIONS", b"DELETE"}:
        length = b"Content-Length: %d\r\n" % body_bytes
    return b"%b\r\n%b\r\n%b\r\n" % (first, fields, length)


def request_sha256(kept: KeptRequest, body: Sequence[bytes]) -> str:
    """What makes two requests the same: method, target and body, and where the outcome is told."""
    digest = hashlib.sha256()
    for part in (kept.method, kept.target, kept.webhook or ""):
        digest.update(len(part).to_bytes(8, "big") + part.encode())
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def owner_sha256(endpoint_id: str, key_id: str, idempotency_key: str) -> str:
    """Where an Idempotency-Key is remembered: for one endpoint and one API key."""
    return hashlib.sha256("\0".join((endpoint_id, key_id, idempotency_key)).encode()).hexdigest()


def bad_header(name: str, message: str) -> NotTaken:
    """400 that names the header at fault."""
    return NotTaken(
        Refusal(
            400,
            "bad_header",
            f"the header {name} cannot be honoured: {message}",
            members={"errors": [{"field": name, "message": message}]},
        )
    )


def _one(name: str, values: list[str]) -> str | None:
    if len(values) > 1:
        raise bad_header(name, "it is there more than once: send one")
    return values[0] if values else None


def _idempotency_key(values: list[str]) -> str | None:
    key = _one("Idempotency-Key", values)
    if key is not None and (_KEY.fullmatch(key) is None or len(key) > KEY_CHARACTERS_MAX):
        raise bad_header("Idempotency-Key", f"write 1 to {KEY_CHARACTERS_MAX} printable ASCII characters")
    return key
