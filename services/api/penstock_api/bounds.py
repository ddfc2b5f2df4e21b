"""Around every request: how large it may be, how many there may be at once, and what is measured."""

import asyncio
import time
from collections.abc import Callable

from prometheus_client import Gauge, Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock_api.domain.problems import BUSY, TOO_LARGE, Problem
from penstock_api.problem_answers import problem_answer

_seconds = Histogram("penstock_api_request_seconds", "Time until the answer begins", ["method", "route", "status"])
_in_hand = Gauge("penstock_api_requests_in_hand", "Requests whose answer has not begun")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


BODY_WAIT_S = 15.0
"""Longest that a request's body may take to arrive."""


class Bounds:
    """ASGI middleware. A request counts until its answer begins, so open streams do not."""

    def __init__(self, app: ASGIApp, *, body_bytes_max: int, requests_at_once: int) -> None:
        self._app = app
        self._body_bytes_max = body_bytes_max
        self._requests_at_once = requests_at_once
        self._in_hand: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            # What is left of the body is not read: the connection ends with the answer.
            await problem_answer(refusal, {"Connection": "close"})(scope, receive, send)
            return
        request = object()
        started_s = time.perf_counter()
        if not _has_body(scope):
            self._count(request, True)

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(request, False)
                _observe(scope, message["status"], time.perf_counter() - started_s)
            await send(message)

        try:
            await self._app(scope, self._bounded(receive, lambda: self._count(request, True)), observed)
        finally:
            self._count(request, False)

    def _refusal(self, scope: Scope) -> Problem | None:
        if len(self._in_hand) >= self._requests_at_once:
            return Problem(BUSY, "Too many requests are being worked on.", retry_after_s=1)
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._body_bytes_max:
            return Problem(TOO_LARGE, self._too_large)
        return None

    def _bounded(self, receive: Receive, arrived: Callable[[], None]) -> Receive:
        """Also bodies that do not say their length end where the bound is, and none may take for ever.

        `arrived` is called when a body is whole: until then a request only waits for its sender, and
        takes nobody's place.
        """
        taken_bytes = 0
        late_s = asyncio.get_running_loop().time() + BODY_WAIT_S
        whole = False

        async def bounded() -> Message:
            nonlocal taken_bytes, whole
            try:
                async with asyncio.timeout_at(None if whole else late_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The request body did not arrive in time.", {"Connection": "close"}) from None
            if not whole and not message.get("more_body", False):
                whole = True
                arrived()
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > self._body_bytes_max:
                raise HTTPException(413, self._too_large, {"Connection": "close"})
            return message

        return bounded

    @property
    def _too_large(self) -> str:
        return f"A request body may have at most {self._body_bytes_max} bytes."

    def _count(self, request: object, is_in_hand: bool) -> None:
        if is_in_hand:
            self._in_hand.add(request)
        else:
            self._in_hand.discard(request)
        _in_hand.set(len(self._in_hand))


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _observe(scope: Scope, status: int, seconds: float) -> None:
    """Labels are bounded: the route's pattern, never the path, and only methods that exist."""
    route = getattr(scope.get("route"), "path", "")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    _seconds.labels(method, route, str(status)).observe(seconds)
