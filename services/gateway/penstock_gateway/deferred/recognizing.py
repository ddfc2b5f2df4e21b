"""Which requests are about answering later: looked at for every request, so short. Pure."""

from penstock_common.contracts.endpoint import INFERENCES_PATH
from penstock_gateway.deferred import prefer

_PREFIX = INFERENCES_PATH.encode()


def is_inquiry(target: bytes) -> bool:
    """Whether a path and query below an endpoint's URL is about what is kept for it."""
    return target.startswith(_PREFIX) and target[len(_PREFIX) : len(_PREFIX) + 1] in {b"", b"/", b"?"}


def is_deferred(prefer_header: bytes | None) -> bool:
    """Whether a Prefer header asks for an answer later."""
    return prefer_header is not None and prefer.asked(prefer_header.decode("latin-1")) is not None
