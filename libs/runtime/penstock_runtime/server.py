"""The ASGI application of a replica: from a request to the model's function and back."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penstock_runtime.calling import Caller, ClientWatch, Receive, Stream
from penstock_runtime.config import PING_PATH
from penstock_runtime.encoding import Encoded, UnencodableResult
from penstock_runtime.failures import ModelError, log_failure
from penstock_runtime.loading import LoadedRoute
from penstock_runtime.log import say
from penstock_runtime.problems import CONTENT_TYPE as PROBLEM_TYPE
from penstock_runtime.problems import Problem
from penstock_runtime.streaming import EVENTS, error_event

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

CLIENT_LEFT_STATUS = 499
"""In the access log only: the client went away, so there was nobody to answer."""

_PONG = b'{"status":"ok"}'
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class ModelServer:
    """Answers the model's routes, and GET /ping with 200. It exists only once the model is loaded."""

    def __init__(self, routes: Sequence[LoadedRoute], concurrency: int, max_body_bytes: int) -> None:
        self._routes: dict[str, dict[str, LoadedRoute]] = {}
        for route in routes:
            self._routes.setdefault(route.path, {})[route.verb] = route
        self._caller = Caller(concurrency)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, as ASGI asks."""
        if scope["type"] != "http":
            return
        if scope["path"] == PING_PATH:
            await _answer_ping(scope, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(scope, send)
        watch = ClientWatch(receive)
        try:
            await self._serve(exchange, receive, watch)
        except asyncio.CancelledError:
            if not watch.client_left:  # the server stops and its grace is over
                await exchange.fail(_stopping())
        except _ClientLeft:
            pass
        except Problem as problem:
            await exchange.fail(problem)
        except (ModelError, UnencodableResult) as failure:
            log_failure(f"{exchange.label} failed (request {exchange.request_id})", failure)
            await exchange.fail(_failure_problem(failure))
        finally:
            watch.stop()
            status = CLIENT_LEFT_STATUS if not exchange.status or watch.client_left else exchange.status
            spent_ms = (time.perf_counter() - started) * 1000
            say(f"{exchange.label} {status} {spent_ms:.1f}ms {exchange.request_id}")

    async def _serve(self, exchange: "_Exchange", receive: Receive, watch: ClientWatch) -> None:
        route = self._find_route(exchange.scope)
        raw = await self._read_body(exchange, receive) if route.verb == "POST" else b""
        values = route.template.arguments(raw)
        slot = await self._caller.take_slot(watch)
        try:
            answer = await self._caller.call(slot, route, values, exchange.accepts_events, watch)
            if isinstance(answer, Encoded):
                await exchange.send_whole(200, answer.body, answer.content_type)
            else:
                watch.start()
                await exchange.send_stream(answer)
        finally:
            slot.release()

    def _find_route(self, scope: Scope) -> LoadedRoute:
        verbs = self._routes.get(scope["path"])
        if verbs is None:
            raise _unknown_path(scope["path"], self._routes)
        route = verbs.get(scope["method"])
        if route is None:
            raise _wrong_verb(scope["method"], scope["path"], verbs)
        return route

    async def _read_body(self, exchange: "_Exchange", receive: Receive) -> bytes:
        """The request's body. A body that is too large is refused as soon as that is known, and never kept."""
        if exchange.header(b"upgrade"):  # the parser takes what follows for another protocol: the body is lost
            raise _upgrade_refused()
        declared = exchange.header(b"content-length")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)
        parts: list[bytes] = []
        size_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientLeft
            parts.append(message.get("body", b""))
            size_bytes += len(parts[-1])
            if size_bytes > self._max_body_bytes:
                raise _too_large(self._max_body_bytes)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


class _ClientLeft(Exception):
    """The client went away before its request was whole."""


