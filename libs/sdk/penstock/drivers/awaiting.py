"""The driver that awaits."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, TypeVar

import httpx

from penstock.context import Context
from penstock.drivers.shared import LIMITS, LOOPBACK, arguments_of, failure_of, response_of
from penstock.effects import Done, Emit, Failure, Open, Read, Request, Response, Send, Sleep, Stream, Transfer, advance

T = TypeVar("T")
E = TypeVar("E")


class AsyncSession:
    """One pool of connections, and the context of the flows that use it. For one event loop."""

    def __init__(
        self,
        context: Context,
        sleep: Callable[[float], Awaitable[None]],
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.context = context
        self._sleep = sleep
        self._http = httpx.AsyncClient(transport=transport, mounts=LOOPBACK, limits=LIMITS)

    async def run(self, flow: Generator[Transfer | Emit[E], Any, T], on_item: Callable[[E], object] | None = None) -> T:
        """The result of a flow; each item it emits is given to `on_item`, which may be a coroutine function."""
        exchange = _Exchange(self._http, self._sleep)
        outcome: object = None
        try:
            while not isinstance(effect := advance(flow, outcome), Done):
                if not isinstance(effect, Emit):
                    outcome = await exchange.perform(effect)
                    continue
                outcome = None
                if on_item is not None and inspect.isawaitable(pending := on_item(effect.item)):
                    await pending
            result: T = effect.result
            return result
        finally:
            await exchange.close()

    async def iterate(self, stream: Stream[T]) -> AsyncIterator[T]:
        """The items of a stream, as they are taken. Closing the iterator closes its connection."""
        exchange = _Exchange(self._http, self._sleep)
        outcome: object = None
        try:
            while not isinstance(effect := advance(stream, outcome), Done):
                if isinstance(effect, Emit):
                    outcome = None
                    yield effect.item
                else:
                    outcome = await exchange.perform(effect)
        finally:
            await exchange.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


class _Exchange:
    """Performs the effects of one flow; holds the answer that it is reading."""

    def __init__(self, http: httpx.AsyncClient, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._http = http
        self._sleep = sleep
        self._opened: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Transfer) -> object:
        match effect:
            case Send(request):
                return await self._send(request)
            case Open(request):
                return await self._open(request)
            case Read():
                return await self._read()
            case Sleep(seconds):
                await self._sleep(seconds)
                return None

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def _send(self, request: Request) -> Response | Failure:
        try:
            response = await self._http.send(self._http.build_request(**arguments_of(request)))
        except httpx.RequestError as error:
            return failure_of(error)
        return response_of(response, response.content)

    async def _open(self, request: Request) -> Response | Failure:
        await self.close()
        try:
            response = await self._http.send(self._http.build_request(**arguments_of(request)), stream=True)
            if response.status_code >= 400:
                return response_of(response, await response.aread())
        except httpx.RequestError as error:
            return failure_of(error)
        self._opened, self._chunks = response, response.aiter_bytes()
        return response_of(response)

    async def _read(self) -> bytes | Failure:
        if self._chunks is None:
            return b""
        try:
            return await anext(self._chunks, b"")
        except httpx.RequestError as error:
            return failure_of(error)
