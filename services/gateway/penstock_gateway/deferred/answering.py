"""The upstream of an exchange that the gateway answers itself: shared by those who keep and those who ask.

To a client connection this is like the connection to a replica: it is given the body as it arrives, is paused
when the client reads too slowly, and is dropped when the client leaves.
"""

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from time import monotonic
from typing import Any

from penstock_common.contracts.inference import FinishedInference, InferenceResult, OpenInference
from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.accepting import Accepting, Caller
from penstock_gateway.deferred.board import Board
from penstock_gateway.deferred.budget import Budget
from penstock_gateway.deferred.keeping import Keep, Lost, Unkept
from penstock_gateway.deferred.requests import NotTaken
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.deferred.webhooks import WebhookSender
from penstock_gateway.domain import Refusal
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.problems import response
from penstock_gateway.proxy.response_head import BODILESS, STATUS_LINES, status_line

log = logging.getLogger(__name__)

POLL_AFTER_S = 1
_JSON = b"application/json"
CANNOT_KEEP = Refusal(
    503,
    "cannot_keep",
    "asynchronous requests cannot be kept or looked up at the moment: try again, or send the request without "
    "`Prefer: respond-async`",
    retry_after_s=5,
)
RESULT_GONE = Refusal(410, "result_gone", "the result is no longer there")


class Desk:
    """What all of them work with."""

    def __init__(
        self,
        *,
        keep: Keep,
        board: Board,
        accepting: Accepting,
        sender: WebhookSender,
        budget: Budget,
        settings: DeferredSettings,
        now: Callable[[], datetime],
    ) -> None:
        self.keep = keep
        self.board = board
        self.accepting = accepting
        self.sender = sender
        self.budget = budget
        self.settings = settings
        self.now = now
        self._tasks: set[asyncio.Future[None]] = set()

    def spawn(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self, limit_s: float) -> None:
        """Finish what is in hand for at most `limit_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Taken(ABC):
    """The upstream of an exchange that is answered here."""

    write_paused = False

    def __init__(self, desk: Desk, exchange: Exchange, caller: Caller) -> None:
        self._desk = desk
        self._exchange = exchange
        self._caller = caller
        self._task: asyncio.Future[None] | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()

    @abstractmethod
    def begin(self, request: bytes) -> None:
        """The head is here, and perhaps some of the body."""

    # --- called by the client connection and the exchange ---------------------------------

    @abstractmethod
    def write(self, data: bytes) -> None:
        """More of the body."""

    def pause(self) -> None:
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    def drop(self) -> None:
        """The exchange is over, or its client has left."""
        self._resumed.set()
        if self._task is not None:
            self._task.cancel()

    @property
    def _over(self) -> bool:
        """Whether it was answered, or its client has left."""
        return self._exchange.stage is Stage.DONE

    # --- answering ------------------------------------------------------------------------

    async def _tolerant(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except NotTaken as refused:
            self._refuse(refused.refusal)
        except Unkept as error:
            log.warning("JetStream is not there for asynchronous requests", extra={"error": str(error)})
            self._refuse(CANNOT_KEEP)
        except Exception:
            log.exception("an asynchronous request could not be dealt with")
            self._refuse(CANNOT_KEEP)

    def _refuse(self, refusal: Refusal) -> None:
        exchange = self._exchange
        if not self._over:
            # The task that answers must not be cancelled by its own answer.
            self._task = None
            exchange.fail(refusal)

    def _answer_json(self, status: int, said: dict[str, Any], fields: bytes = b"") -> None:
        exchange = self._exchange
        if self._over:
            return
        body = json.dumps(said, ensure_ascii=False).encode()
        ending = fields + self._ending()
        exchange.client.send(response(status, _JSON, body, ending, with_body=exchange.head.method != b"HEAD"))
        self._done(status)

    async def _answer_result(self, result: InferenceResult, fields: bytes = b"") -> None:
        """The endpoint's answer as it gave it, no faster than the client takes it."""
        exchange = self._exchange
        pieces = self._desk.keep.read(result.parts)
        try:
            first = await anext(pieces)
        except Lost:
            self._refuse(RESULT_GONE)
            return
        if self._over:
            return
        head, body = first[: result.parts.head_bytes], first[result.parts.head_bytes :]
        length = b"" if result.status in BODILESS else b"Content-Length: %d\r\n" % result.parts.body_bytes
        lines = head + b"\r\n" if head else b""
        exchange.status = result.status
        exchange.first_byte_s = monotonic()
        first_line = STATUS_LINES.get(result.status) or status_line(result.status, b"")
        exchange.client.send(first_line + lines + length + fields + self._ending())
        if exchange.head.method != b"HEAD" and result.status not in BODILESS:
            try:
                await self._send(body, pieces)
            except (Lost, Unkept):
                self._refuse(RESULT_GONE)
                return
        if not self._over:
            self._done(result.status)

    async def _send(self, first: bytes, pieces: AsyncIterator[bytes]) -> None:
        self._exchange.client.send(first)
        await self._resumed.wait()
        async for piece in pieces:
            if self._over:
                return
            self._exchange.client.send(piece)
            await self._resumed.wait()

    def _ending(self) -> bytes:
        exchange = self._exchange
        if exchange.client.draining or not exchange.request_done:
            exchange.keep_alive = False
        return exchange.ending()

    def _done(self, status: int) -> None:
        exchange = self._exchange
        exchange.stage = Stage.DONE
        exchange.upstream = None
        if exchange.endpoint is not None:
            exchange.endpoint.stats.ended(status)
        exchange.client.finished(exchange, monotonic())

    def _status(self, inference: OpenInference | FinishedInference) -> dict[str, Any]:
        return lifecycle.status(inference, now=self._desk.now(), retention_s=self._desk.settings.deferred_retention_s)
