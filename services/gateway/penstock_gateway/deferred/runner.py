"""Runs what is kept: gives queued inferences to their endpoints, and finishes them, whatever happens.

It decides for the endpoints whose queue this gateway has. Everything is written with the revision that it
replaces, so a second gateway that thinks the same of itself does no harm.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

from penstock_common.contracts.inference import FinishedInference, OpenInference
from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.attempt import Attempt
from penstock_gateway.deferred.board import Board, Tracked
from penstock_gateway.deferred.budget import Budget
from penstock_gateway.deferred.following import Presence
from penstock_gateway.deferred.keeping import Conflict, Keep, Unkept
from penstock_gateway.deferred.lifecycle import Again, End
from penstock_gateway.deferred.ports import Plane
from penstock_gateway.deferred.settings import DeferredSettings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
LOOK_AT_QUEUED_EVERY_S = 3.0
YIELD_EVERY = 64
AGAIN_S_MIN = 0.25
AGAIN_S_MAX = 5.0
"""Waits before an endpoint that took none is offered another, doubling."""
RETRY_S_MIN = 0.2
RETRY_S_MAX = 10.0

STOP_WRITE_S = 2.0
"""Longest that a stop waits for JetStream."""

Notify = Callable[[Tracked], Awaitable[None]]


class Runner:
    """`run` it for ever, and `stop` it. `notify` delivers a webhook that is due."""

    def __init__(
        self,
        *,
        keep: Keep,
        board: Board,
        presence: Presence,
        plane: Plane,
        budget: Budget,
        settings: DeferredSettings,
        gateway_id: str,
        notify: Notify,
        now: Callable[[], datetime],
    ) -> None:
        self._keep = keep
        self._board = board
        self._presence = presence
        self._plane = plane
        self._budget = budget
        self._settings = settings
        self._gateway_id = gateway_id
        self._notify = notify
        self._now = now
        self._slots = asyncio.Semaphore(settings.deferred_running_max)
        self._notifying = asyncio.Semaphore(settings.webhook_sending_max)
        self._attempts: dict[str, tuple[Attempt, asyncio.Task[None]]] = {}
        self._in_hand: Counter[str] = Counter()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, tuple[float, float]] = {}
        """Endpoint → when it is offered another, and the wait that led to that."""
        self._unsure: set[str] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        board.listeners.append(self._changed)

    async def run(self) -> None:
        """Look at what waits whenever something changed, and at everything now and then."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._offer())
            group.create_task(self._look_around())

    async def _offer(self) -> None:
        while True:
            self._wake.clear()
            # While we do not hear ourselves JetStream is away: what would be begun could not be marked.
            if self._board.complete and not self._stopping and self._presence.hears_itself(monotonic()):
                self._dispatch()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()

    async def _look_around(self) -> None:
        looked_s = float("-inf")
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self._board.complete or self._stopping:
                continue
            everything = monotonic() - looked_s >= LOOK_AT_QUEUED_EVERY_S
            if everything:
                looked_s = monotonic()
            for number, tracked in enumerate(list(self._board) if everything else self._board.not_queued(), 1):
                if self._board.get(tracked.inference.inference_id) == tracked and not self._stopping:
                    self._look_after(tracked)
                if not number % YIELD_EVERY:
                    # However many there are, they must not hold up the data plane.
                    await asyncio.sleep(0)

    async def stop(self, limit_s: float) -> None:
        """Begin nothing more; let what runs finish for at most `limit_s`, then decide what becomes of the rest."""
        self._stopping = True
        for attempt, task in self._attempts.values():
            attempt.closed = True
            if not (attempt.begun or attempt.unsure):
                task.cancel()
        work = [task for _, task in self._attempts.values()] + list(self._busy.values())
        if work:
            await asyncio.wait(work, timeout=limit_s)
        cut = [attempt.tracked for attempt, _ in self._attempts.values() if attempt.begun]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WRITE_S):
                await asyncio.gather(*(self._stopped(tracked) for tracked in cut), return_exceptions=True)

    # --- looking after what is open -------------------------------------------------------

    def _changed(self, inference_id: str, tracked: Tracked | None) -> None:
        self._wake.set()
        found = self._attempts.get(inference_id)
        if found is None:
            return
        attempt, task = found
        ours = tracked is not None and (
            tracked.revision <= attempt.tracked.revision
            or (tracked.inference.state == "running" and tracked.inference.gateway_id == self._gateway_id)
        )
        if not ours and not attempt.closed:
            # It was cancelled, or another gateway decided about it.
            task.cancel()

    def _look_after(self, tracked: Tracked) -> None:
        inference = tracked.inference
        inference_id = inference.inference_id
        if inference_id in self._busy or not self._plane.owns(inference.endpoint_id):
            return
        if inference_id in self._attempts and self._attempts[inference_id][0].begun:
            return
        now = self._now()
        if inference.state == "notifying":
            webhook = inference.webhook
            if webhook is None or webhook.next_at is None or webhook.next_at <= now:
                self._start(inference_id, partial(self._notified, tracked))
        elif inference.state == "queued":
            end = self._hopeless(inference, now)
            if end is not None:
                # If it waits at its endpoint, the change that follows takes it away there.
                self._start(inference_id, partial(self._ended, tracked, end))
        elif inference_id in self._attempts:
            return
        elif inference_id in self._unsure and inference.gateway_id == self._gateway_id:
            # It was marked, and that was not acknowledged: nothing was sent.
            self._start(inference_id, partial(self._again, tracked, sent=False))
        elif inference.gateway_id == self._gateway_id or self._presence.lost(inference.gateway_id, monotonic()):
            self._start(inference_id, partial(self._lost, tracked))

    def _hopeless(self, inference: OpenInference, now: datetime) -> End | None:
        """Why a queued inference will never run, if so."""
        state = self._plane.state(inference.endpoint_id)
        if state in lifecycle.DEAD:
            return lifecycle.ENDPOINT_DEAD
        if state is None and self._plane.current:
            return lifecycle.ENDPOINT_GONE
        if now - inference.created_at > timedelta(seconds=self._settings.deferred_wait_s_max):
            return lifecycle.WAITED_TOO_LONG
        return None

    def _dispatch(self) -> None:
        """Offer queued inferences to their endpoints, in the order in which they came."""
        now_s = monotonic()
        for endpoint_id in self._board.waited_for():
            if self._not_before.get(endpoint_id, (0.0, 0.0))[0] > now_s or not self._plane.owns(endpoint_id):
                continue
            room = self._plane.room(endpoint_id) - self._in_hand[endpoint_id]
            if room <= 0 or self._plane.state(endpoint_id) is None:
                continue
            for tracked in self._board.queued(endpoint_id, room + self._in_hand[endpoint_id]):
                inference_id = tracked.inference.inference_id
                if room > 0 and inference_id not in self._attempts and inference_id not in self._busy:
                    room -= 1
                    self._try(tracked)

    # --- attempts -------------------------------------------------------------------------

    def _try(self, tracked: Tracked) -> None:
        attempt = Attempt(
            tracked,
            keep=self._keep,
            board=self._board,
            budget=self._budget,
            slots=self._slots,
            settings=self._settings,
            gateway_id=self._gateway_id,
            now=self._now,
        )
        inference = tracked.inference
        self._in_hand[inference.endpoint_id] += 1
        task = asyncio.create_task(self._tolerant(inference.inference_id, partial(self._attempted, attempt)))
        self._attempts[inference.inference_id] = (attempt, task)

        def done(_: asyncio.Task[None]) -> None:
            del self._attempts[inference.inference_id]
            self._in_hand[inference.endpoint_id] -= 1
            if not self._in_hand[inference.endpoint_id]:
                del self._in_hand[inference.endpoint_id]
            self._wake.set()

        task.add_done_callback(done)

    async def _attempted(self, attempt: Attempt) -> None:
        endpoint_id = attempt.inference.endpoint_id
        try:
            outcome = await attempt.run(self._plane)
        except Exception:
            # Not known what was sent: the same as a gateway that was lost.
            log.exception("an attempt to run an inference failed")
            self._put_off(endpoint_id)
            return
        finally:
            if attempt.unsure:
                self._unsure.add(attempt.inference.inference_id)
            else:
                self._unsure.discard(attempt.inference.inference_id)
        if attempt.begun:
            self._not_before.pop(endpoint_id, None)
        decision: Again | End
        if attempt.dropped:
            decision = attempt.end or Again()
        else:
            decision = lifecycle.settle(attempt.inference, outcome, self._plane.state(endpoint_id))
        if isinstance(decision, End):
            await self.finish(attempt.tracked, decision)
            return
        self._put_off(endpoint_id)
        if attempt.begun:
            if not outcome.reached:
                # Should this not be written now, it is known later that nothing was sent.
                self._unsure.add(attempt.inference.inference_id)
            await self._again(attempt.tracked, sent=outcome.reached)

    def _put_off(self, endpoint_id: str) -> None:
        _, wait_s = self._not_before.get(endpoint_id, (0.0, AGAIN_S_MIN / 2))
        wait_s = min(wait_s * 2, AGAIN_S_MAX)
        self._not_before[endpoint_id] = (monotonic() + wait_s, wait_s)

    async def _stopped(self, tracked: Tracked) -> None:
        """This gateway stops while it runs."""
        await self._interrupted(tracked, lifecycle.GATEWAY_STOPPED)

    async def _lost(self, tracked: Tracked) -> None:
        """The gateway that ran it is lost."""
        log.warning(
            "the gateway that ran an inference is lost",
            extra={"inference_id": tracked.inference.inference_id, "gateway_id": tracked.inference.gateway_id},
        )
        await self._interrupted(tracked, lifecycle.GATEWAY_LOST)

    async def _interrupted(self, tracked: Tracked, end: End) -> None:
        inference = tracked.inference
        decision = lifecycle.interrupted(inference, end)
        if isinstance(decision, End):
            await self._ended(tracked, decision)
        elif await self._keep.find_finished(inference.endpoint_id, inference.inference_id) is not None:
            # It was finished, and then something came between: the outcome that is there stands.
            await self._ended(tracked, end)
        else:
            await self._again(tracked, sent=True)

    # --- writing --------------------------------------------------------------------------

    async def _again(self, tracked: Tracked, *, sent: bool) -> None:
        """Back into the queue; what another decided meanwhile stands."""
        inference = lifecycle.queued_again(tracked.inference, sent=sent)
        with suppress(Conflict):
            revision = await self._keep.update(inference, tracked.revision)
            self._board.put(inference, revision)
        self._unsure.discard(inference.inference_id)

    async def _ended(self, tracked: Tracked, end: End) -> None:
        await self.finish(tracked, end)

    async def _notified(self, tracked: Tracked) -> None:
        async with self._notifying:
            await self._notify(tracked)

    async def finish(self, tracked: Tracked, end: End) -> FinishedInference:
        """Write the outcome, for as long as it takes; returns the one that stands, which may be an earlier one."""
        inference = tracked.inference
        finished = lifecycle.finished(inference, end, now=self._now(), retention_s=self._settings.deferred_retention_s)
        wait_s = RETRY_S_MIN
        while True:
            try:
                return await finish_once(
                    self._keep, self._board, tracked, finished, ttl_s=self._settings.deferred_retention_s
                )
            except Unkept as error:
                log.warning(
                    "the outcome of an inference cannot be written yet",
                    extra={"inference_id": inference.inference_id, "error": str(error)},
                )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RETRY_S_MAX)

    def _start(self, inference_id: str, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._tolerant(inference_id, work))
        self._busy[inference_id] = task

        def done(_: asyncio.Task[None]) -> None:
            del self._busy[inference_id]
            self._wake.set()

        task.add_done_callback(done)

    async def _tolerant(self, inference_id: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (Unkept, Conflict) as error:
            # It is looked at again.
            log.info("an inference could not be dealt with", extra={"inference_id": inference_id, "error": str(error)})
        except Exception:
            log.exception("dealing with an inference failed", extra={"inference_id": inference_id})


async def finish_once(
    keep: Keep, board: Board, tracked: Tracked, finished: FinishedInference, *, ttl_s: int
) -> FinishedInference:
    """Write the outcome, then that it is no longer open; returns the outcome that stands. Raises Unkept."""
    inference = tracked.inference
    try:
        await keep.finish(finished, ttl_s)
    except Conflict:
        standing = await keep.find_finished(inference.endpoint_id, inference.inference_id)
        if standing is not None:
            if finished.result is not None and finished.result != standing.result:
                await keep.drop_named(finished.result.parts.name)
            finished = standing
    revision: int | None = tracked.revision
    while revision is not None:
        try:
            await _close(keep, board, inference, finished, revision)
            break
        except Conflict:
            found = await keep.find_open(inference.endpoint_id, inference.inference_id)
            revision = found[1] if found is not None and found[0].state != "notifying" else None
    await keep.drop_named(inference.request.name)
    return finished


async def _close(
    keep: Keep, board: Board, inference: OpenInference, finished: FinishedInference, revision: int
) -> None:
    if finished.webhook is not None and finished.webhook.next_at is not None:
        notifying = inference.model_copy(update={"state": "notifying", "webhook": finished.webhook})
        board.put(notifying, await keep.update(notifying, revision))
    else:
        board.remove(inference.inference_id, await keep.end(inference, revision))