class _Exchange:
    """One request being answered: what the log says of it, and what has been sent."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.status = 0
        self._send = send

    @property
    def label(self) -> str:
        """Method and path, as the client wrote them."""
        return f"{self.scope['method']} {self.scope['raw_path'].decode('ascii', 'backslashreplace')}"

    @property
    def request_id(self) -> str:
        """The request's id, else its trace's, else `-`."""
        found = _REQUEST_ID.fullmatch(self.header(b"x-request-id"))
        if found:
            return found[0].decode()
        traced = _TRACEPARENT.fullmatch(self.header(b"traceparent"))
        return traced[1].decode() if traced else "-"

    @property
    def accepts_events(self) -> bool:
        """Whether the client asked for server-sent events."""
        return EVENTS.encode() in self.header(b"accept").lower()

    def header(self, name: bytes) -> bytes:
        """The value of a header of the request, or nothing."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return b""

    async def send_whole(
        self, status: int, body: bytes, content_type: str, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Sends a whole answer."""
        await self._start(status, content_type, [("content-length", str(len(body))), *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def send_stream(self, stream: Stream) -> None:
        """Sends a stream, chunk by chunk as they come. It is closed at the end, whatever the end."""
        try:
            content_type = await stream.open()
            await self._start(200, content_type, [("cache-control", "no-store")])
            try:
                while (part := await stream.next_part()) is not None:
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
                    await asyncio.sleep(0)  # a model that never waits must not keep the loop from all others
            except (ModelError, UnencodableResult) as failure:
                if content_type == EVENTS:
                    event = error_event(_failure_problem(failure).encode())
                    await self._send({"type": "http.response.body", "body": event, "more_body": True})
                raise
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            await stream.close()

    async def fail(self, problem: Problem) -> None:
        """Answers with a problem. Once a stream has begun it is too late for that: it stays without its proper
        end, which closes the connection, so that the client cannot take it for complete."""
        if self.status == 0:
            await self.send_whole(problem.status, problem.encode(), PROBLEM_TYPE, problem.headers)

    async def _start(self, status: int, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self.status = status
        encoded = [(name.encode(), value.encode()) for name, value in (("content-type", content_type), *headers)]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})


async def _answer_ping(scope: Scope, send: Send) -> None:
    exchange = _Exchange(scope, send)
    if scope["method"] == "GET":
        await exchange.send_whole(200, _PONG, "application/json")
    else:
        await exchange.fail(_wrong_verb(scope["method"], PING_PATH, ["GET"]))


def _unknown_path(path: str, routes: dict[str, dict[str, LoadedRoute]]) -> Problem:
    known = ", ".join(f"{verb} {known_path}" for known_path, verbs in routes.items() for verb in verbs)
    shown = path if len(path) <= 200 else f"{path[:199]}…"
    return Problem(404, "unknown_path", "There is no such route", f"No route {shown}; this endpoint answers {known}.")


def _wrong_verb(verb: str, path: str, allowed: Sequence[str] | dict[str, LoadedRoute]) -> Problem:
    listed = ", ".join(allowed)
    detail = f"{path} does not answer {verb}; use {listed}."
    return Problem(
        405, "method_not_allowed", "The route does not answer this method", detail, headers=[("allow", listed)]
    )


def _too_large(max_bytes: int) -> Problem:
    return Problem(413, "body_too_large", "The body is too large", f"The body must have at most {max_bytes} bytes.")


def _upgrade_refused() -> Problem:
    return Problem(
        400,
        "upgrade_refused",
        "The replica speaks HTTP/1.1 only",
        "The replica does not change protocols: send the request without the Upgrade header.",
    )


def _stopping() -> Problem:
    return Problem(503, "stopping", "The replica is stopping", "The replica stopped before the model had answered.")


def _failure_problem(failure: ModelError | UnencodableResult) -> Problem:
    if isinstance(failure, ModelError):
        return Problem(500, "model_error", "The model raised an exception", str(failure))
    return Problem(500, "unencodable_result", "The model's result cannot be sent", str(failure))
