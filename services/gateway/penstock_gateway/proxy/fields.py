"""Header fields that the gateway treats in some way of its own. Pure."""

import re
from functools import lru_cache

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
FORGEABLE = frozenset({b"forwarded", b"proxy", b"x-real-ip", b"x-request-id", b"true-client-ip"})
"""What a client could claim about itself; the gateway says it instead, or nobody does. `Proxy` would
become the variable HTTP_PROXY in a CGI-like replica."""
FORGEABLE_PREFIXES = (b"x-forwarded-", b"x-penstock-")
OWN = frozenset({b"authorization", b"content-length", b"expect", b"host", b"traceparent", b"tracestate"})
NEVER_IN_TRAILERS = frozenset(
    {b"cookie", b"set-cookie", b"content-encoding", b"content-type", b"content-range", b"range"}
)


@lru_cache(maxsize=4096)
def passes(key: bytes) -> bool:
    """Whether a client's field goes to the replica as it came. `key` is the name in lower case.

    `_` counts as `-`: CGI-like servers cannot tell them apart, so `X_Forwarded_For` would forge.
    """
    key = key.replace(b"_", b"-")
    return not (key in OWN or key in HOP_BY_HOP or key in FORGEABLE or key.startswith(FORGEABLE_PREFIXES))


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case."""
    return [token for token in (part.strip(b" \t").lower() for part in value.split(b",")) if token]


def without(lines: list[bytes], keys: set[bytes]) -> list[bytes]:
    """The field lines whose name, in lower case, is not among `keys`."""
    return [line for line in lines if line.partition(b":")[0].lower() not in keys]


def passing_trailers(trailers: list[bytes]) -> list[bytes]:
    """The trailers that may go on: never framing, routing or credentials."""
    keys = [trailer.partition(b":")[0].lower() for trailer in trailers]
    return [
        trailer for trailer, key in zip(trailers, keys, strict=True) if passes(key) and key not in NEVER_IN_TRAILERS
    ]
