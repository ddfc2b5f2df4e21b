"""Calls the model's functions: plain ones in threads, async ones on the loop, at most `concurrency` at a time."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from penstock_runtime.encoding import Encoded, encode
from penstock_runtime.failures import failure_of, guarded, log_failure
from penstock_runtime.loading import LoadedRoute
from penstock_runtime.streaming import AsyncStream, ThreadStream
from penstock_runtime.threads import Slot, Slots, Threads

Receive = Callable[[], Awaitable[dict[str, Any]]]
Stream = AsyncStream | ThreadStream

WATCH_AFTER_S = 0.01


class ClientWatch:
    """Cancels the task of a request when its client goes away.

    It begins to look only after WATCH_AFTER_S: most calls are over by then, and looking costs a task.
    """

    def __init__(self, receive: Receive) -> None:
        self.client_left = False
        self._receive = receive
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watches over the current task from now on. The request's body must have been read."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WATCH_AFTER_S, self._look, asyncio.current_task())

    def stop(self) -> None:
        """Watches no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _look(self, request: "asyncio.Task[Any] | None") -> None:
        self._watching = asyncio.create_task(self._watch(request))

    async def _watch(self, request: "asyncio.Task[Any] | None") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        if request is not None:
            request.cancel()


class Caller:
    """Runs the functions of a replica's routes."""

    def __init__(self, concurrency: int) -> None:
        self._slots = Slots(concurrency)
        self._threads = Threads()

    async def take_slot(self, watch: ClientWatch) -> Slot:
        """Leave for one call; who takes it releases it. Raises Problem 503 if too many wait already."""
        if slot := self._slots.take_now():
            return slot
        watch.start()
        return await self._slots.take()

    async def call(
        self, slot: Slot, route: LoadedRoute, values: list[Any], accepts_events: bool, watch: ClientWatch
    ) -> Encoded | Stream:
        """The function's result, encoded, or its stream, not yet opened. Raises ModelError, UnencodableResult."""
        if route.positional:
            work = partial(route.function, *values)
        else:
            work = partial(route.function, **dict(zip(route.template.names, values, strict=True)))
        if route.on_loop:
            watch.start()
            result = _begin(work)
        else:
            result = await self._in_thread(slot, work, accepts_events)
            if isinstance(result, (Encoded, ThreadStream)):
                return result
            watch.start()
        if inspect.isawaitable(result):
            result = await guarded(result)
        if isinstance(result, AsyncIterator):
            return AsyncStream(result, accepts_events)
        if isinstance(result, Iterator):
            stream = await self._in_thread(slot, partial(iter, result), accepts_events)
            assert isinstance(stream, ThreadStream)
            return stream
        return _encode(result)

    def _in_thread(self, slot: Slot, work: Callable[[], Any], accepts_events: bool) -> "asyncio.Future[Any]":
        """What a function comes to in a thread: Encoded, a ThreadStream, or something that the loop must await.

        The thread holds the slot until it is done, even if the request has ended before.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def job() -> None:
            outcome = _run(work)
            if isinstance(outcome, Iterator):
                stream = ThreadStream(loop, accepts_events)
                _tell(loop, _deliver, future, stream)
                stream.pump(outcome)
                _tell(loop, self._finish, slot)
            else:
                _tell(loop, self._deliver_last, future, outcome, slot)

        self._threads.run(job)
        slot.hold()
        return future

    def _deliver_last(self, future: "asyncio.Future[Any]", outcome: object, slot: Slot) -> None:
        self._finish(slot)
        _deliver(future, outcome)

    def _finish(self, slot: Slot) -> None:
        self._threads.finished()
        slot.release()


def _run(work: Callable[[], Any]) -> object:
    """In a thread: the function's result, encoded where it can be, or the failure."""
    try:
        result = work()
        if isinstance(result, (Iterator, AsyncIterator, Awaitable)):
            return result
        return encode(result)
    except BaseException as error:
        return failure_of(error)


def _begin(work: Callable[[], Any]) -> Any:
    """On the loop: the coroutine or async generator of an async function."""
    try:
        return work()
    except BaseException as error:
        raise failure_of(error) from error


def _encode(result: object) -> Encoded:
    try:
        return encode(result)
    except Exception as error:
        raise failure_of(error) from error


def _deliver(future: "asyncio.Future[Any]", outcome: object) -> None:
    """On the loop: hands over what a thread came to, if the request still waits for it."""
    if not future.done():
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    elif isinstance(outcome, ThreadStream):
        outcome.leave()
    elif isinstance(outcome, Exception):
        log_failure("A call failed after its request had ended", outcome)


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: the process is leaving
        loop.call_soon_threadsafe(callback, *arguments)
