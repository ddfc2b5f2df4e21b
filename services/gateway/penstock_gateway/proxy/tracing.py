"""Request ids and W3C trace context (https://www.w3.org/TR/trace-context/)."""

import random
import re

_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
_BATCH = 256

_ids: list[bytes] = []


def new_request_id() -> bytes:
    """128 random bits in hexadecimal. They only have to differ, not to be unguessable."""
    if not _ids:
        # Made in batches, which is cheaper than one by one.
        digits = random.randbytes(16 * _BATCH).hex().encode()
        _ids.extend([digits[at : at + 32] for at in range(0, len(digits), 32)])
    return _ids.pop()


def continued(traceparent: bytes) -> bytes | None:
    """A client's `traceparent` if it is valid, in version 00; else None."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == b"00" and match[3] is not None):
        return None
    return b"00-" + match[2]
