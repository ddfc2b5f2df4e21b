"""The driver that blocks."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import httpx

from penstock.context import Context
from penstock.drivers.shared import LIMITS, LOOPBACK, arguments_of, failure_of, response_of
from penstock.effects import Done, Emit, Failure, Open, Read, Request, Response, Send, Sleep, Stream, Transfer, advance

T = TypeVar("T")
E = TypeVar("E")


class Session:
    """One pool of connections, and the context of the flows that use it. Safe to share among threads."""

    def __init__(self, context: Context, sleep: Callable[[float], None], transport: httpx.BaseTransport | None) -> None:
        self.context = context
        self._sleep = sleep
        self._http = httpx.Client(transport=transport, mounts=LOOPBACK, limits=LIMITS)

    def run(self, flow: Generator[Transfer | Emit[E], Any, T], on_item: Callable[[E], object] | None = None) -> T:
        """The result of a flow; each item it emits is given to `on_item`."""
        exchange = _Exchange(self._http, self._sleep)
        outcome: object = None
        try:
            while not isinstance(effect := advance(flow, outcome), Done):
                if not isinstance(effect, Emit):
                    outcome = exchange.perform(effect)
                    continue
                outcome = None
                if on_item is not None:
                    on_item(effect.item)
            result: T = effect.result
            return result
        finally:
            exchange.close()

    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        """The items of a stream, as they are taken. Closing the iterator closes its connection."""
        exchange = _Exchange(self._http, self._sleep)
        outcome: object = None
        try:
            while not isinstance(effect := advance(stream, outcome), Done):
                if isinstance(effect, Emit):
                    outcome = None
                    yield effect.item
                else:
                    outcome = exchange.perform(effect)
        finally:
            exchange.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


class _Exchange:
    """Performs the effects of one flow; holds the answer that it is reading."""

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None]) -> None:
        self._http = http
        self._sleep = sleep
        self._opened: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, effect: Transfer) -> object:
        match effect:
            case Send(request):
                return self._send(request)
            case Open(request):
                return self._open(request)
            case Read():
                return self._read()
            case Sleep(seconds):
                return self._sleep(seconds)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _send(self, request: Request) -> Response | Failure:
        try:
            response = self._http.send(self._http.build_request(**arguments_of(request)))
        except httpx.RequestError as error:
            return failure_of(error)
        return response_of(response, response.content)

    def _open(self, request: Request) -> Response | Failure:
        self.close()
        try:
            response = self._http.send(self._http.build_request(**arguments_of(request)), stream=True)
            if response.status_code >= 400:
                return response_of(response, response.read())
        except httpx.RequestError as error:
            return failure_of(error)
        self._opened, self._chunks = response, response.iter_bytes()
        return response_of(response)

    def _read(self) -> bytes | Failure:
        try:
            return next(self._chunks, b"")
        except httpx.RequestError as error:
            return failure_of(error)
