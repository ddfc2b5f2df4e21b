"""Server-sent events, parsed as the HTML standard says (section 9.2.6), from bytes to events."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_CHARS = 8 * 1024 * 1024
"""Most text held for one event; a server that sends more is not speaking this protocol."""

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `id` is the last id the stream gave, which a client resumes from."""

    data: str
    event: str = "message"
    id: str = ""


class EventParser:
    """Feed it bytes as they come, in pieces of any size; it yields whole events.

    One parser serves one connection: an event cut off by its end is dropped, as the standard says.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        """Wait before reconnecting, when the server named one."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._begun = False
        self._after_cr = False
        self._event = ""
        self._id = last_id
        self._data: list[str] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Events that this chunk completes. Raises ValueError when one grows beyond all bounds."""
        for line in self._lines(self._decoder.decode(chunk)):
            event = self._take(line)
            if event is not None:
                yield event

    def _lines(self, text: str) -> Iterator[str]:
        if not text:
            return
        if not self._begun:
            text, self._begun = text.removeprefix("\ufeff"), True
        if self._after_cr:
            text = text.removeprefix("\n")  # the second half of a \r\n that two chunks share
        self._after_cr = text.endswith("\r")
        text = self._rest + text
        start = 0
        for end in _LINE_END.finditer(text):
            yield text[start : end.start()]
            start = end.end()
        self._rest = text[start:]
        self._bound(len(self._rest))

    def _bound(self, more: int) -> None:
        if self._held + more > MAX_EVENT_CHARS:
            raise ValueError(f"the server sent an event of more than {MAX_EVENT_CHARS} characters")

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._bound(len(value))
            self._held += len(value) + 1
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._held = [], "", 0
        self.last_id = self._id
        if not data:
            return None
        return ServerEvent(data="\n".join(data), event=event or "message", id=self.last_id)
