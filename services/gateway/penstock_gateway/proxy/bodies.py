"""Body framing: the chunked transfer coding, read strictly and written plainly. Pure."""

import re

SIZE_LINE_BYTES_MAX = 256
TRAILER_BYTES_MAX = 8 * 1024
LAST_CHUNK = b"0\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED))
_TRAILER = re.compile(rb"%b:[\t\x20-\x7e\x80-\xff]*" % _TOKEN)

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class BadChunk(ValueError):
    """The body is not in the chunked coding as RFC 9112, section 7.1 defines it."""


class ChunkedDecoder:
    """Takes a chunked body as it arrives.

    Lines end in CR LF and nothing else; a size is plain hexadecimal; extensions are read past.
    `total` counts the payload in bytes; `trailers` holds the trailer lines once `done`.
    """

    __slots__ = ("_carry", "_left", "_state", "_trailer_bytes", "total", "trailers")

    def __init__(self) -> None:
        self.total = 0
        self.trailers: list[bytes] = []
        self._state = _SIZE
        self._left = 0
        self._carry = b""
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The payload in `data`, in pieces, and what follows the end of the body.

        Raises BadChunk.
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and self._state != _DONE:
            if self._state == _DATA:
                at = self._take_payload(data, at, pieces)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:])
                at = len(data)
            else:
                self._take_line(data[at:end])
                at = end + 2
        return pieces, data[at:]

    def _take_payload(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        end = min(at + self._left, len(data))
        pieces.append(data[at:end])
        self._left -= end - at
        self.total += end - at
        if not self._left:
            self._state = _DATA_END
        return end

    def _take_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None or len(line) > SIZE_LINE_BYTES_MAX:
                raise BadChunk("a chunk size is not plain hexadecimal, or its extension is not valid")
            self._left = int(match[1], 16)
            self._state = _DATA if self._left else _TRAILERS
        elif self._state == _DATA_END:
            if line:
                raise BadChunk("a chunk is longer than its size says")
            self._state = _SIZE
        elif not line:
            self._state = _DONE
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > TRAILER_BYTES_MAX:
                raise BadChunk("the trailers are too long")
            if _TRAILER.fullmatch(line) is None:
                raise BadChunk("a trailer is not of the form name: value")
            self.trailers.append(line)

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a line; refuse at once what no line can begin with."""
        longest = {_SIZE: SIZE_LINE_BYTES_MAX, _DATA_END: 1}.get(self._state, TRAILER_BYTES_MAX)
        if len(rest) > longest or b"\n" in rest or b"\r" in rest[:-1] or (self._state == _DATA_END and rest != b"\r"):
            raise BadChunk("a line of the chunked body does not end in CR LF")
        self._carry = rest


def encode_chunks(pieces: list[bytes]) -> bytes:
    """The pieces as chunks. Empty ones are left out: an empty chunk would end the body."""
    return b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece])


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n%b\r\n\r\n" % b"\r\n".join(trailers)
