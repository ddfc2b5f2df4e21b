"""What an answer's body says of itself: when its first event came, and how many tokens it took. Pure.

Bodies are looked at as they pass and never held up. The tokens stand in the `usage` object of the OpenAI API's
answers, which ends a JSON body or one of the last events of a stream, so only the end of a body is kept.
"""

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

TAIL_BYTES = 4 * 1024
"""How much of the end of a body is looked at for its usage."""
TOKENS_MAX = 10**9
"""A count beyond this is no count."""

_CONTENT_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*(text/event-stream|application/json)[ \t]*[;\r]", re.IGNORECASE)
_DATA = re.compile(rb"(?:^|[\r\n])(?:\xef\xbb\xbf)?data(?::|\r|\n)")
USAGE_KEY = b'"usage"'
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_decode = json.JSONDecoder().raw_decode


class Usage(NamedTuple):
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int


EVENTS = b"text/event-stream"
JSON = b"application/json"


def measured_media(head: bytes) -> bytes:
    """EVENTS or JSON, as a whole response head announces; empty for all others."""
    found = _CONTENT_TYPE.search(head)
    return found[1].lower() if found is not None else b""


def usage_in(body: bytes | bytearray) -> Usage | None:
    """The last usage object in the end of a body; None when there is none, or it is not as it should be."""
    at = body.rfind(USAGE_KEY, -TAIL_BYTES)
    while at >= 0:
        found = _USAGE.match(body, at)
        if found is not None:
            usage = _read(bytes(body[found.end() :]))
            if usage is not None:
                return usage
        at = body.rfind(USAGE_KEY, max(0, len(body) - TAIL_BYTES), at)
    return None


def _read(text: bytes) -> Usage | None:
    try:
        said, _ = _decode(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens", 0)
    if type(prompt) is int and type(completion) is int and 0 <= prompt <= TOKENS_MAX and 0 <= completion <= TOKENS_MAX:
        return Usage(prompt, completion)
    return None


class Meter:
    """Looks at one body. `waits` until its first event begins; only a stream of events has any."""

    __slots__ = ("_tail", "waits")

    def __init__(self, media: bytes) -> None:
        self.waits = media == EVENTS
        self._tail = bytearray()

    def take(self, pieces: Iterable[bytes]) -> None:
        """The next of the body, without its transfer coding."""
        tail = self._tail
        for piece in pieces:
            tail += piece if len(piece) <= TAIL_BYTES else piece[-TAIL_BYTES:]
            if len(tail) > 2 * TAIL_BYTES:
                del tail[:-TAIL_BYTES]

    def begun(self) -> bool:
        """Whether an event's data has begun; comments are none. Ask after each `take` while it `waits`."""
        self.waits = _DATA.search(self._tail) is None
        return not self.waits

    def usage(self) -> Usage | None:
        """The usage that the end of the body holds."""
        return usage_in(self._tail)
