"""The HTTP response of a stream of server-sent events."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from penstock_api.outage import OUTAGES

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"


class EventStream(Response):
    """Sends the parts as they come, and closes their generator however the stream ends."""

    media_type = MEDIA_TYPE

    def __init__(self, parts: AsyncGenerator[bytes, None], place: Callable[[], AbstractContextManager[None]]) -> None:
        """`place` is held while the stream lasts; its Problem, when there is none left, is the answer instead."""
        self._parts = parts
        self._place = place
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place():
            async with aclosing(self._parts):
                response = StreamingResponse(self._until_outage(), media_type=MEDIA_TYPE)
                response.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
                await response(scope, receive, send)

    async def _until_outage(self) -> AsyncGenerator[bytes, None]:
        """When the database goes away the stream ends, and the client resumes it where it broke off."""
        try:
            async for part in self._parts:
                yield part
        except OUTAGES as error:
            log.warning("a stream ended early", extra={"error": repr(error)})
