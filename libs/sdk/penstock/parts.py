"""What an endpoint answered, from bytes to Python values: whole, or part by part."""

import codecs
import json
from collections.abc import Iterator
from typing import Any

from penstock.context import EVENT_STREAM, JSON
from penstock.effects import Response
from penstock.errors import ApiError, UnexpectedAnswer, problem_error
from penstock.sse import EventParser

JSON_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/json-lines"})


def is_json(media_type: str) -> bool:
    return media_type == JSON or media_type.endswith("+json")


def decode_answer(response: Response) -> Any:
    """JSON as Python values, text as str, all else as bytes; None for an empty answer."""
    if not response.body:
        return None
    if is_json(response.media_type):
        return _decoded(response.body)
    if response.media_type in JSON_LINES or response.media_type == EVENT_STREAM:
        decoder = PartDecoder(response.media_type)
        return [*decoder.feed(response.body), *decoder.feed(b"")]
    return response.text if response.media_type.startswith("text/") else response.body


class PartDecoder:
    """Parts of a streamed answer from its bytes; feed it b"" at the end."""

    def __init__(self, media_type: str) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._events = EventParser()
        self._rest = b""
        if media_type == EVENT_STREAM:
            self.feed = self._feed_events
        elif media_type in JSON_LINES:
            self.feed = self._feed_lines
        elif is_json(media_type):
            self.feed = self._feed_whole
        elif media_type.startswith("text/"):
            self.feed = self._feed_text
        else:
            self.feed = self._feed_bytes

    def _feed_events(self, chunk: bytes) -> Iterator[Any]:
        """Raises ApiError when the model failed in the middle of its answer."""
        for event in self._events.feed(chunk):
            if event.event == "error":
                raise _failed(event.data)
            yield _value(event.data)

    def _feed_lines(self, chunk: bytes) -> Iterator[Any]:
        *lines, self._rest = (self._rest + (chunk or b"\n")).split(b"\n")
        for line in lines:
            if line.strip():
                yield _decoded(line)

    def _feed_whole(self, chunk: bytes) -> Iterator[Any]:
        self._rest += chunk
        if not chunk and self._rest:
            yield _decoded(self._rest)

    def _feed_text(self, chunk: bytes) -> Iterator[str]:
        text = self._text.decode(chunk, final=not chunk)
        if text:
            yield text

    def _feed_bytes(self, chunk: bytes) -> Iterator[bytes]:
        if chunk:
            yield chunk


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise UnexpectedAnswer(f"The endpoint answered with JSON that is not valid ({error}).", "") from error


def _value(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def _failed(data: str) -> ApiError:
    """The error of an `event: error`, whose data is a problem."""
    problem = _value(data)
    return problem_error(problem if isinstance(problem, dict) else {"detail": data}, status=500, at_endpoint=True)
