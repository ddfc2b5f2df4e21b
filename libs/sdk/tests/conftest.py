"""A scripted transport, a clock that only moves when told, and both clients on them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from penstock import AsyncPenstock, Penstock, RetryPolicy

Reply: TypeAlias = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A streamed body in the given pieces; an exception among them breaks the connection there."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Script:
    """Replies given one after the other; every request is kept. It is an error to ask for more."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[httpx.Request] = []

    def add(self, *replies: Reply) -> None:
        self.replies += replies

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert self.replies, f"nothing is scripted for {request.method} {request.url}"
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx.Response) else reply(request)

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests if request.content]


class Clock:
    """Time passes only by sleeping, and every sleep is kept."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Platform:
    """One kind of client on the script, used the same way whichever kind it is."""

    def __init__(self, kind: str, script: Script, clock: Clock) -> None:
        self.kind, self.script, self.clock = kind, script, clock
        self.random = 0.5

    def _client(self, **options: Any) -> Any:
        common = {
            "api_url": "http://api.test",
            "api_key": "psk_test",
            "random": lambda: self.random,
            "monotonic": self.clock.monotonic,
            "transport": httpx.MockTransport(self.script),
            **options,
        }
        if self.kind == "awaiting":
            return AsyncPenstock(**common, sleep=self.clock.sleep_async)
        return Penstock(**common, sleep=self.clock.sleep)

    def run(self, use: Callable[[Any], Any], **options: Any) -> Any:
        """The result of `use(client)`: awaited if it must be, and a list if it is an iterator."""
        if self.kind == "blocking":
            with self._client(**options) as client:
                result = use(client)
                return list(result) if isinstance(result, Iterator) else result

        async def use_async() -> Any:
            async with self._client(**options) as client:
                result = use(client)
                if isinstance(result, AsyncIterator):
                    return [item async for item in result]
                return await result

        return asyncio.run(use_async())

    def on_endpoint(self, use: Callable[[Any], Any], **options: Any) -> Any:
        """The same for `use(endpoint)`; the script must begin with the endpoint."""
        if self.kind == "blocking":
            with self._client(**options) as client:
                result = use(client.endpoints.get(ENDPOINT_ID))
                return list(result) if isinstance(result, Iterator) else result

        async def use_async() -> Any:
            async with self._client(**options) as client:
                result = use(await client.endpoints.get(ENDPOINT_ID))
                if isinstance(result, AsyncIterator):
                    return [item async for item in result]
                return await result

        return asyncio.run(use_async())


ENDPOINT_ID = "ep_01kc4v5s8mf7q9x2t6w3y1z0ab"


def endpoint_json(**changes: Any) -> dict[str, Any]:
    """An endpoint as the API shows it."""
    routes = [{"verb": "POST", "path": "/predict", "file": "predict", "function": "predict", "body": []}]
    return {
        "id": ENDPOINT_ID,
        "name": "Iris",
        "slug": "iris",
        "workspace": "default",
        "organization_id": "org_1",
        "state": "queued",
        "reason": "",
        "position": None,
        "spec": {
            "name": "Iris",
            "workspace": "default",
            "source": {"kind": "git", "uri": "https://x.test/iris.git", "ref": "HEAD"},
            "routes": [*routes, {"verb": "GET", "path": "/labels", "file": "predict", "function": "labels"}],
            "public": False,
        },
        "source": {"uri": "https://x.test/iris.git", "ref": "HEAD", "commit": "a" * 40, "requirements": ""},
        "url": "http://gateway.test/e/default/iris",
        "host_url": "http://iris.default.localhost",
        "price_micros_per_hour": 450_000,
        "currency": "USD",
        "replicas": [],
        "log_tail": None,
        "example_command": 'curl -H "Authorization: Bearer $PENSTOCK_API_KEY" http://gateway.test/e/default/iris',
        "created_at": "2026-03-01T12:00:00Z",
        "updated_at": "2026-03-01T12:00:00Z",
        "started_at": None,
        "a_field_of_a_newer_platform": {"ignored": True},
        **changes,
    }


def event_json(number: int, phase: str, message: str = "") -> dict[str, Any]:
    return {
        "id": number,
        "at": f"2026-03-01T12:00:{number:02}Z",
        "type": f"endpoint.{phase}",
        "phase": phase,
        "message": message,
        "replica_id": None,
    }


def sse(kind: str, *items: dict[str, Any]) -> bytes:
    return "".join(f"id: {item['id']}\nevent: {kind}\ndata: {json.dumps(item)}\n\n" for item in items).encode()


def streamed(*pieces: bytes | Exception) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(*pieces))


def reply(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def page(*items: Any, next_cursor: str | None = None) -> httpx.Response:
    return reply(200, {"items": list(items), "next_cursor": next_cursor})


def problem(status: int, code: str, detail: str = "No.", errors: Any = (), **headers: str) -> httpx.Response:
    return reply(status, {"code": code, "detail": detail, "status": status, "errors": list(errors)}, **headers)


@pytest.fixture
def make() -> Any:
    """The makers of replies, by name."""
    from types import SimpleNamespace

    return SimpleNamespace(
        endpoint=endpoint_json,
        event=event_json,
        sse=sse,
        streamed=streamed,
        reply=reply,
        page=page,
        problem=problem,
        Pieces=Pieces,
        endpoint_id=ENDPOINT_ID,
        once=RetryPolicy(attempts=1),
    )


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["blocking", "awaiting"])
def platform(request: pytest.FixtureRequest, script: Script, clock: Clock) -> Platform:
    return Platform(request.param, script, clock)
