"""One replica's life on this host, step by step. Each step is written down before the next begins."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from penstock_common.contracts.events import EndCause, ReplicaReported
from penstock_provisioner import endings, metrics
from penstock_provisioner.domain import Ending, Instance, Replica
from penstock_provisioner.drivers.protocol import Driver, PrepareFailed, StartFailed
from penstock_provisioner.journal import Journal
from penstock_provisioner.logs.file import read_end
from penstock_provisioner.logs.follow import LogFollower
from penstock_provisioner.logs.lines import tail
from penstock_provisioner.probing import until_ready, until_unresponsive
from penstock_provisioner.threads import in_thread
from penstock_provisioner.tracing import span

log = logging.getLogger(__name__)

_TAIL_LINES_MAX = 20
_TAIL_LINE_CHARS_MAX = 500
_TAIL_CHARS_MAX = 4000
_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Times:
    """How long a replica may take for what, in seconds."""

    ready_timeout_s: float
    liveness_interval_s: float
    liveness_timeout_s: float
    liveness_misses: int
    stop_grace_s: float


class Supervisor:
    """Brings one replica from wherever it is to its end. `run()` it once; `replica` is how far it is.

    `recorded` is how far it is on disk: only that is told to others. `report` is told of every report, in order.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        driver: Driver,
        journal: Journal,
        logs: LogFollower,
        report: Callable[[ReplicaReported, str | None], None],
        times: Times,
    ) -> None:
        self.replica = replica
        self.recorded = replica
        self._driver = driver
        self._journal = journal
        self._logs = logs
        self._report = report
        self._times = times
        self._stop_grace_s = times.stop_grace_s
        self._stop_cause: EndCause = "stopped"
        self._stop_asked = asyncio.Event()
        self.looked = asyncio.Event()
        """Set once what is recorded was seen to be so. What an earlier provisioner wrote may be long over."""
        if replica.instance is None or replica.is_final:
            self.looked.set()

    @property
    def stopping(self) -> bool:
        return self._stop_asked.is_set() or self.replica.ending is not None

    def stop(self, *, cause: EndCause = "stopped", grace_s: float | None = None) -> None:
        """End it, wherever it is; asking again changes nothing but may shorten the grace."""
        if not self._stop_asked.is_set():
            self._stop_cause = cause
        if grace_s is not None:
            self._stop_grace_s = min(grace_s, self._stop_grace_s)
        self._stop_asked.set()

    async def run(self) -> None:
        """Until its end is reported and nothing of it is left running. Cancelled, it leaves the replica as it is.

        A host in trouble, such as one with a full disk, is no reason to forget a replica: it goes on
        from where it was, for as long as it takes.
        """
        is_retry = False
        while True:
            try:
                if not self.replica.is_final or is_retry:
                    await self._save(self.replica)
                if is_retry:
                    # What could not be written down was not sent either.
                    self._send()
                return await self._run()
            except Exception:
                log.exception("a replica's supervision failed; going on", extra={"replica_id": self.replica.id})
            is_retry = True
            await asyncio.sleep(_RETRY_S)

    async def _run(self) -> None:
        if self.replica.is_final:
            self._logs.ended(self.replica.id)
            return
        if self.replica.ending is None:
            ending = await self._live_until_stopped()
            if ending is not None:
                await self._save(self.replica.ending_as(ending))
        await self._finish()

    async def _live_until_stopped(self) -> Ending | None:
        """Why it ended by itself, or None when it was asked to stop first."""
        living = asyncio.create_task(self._live(), name=f"live {self.replica.id}")
        asked = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait({living, asked}, return_when=asyncio.FIRST_COMPLETED)
            return living.result() if living.done() else None
        finally:
            for task in (living, asked):
                task.cancel()
            await asyncio.gather(living, asked, return_exceptions=True)

    async def _live(self) -> Ending:
        """Prepare, start, wait until it is ready, and watch it; returns why that ended."""
        instance = self.replica.instance
        if instance is None:
            try:
                instance = await self._prepare_and_start()
            except PrepareFailed as failure:
                return Ending("failed", failure.cause, failure.detail)
            except StartFailed as failure:
                return Ending("failed", "start_failed", str(failure))
            except OSError as error:
                log.exception("a replica cannot be prepared", extra={"replica_id": self.replica.id})
                return Ending("failed", "start_failed", f"this host could not prepare it: {error.strerror or error}")
        elif (found := await self._driver.inspect(self.replica.id, instance)) is not None:
            return endings.exited_unseen(found, was_ready=self.replica.phase == "ready", tail=self._tail())
        self.looked.set()
        if self.replica.phase != "ready":
            ending = await self._until_ready(instance)
            if ending is not None:
                return ending
            await self._progress("ready", address=instance.address)
        return await self._while_ready(instance)

    async def _prepare_and_start(self) -> Instance:
        assignment = self.replica.assignment
        with metrics.prepare_s.time():
            await self._driver.prepare(assignment, self._progress)
        await self._progress("starting")
        # Never two: should an earlier start have gone further than we know, what it made is taken over.
        instance = (await self._driver.list()).get(self.replica.id) or await self._driver.start(assignment)
        await self._save(self.replica.started(instance))
        self._logs.follow(self.replica.id, assignment.endpoint_id, self._driver.logs(self.replica.id))
        return instance

    async def _until_ready(self, instance: Instance) -> Ending | None:
        """None once it answers; else why it never did."""
        with span("replica.start", self.replica.assignment), metrics.start_s.time():
            exited = asyncio.create_task(self._driver.wait(self.replica.id, instance))
            ready = asyncio.create_task(until_ready(instance.address))
            try:
                done, _ = await asyncio.wait(
                    {exited, ready}, timeout=self._times.ready_timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if exited in done:
                    return endings.exited(exited.result(), was_ready=False, tail=self._tail())
                if ready not in done:
                    return endings.start_timeout(self._times.ready_timeout_s, self._tail())
                return None
            finally:
                await _cancelled(exited, ready)

    async def _while_ready(self, instance: Instance) -> Ending:
        times = self._times
        exited = asyncio.create_task(self._driver.wait(self.replica.id, instance))
        silent = asyncio.create_task(
            until_unresponsive(
                instance.address,
                interval_s=times.liveness_interval_s,
                timeout_s=times.liveness_timeout_s,
                misses=times.liveness_misses,
            )
        )
        try:
            done, _ = await asyncio.wait({exited, silent}, return_when=asyncio.FIRST_COMPLETED)
            if exited in done:
                return endings.exited(exited.result(), was_ready=True, tail=self._tail())
            return endings.unresponsive(times.liveness_misses, times.liveness_timeout_s, self._tail())
        finally:
            await _cancelled(exited, silent)

    async def _finish(self) -> None:
        """End what runs, clean up, and only then report the end: the report frees the replica's GPUs."""
        ending = self.replica.ending
        if ending is None:
            # Written down before the stop begins, so that whoever comes next does not call it a crash.
            ending = endings.stopped(self._stop_cause)
            await self._save(self.replica.ending_as(ending))
        # Who failed has nothing to finish; who is asked to stop may have requests in hand.
        grace_s = self._stop_grace_s if ending.phase == "stopped" else 0.0
        forced = await self._end_for_sure(grace_s)
        if forced and ending.phase == "stopped":
            ending = endings.forced(ending, grace_s)
        self._logs.ended(self.replica.id)
        await self._save(self.replica.ended(ending))
        metrics.ended.labels(ending.cause).inc()
        self._send()
        self.looked.set()

    async def _end_for_sure(self, grace_s: float) -> bool:
        """Not reported as ended while it may run: what cannot be ended is tried again for ever."""
        while True:
            try:
                return await self._driver.stop(self.replica.id, self.replica.instance, grace_s)
            except (OSError, TimeoutError) as error:
                log.error(
                    "a replica cannot be ended; trying again",
                    extra={"replica_id": self.replica.id, "error": repr(error)},
                )
            await asyncio.sleep(_RETRY_S)

    async def _progress(
        self,
        phase: Literal["fetching", "installing", "starting", "ready"],
        detail: str = "",
        *,
        address: str | None = None,
    ) -> None:
        await self._save(self.replica.reported(phase, detail, address=address))
        self._send()

    def _send(self) -> None:
        if self.replica.report is not None:
            self._report(self.replica.report, self.replica.assignment.traceparent)

    async def _save(self, replica: Replica) -> None:
        # First here: if it cannot be written, this process at least must not forget what it did.
        self.replica = replica
        await in_thread(self._journal.save, replica)
        self.recorded = replica

    def _tail(self) -> list[str]:
        return tail(
            read_end(self._driver.logs(self.replica.id)),
            lines_max=_TAIL_LINES_MAX,
            line_chars_max=_TAIL_LINE_CHARS_MAX,
            chars_max=_TAIL_CHARS_MAX,
        )


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
