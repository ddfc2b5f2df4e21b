"""One attempt to run an inference: loads its request, marks it as running, and keeps its answer."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from penstock_common.contracts.inference import InferenceResult, OpenInference
from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.board import Board, Tracked
from penstock_gateway.deferred.budget import Budget
from penstock_gateway.deferred.keeping import Conflict, Keep, Lost, PartsWriter, Unkept
from penstock_gateway.deferred.lifecycle import End, Outcome
from penstock_gateway.deferred.ports import Loaded, Plane
from penstock_gateway.deferred.requests import head_to_send
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.domain import Refusal

log = logging.getLogger(__name__)

PATIENCE_S = (0.2, 1.0, 3.0, 10.0)
"""Waits between tries to store a part of an answer."""
RESULT_SLACK_S = 600
"""Answers are stored before their record is: they must not go first."""
_NOT_KEPT = frozenset({b"connection", b"transfer-encoding", b"content-length", b"x-request-id"})
"""Said anew whenever the result is asked for."""


class _Cut(Exception):
    """The answer cannot be kept."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class Attempt:
    """A Job. `begun`: it was marked as running, at `tracked`. `dropped`: nothing was sent, and nothing follows
    but what `end` says, if anything. `unsure`: whether it was marked is not known, but nothing was sent."""

    def __init__(
        self,
        tracked: Tracked,
        *,
        keep: Keep,
        board: Board,
        budget: Budget,
        slots: asyncio.Semaphore,
        settings: DeferredSettings,
        gateway_id: str,
        now: Callable[[], datetime],
    ) -> None:
        self.tracked = tracked
        self.begun = False
        self.dropped = False
        self.unsure = False
        self.end: End | None = None
        self.closed = False
        """Whether it may no longer begin."""
        self._keep = keep
        self._board = board
        self._budget = budget
        self._slots = slots
        self._settings = settings
        self._gateway_id = gateway_id
        self._now = now
        self._limit: asyncio.Timeout | None = None
        self._has_slot = False
        self._taken_bytes = 0
        self._writer: PartsWriter | None = None
        self._status = 0
        self._content_type = ""

    @property
    def inference(self) -> OpenInference:
        return self.tracked.inference

    async def run(self, plane: Plane) -> Outcome:
        """From the endpoint's queue to the stored answer."""
        try:
            async with asyncio.timeout(None) as self._limit:
                outcome = await plane.run(self)
                if outcome.refusal is None and not self.dropped and self._writer is not None:
                    parts = await self._writer.finish()
                    result = InferenceResult(status=self._status, content_type=self._content_type, parts=parts)
                    self._writer = None
                    outcome = Outcome(result=result, reached=True)
                return outcome
        except _Cut as cut:
            return Outcome(refusal=cut.refusal, reached=True)
        except Unkept:
            return Outcome(refusal=lifecycle.RESULT_NOT_KEPT, reached=True)
        except TimeoutError:
            return Outcome(refusal=lifecycle.RAN_TOO_LONG, reached=True)
        finally:
            self._limit = None
            self._release()
            if self._writer is not None:
                with suppress(Unkept):
                    await asyncio.shield(self._writer.drop())

    # --- called by the plane --------------------------------------------------------------

    async def begin(self) -> Loaded | None:
        """A replica is free: load the request, and write that it may run from here on."""
        loaded = await self._load()
        if loaded is None or self.closed or not await self._mark():
            self.dropped = True
            return None
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._settings.deferred_run_s_max)
        return loaded

    async def _load(self) -> Loaded | None:
        await self._slots.acquire()
        self._has_slot = True
        request = self.inference.request
        self._taken_bytes = await self._budget.take(request.body_bytes)
        try:
            pieces = [piece async for piece in self._keep.read(request)]
        except Lost:
            self.end = lifecycle.REQUEST_LOST
            return None
        except Unkept as error:
            log.warning("a kept request could not be loaded", extra={"error": str(error)})
            return None
        head, rest = pieces[0][: request.head_bytes], pieces[0][request.head_bytes :]
        body = [piece for piece in (rest, *pieces[1:]) if piece]
        return Loaded(head_to_send(head, request.body_bytes), body)

    async def _mark(self) -> bool:
        """Whether it is written that it runs, and it may still begin."""
        running = lifecycle.running(self.inference, self._gateway_id, self._now())
        self.unsure = True
        try:
            revision = await self._keep.update(running, self.tracked.revision)
        except Conflict:
            # Somebody cancelled it, or took it: what it is now comes with the stream.
            self.unsure = False
            return False
        except Unkept as error:
            log.warning("an inference could not be begun", extra={"error": str(error)})
            return False
        self.unsure = False
        self.begun = True
        self.tracked = Tracked(running, revision)
        self._board.put(running, revision)
        # Else the gateway has begun to stop, and nothing is sent.
        return not self.closed

    async def head(self, status: int, lines: Sequence[bytes]) -> None:
        self._give_memory()
        kept = [line for line in lines if line.partition(b":")[0].lower() not in _NOT_KEPT]
        for line in kept:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-type":
                self._content_type = value.strip().decode("latin-1")
        self._status = status
        self._writer = self._keep.writer(self._settings.deferred_retention_s + RESULT_SLACK_S, patience_s=PATIENCE_S)
        self._writer.head(b"\r\n".join(kept))

    async def body(self, data: bytes) -> None:
        writer = self._writer
        if writer is None:
            raise RuntimeError("an answer begins with its head")
        if writer.body_bytes + len(data) > self._settings.deferred_result_bytes_max:
            raise _Cut(lifecycle.RESULT_TOO_LARGE)
        await writer.body(data)

    # --- parts ----------------------------------------------------------------------------

    def _give_memory(self) -> None:
        taken, self._taken_bytes = self._taken_bytes, 0
        if taken:
            self._budget.give(taken)

    def _release(self) -> None:
        self.closed = True
        self._give_memory()
        if self._has_slot:
            self._has_slot = False
            self._slots.release()
