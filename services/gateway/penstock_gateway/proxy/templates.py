"""Recognising a head that was seen before.

On a busy connection most heads equal the one before in every byte, except for the digits of
Content-Length and, where clients trace, the value of traceparent. Such a head needs no parsing: what was
worked out for its twin holds for it too. Pure.
"""

import re
from typing import NamedTuple

from penstock_gateway.proxy.tracing import continued

_GAP = re.compile(rb"\r\n(content-length|traceparent):[ \t]*([^\r\n]*)(?=\r\n)", re.IGNORECASE)
_DIGITS_MAX = 15


class Found(NamedTuple):
    """A recognised head: where it ends, the digits of its Content-Length, and its trace as it is continued
    (each empty when there is none)."""

    end: int
    digits: bytes
    trace: bytes


def worth_making(missed: int) -> bool:
    """Whether to make a template of the head that was not recognised, the `missed`th in a row: of the
    first, second, fourth and so on. Who never sends equal heads pays next to nothing for templates."""
    return missed & (missed - 1) == 0


class HeadTemplate:
    """A whole head, up to and with its empty line, with gaps for its length and its trace."""

    __slots__ = ("_first", "_found", "_raw", "_rest", "_start")

    def __init__(self, raw: bytes, first: bytes, rest: list[tuple[bool, bytes]], found: Found) -> None:
        self._raw = raw
        self._first = first
        self._start = len(first)
        self._rest = rest
        """For each gap, whether it holds the length, and what follows it."""
        self._found = found

    @classmethod
    def of(cls, raw: bytes, *, sized: bool, traced: bool = False) -> "HeadTemplate | None":
        """The template of a valid head that has a Content-Length, or a valid trace, if it says so; None
        when they are not written in the common way."""
        gaps = [gap for gap in _GAP.finditer(raw) if traced or gap[1].lower() != b"traceparent"]
        if len(gaps) != sized + traced:
            return None
        starts = [gap.start(2) for gap in gaps]
        ends = [gap.end(2) for gap in gaps]
        literals = [raw[end:start] for end, start in zip([0, *ends], [*starts, len(raw)], strict=True)]
        rest = [(gap[1].lower() == b"content-length", literal) for gap, literal in zip(gaps, literals[1:], strict=True)]
        template = cls(raw, literals[0], rest, Found(len(raw), b"", b""))
        found = template._read(raw)
        if found is None:
            return None
        template._found = found
        return template

    def match(self, data: bytes) -> Found | None:
        """What the head at the beginning of `data` says, or None when another head is there, or an
        unfinished one."""
        if data.startswith(self._raw):
            return self._found
        if not self._rest or not data.startswith(self._first):
            return None
        return self._read(data)

    def _read(self, data: bytes) -> Found | None:
        at = self._start
        digits = trace = b""
        for is_length, literal in self._rest:
            end = data.find(b"\r", at)
            value = data[at:end]
            if not data.startswith(literal, end):
                return None
            if is_length:
                if not value.isdigit() or len(value) > _DIGITS_MAX:
                    return None
                digits = value
            else:
                trace = continued(value) or b""
                if not trace:
                    return None
            at = end + len(literal)
        return Found(at, digits, trace)
