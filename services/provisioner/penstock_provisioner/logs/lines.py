"""Cutting output into lines that are safe to store and to show. Pure."""

import re
from dataclasses import dataclass

LINE_BYTES_MAX = 16 * 1024

# Progress bars return to the start of the line instead of ending it. A return at the very end may be
# half of a \r\n, so it waits for the next byte.
_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*[mK]")
# Everything that moves a cursor, ends a line for somebody, or turns the direction of writing.
_ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if code != ord("\t")
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a line is, or a part of one that is too long: relative to what was cut, without its end."""

    offset: int
    size: int

    def text(self, data: bytes) -> str:
        """The line, from the data that was cut."""
        return printable(data[self.offset : self.offset + self.size])


def cut(data: bytes, *, final: bool) -> tuple[list[Piece], int]:
    """The lines in `data`, and how many bytes they take with their ends.

    What follows the last line end is left for later, unless it is too long for a line or `final`.
    """
    pieces: list[Piece] = []
    start = 0
    for match in _END.finditer(data):
        # A bare return at the start of a line ends nothing: bars draw over the same line again.
        if match.start() > start or match[0] != b"\r":
            start = _cut_long(data, start, match.start(), pieces)
            pieces.append(Piece(start, match.start() - start))
        start = match.end()
    start = _cut_long(data, start, len(data), pieces)
    if final and start < len(data):
        pieces.append(Piece(start, len(data) - start))
        start = len(data)
    return pieces, start


def printable(data: bytes) -> str:
    """Text without colours; what is no text, or would move a terminal's cursor, is shown as an escape."""
    return _COLOUR.sub("", data.decode("utf-8", "replace")).translate(_ESCAPES)


def tail(data: bytes, *, lines_max: int, line_chars_max: int, chars_max: int) -> list[str]:
    """The last lines that are not empty, each cut, together at most `chars_max` characters."""
    pieces, _ = cut(data, final=True)
    found: list[str] = []
    left = chars_max
    for piece in reversed(pieces):
        text = piece.text(data).rstrip()[:line_chars_max]
        if not text:
            continue
        if len(found) == lines_max or len(text) > left:
            break
        found.append(text)
        left -= len(text) + 1
    return found[::-1]


def _cut_long(data: bytes, start: int, end: int, pieces: list[Piece]) -> int:
    """Add pieces until what is left up to `end` fits into a line; returns where that begins."""
    while end - start > LINE_BYTES_MAX:
        size = _whole_characters(data, start, LINE_BYTES_MAX)
        pieces.append(Piece(start, size))
        start += size
    return start


def _whole_characters(data: bytes, start: int, size: int) -> int:
    """At most `size`, so that no UTF-8 character is cut in two."""
    for shorter in range(4):
        if data[start + size - shorter] & 0xC0 != 0x80:
            return size - shorter
    return size
