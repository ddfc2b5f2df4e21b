"""Makes this host run what was assigned to it: one supervisor for each replica, told what to do by `plan`."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol, get_args

from penstock_common.contracts.events import ReplicaPhase, ReplicaReported
from penstock_common.contracts.records import Assignment
from penstock_provisioner import metrics
from penstock_provisioner.domain import Replica
from penstock_provisioner.drivers.protocol import Driver
from penstock_provisioner.journal import Journal
from penstock_provisioner.logs.follow import LogFollower
from penstock_provisioner.reconciling import (
    STOP_AFTER_ABSENT_S,
    Begin,
    Forget,
    Known,
    Stop,
    is_waiting_to_be_forgotten,
    plan,
)
from penstock_provisioner.supervising import Supervisor, Times
from penstock_provisioner.threads import in_thread

log = logging.getLogger(__name__)

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""Replica ids name directories."""


class Wanted(Protocol):
    """What should run here: the assignments, or None while they are not known."""

    def __call__(self) -> Collection[Assignment] | None: ...


class Reconciler:
    """All replicas of this host. `report` is told of every report."""

    def __init__(
        self,
        host_id: str,
        *,
        driver: Driver,
        journal: Journal,
        logs: LogFollower,
        report: Callable[[ReplicaReported, str | None], None],
        times: Times,
        wanted: Wanted,
    ) -> None:
        self._host_id = host_id
        self._driver = driver
        self._journal = journal
        self._logs = logs
        self._report = report
        self._times = times
        self._wanted = wanted
        self._supervisors: dict[str, Supervisor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._beats: dict[str, int] = {}
        self._absent_since: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._leaving = False

    async def adopt(self) -> None:
        """Take over what an earlier provisioner left: replicas that run, and those that ended meanwhile.

        What runs here and nobody wrote down is ended: it may not have been assigned at all.
        """
        replicas, unreadable = await in_thread(self._journal.load)
        running = await self._driver.list()
        live = {replica.id for replica in replicas if not replica.is_final}
        for replica_id in {*unreadable, *(running.keys() - live)}:
            log.warning("ending what nobody knows", extra={"replica_id": replica_id})
            try:
                await self._driver.stop(replica_id, running.get(replica_id), 0.0)
            except (OSError, TimeoutError):
                # What it uses stays marked as used, and the next start tries again.
                log.exception("it cannot be ended", extra={"replica_id": replica_id})
                continue
            if replica_id in unreadable:
                await in_thread(self._journal.forget, replica_id)
        for replica in replicas:
            found = running.get(replica.id)
            if replica.instance is None and found is not None and not replica.is_final:
                # It was started, and the one who started it died before writing that down.
                replica = replica.started(found)
            self._supervise(replica)
            log.info("adopted", extra={"replica_id": replica.id, "phase": replica.phase, "runs": found is not None})

    def wake(self) -> None:
        """Look again at what is wanted."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile for ever, whenever something changed."""
        while True:
            self.step()
            await self._wake.wait()
            self._wake.clear()

    def step(self) -> None:
        """Do what `plan` says once."""
        wanted = None if self._leaving else self._wanted()
        if wanted is not None:
            wanted = [assignment for assignment in wanted if _is_safe(assignment)]
            self._note_absent({assignment.replica_id for assignment in wanted})
        for action in plan(self._host_id, wanted, self.known()):
            match action:
                case Begin(assignment, reason):
                    log.info("begin", extra={"replica_id": assignment.replica_id, "reason": reason})
                    self._supervise(Replica(assignment))
                case Stop(replica_id, reason):
                    log.info("stop", extra={"replica_id": replica_id, "reason": reason})
                    self._supervisors[replica_id].stop()
                case Forget(replica_id, reason):
                    log.info("forget", extra={"replica_id": replica_id, "reason": reason})
                    self._forget(replica_id)
        self._count()

    def beat(self) -> None:
        """A heartbeat was sent: what was in it long enough is forgotten."""
        wanted = self._wanted()
        if wanted is None:
            return
        assigned = {assignment.replica_id for assignment in wanted}
        for replica_id, one in self.known().items():
            if is_waiting_to_be_forgotten(replica_id in assigned, one):
                self._beats[replica_id] = one.beats + 1
        self.wake()

    def known(self) -> dict[str, Known]:
        """Every replica of this host."""
        now = asyncio.get_running_loop().time()
        return {
            replica_id: Known(
                supervisor.recorded,
                supervisor.stopping,
                absent_s=now - self._absent_since.get(replica_id, now),
                beats=self._beats.get(replica_id, 0),
            )
            for replica_id, supervisor in self._supervisors.items()
        }

    def replicas(self) -> list[Replica]:
        """How far each is on disk."""
        return [supervisor.recorded for supervisor in self._supervisors.values()]

    def reports(self) -> list[ReplicaReported]:
        """The last report of each."""
        return [replica.report for replica in self.replicas() if replica.report is not None]

    async def looked(self) -> None:
        """Wait until every replica that an earlier provisioner left was looked at: before that nobody may be told
        that it runs, or it would be billed for the time in which it did not."""
        for supervisor in list(self._supervisors.values()):
            await supervisor.looked.wait()

    async def stop_all(self, *, grace_s: float) -> None:
        """End every replica because the host leaves, and begin none any more."""
        self._leaving = True
        for supervisor in self._supervisors.values():
            supervisor.stop(cause="host_left", grace_s=grace_s)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def detach(self) -> None:
        """Stop supervising; what runs goes on, for the next provisioner to adopt."""
        self._leaving = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _note_absent(self, wanted: set[str]) -> None:
        """Remember since when replicas are no longer wanted, and look again once that is no accident."""
        loop = asyncio.get_running_loop()
        for replica_id in wanted & self._absent_since.keys():
            del self._absent_since[replica_id]
        for replica_id in self._supervisors.keys() - wanted - self._absent_since.keys():
            self._absent_since[replica_id] = loop.time()
            loop.call_later(STOP_AFTER_ABSENT_S, self.wake)

    def _supervise(self, replica: Replica) -> None:
        supervisor = Supervisor(
            replica,
            driver=self._driver,
            journal=self._journal,
            logs=self._logs,
            report=self._report,
            times=self._times,
        )
        self._supervisors[replica.id] = supervisor
        self._logs.follow(replica.id, replica.assignment.endpoint_id, self._driver.logs(replica.id))
        if replica.report is not None:
            # The last one may not have left the process that made it; the same again does no harm.
            self._report(replica.report, replica.assignment.traceparent)
        task = asyncio.create_task(supervisor.run(), name=f"replica {replica.id}")
        task.add_done_callback(lambda task: self._on_done(replica.id, task))
        self._tasks[replica.id] = task

    def _on_done(self, replica_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a replica's supervision failed", extra={"replica_id": replica_id}, exc_info=error)
        self.wake()

    def _forget(self, replica_id: str) -> None:
        self._logs.forget(replica_id)
        self._journal.forget(replica_id)
        del self._supervisors[replica_id]
        # Its work is done, unless it had no turn since the replica was adopted: it must not begin now.
        self._tasks.pop(replica_id).cancel()
        self._beats.pop(replica_id, None)
        self._absent_since.pop(replica_id, None)

    def _count(self) -> None:
        phases = Counter(replica.phase for replica in self.replicas())
        for phase in get_args(ReplicaPhase):
            metrics.replicas.labels(phase).set(phases[phase])


def _is_safe(assignment: Assignment) -> bool:
    if _SAFE_ID.fullmatch(assignment.replica_id):
        return True
    log.error("an assignment's replica id cannot name a directory", extra={"replica_id": assignment.replica_id})
    return False
