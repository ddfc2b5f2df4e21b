"""The loop around planning: woken by whatever changed, and when the next thing is due."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

from opentelemetry import propagate
from prometheus_client import Counter, Gauge, Histogram

from penstock_common.contracts.events import HostLost
from penstock_common.ids import REPLICA, new_id
from penstock_common.telemetry import tracer
from penstock_scheduler import lifecycle
from penstock_scheduler.checking import violations
from penstock_scheduler.domain import (
    Deployment,
    EndReplica,
    GiveWay,
    Outcome,
    Place,
    Plan,
    Policy,
    Purge,
    Shortage,
    Snapshot,
    Unassign,
    Wait,
    without_twins,
)
from penstock_scheduler.handlers import Context
from penstock_scheduler.heartbeats import Hearing
from penstock_scheduler.planning import plan
from penstock_scheduler.ports import SchedulerStore
from penstock_scheduler.saving import save

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

REFUSED_WAIT_S = 1.0
IDLE_WAIT_S_MAX = 30.0
REST_S_MAX = 0.25
"""After a plan that took t, none starts for another t, but for no longer than this: planning never
takes more than half of the process."""

_plan_seconds = Histogram("penstock_scheduler_plan_seconds", "Time to make and carry out one plan")
_placed = Counter("penstock_scheduler_replicas_placed", "Replicas placed")
_refused = Counter("penstock_scheduler_plans_refused", "Plans that broke a rule and were not carried out")
_given_way = Counter("penstock_scheduler_replicas_given_way", "Idle replicas drained for an endpoint that waits")
_waiting = Gauge("penstock_scheduler_endpoints_waiting", "Endpoints that have no room")
_hosts = Gauge("penstock_scheduler_hosts", "Hosts by state", ["state"])

Action = EndReplica | Unassign | Place | Wait | Shortage | GiveWay | Purge


class Planner:
    """Keeps planning. `transaction` opens a transaction on the store."""

    def __init__(
        self,
        transaction: Callable[[], AbstractAsyncContextManager[SchedulerStore]],
        context: Context,
        hearing: Hearing,
    ) -> None:
        self._transaction = transaction
        self._context = context
        self._hearing = hearing
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Plan again soon: something changed."""
        self._woken.set()

    async def run(self) -> None:
        """Plan whenever there is reason to, for ever."""
        while True:
            self._woken.clear()
            started_s = self._context.clock_s()
            wait_s = await self.plan_once()
            took_s = self._context.clock_s() - started_s
            _plan_seconds.observe(took_s)
            await asyncio.sleep(min(took_s, REST_S_MAX))
            # Not wait_for, which in Python 3.11 can lose a cancellation that comes with the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    async def plan_once(self) -> float:
        """Make one plan, check it and carry it out; returns how long nothing more is due, in seconds."""
        async with self._transaction() as store:
            await store.lock()
            now = await store.now()
            snapshot = await current_snapshot(store, self._context, self._hearing, now)
            decided = plan(snapshot, now)
            broken = violations(snapshot, decided)
            if broken:
                _refused.inc()
                log.error("a plan breaks rules and is not carried out", extra={"violations": broken[:20]})
                return REFUSED_WAIT_S
            await carry_out(store, snapshot, decided)
        self._context.heartbeats.expect(snapshot.hosts)
        _report(snapshot, decided)
        if decided.wake_at is None:
            return IDLE_WAIT_S_MAX
        return min(IDLE_WAIT_S_MAX, max(0.0, (decided.wake_at - now).total_seconds()))


async def current_snapshot(store: SchedulerStore, context: Context, hearing: Hearing, now: datetime) -> Snapshot:
    """The tables, with what heartbeats said since they were written."""
    now_s = context.clock_s()
    listening_since = now - timedelta(seconds=now_s - hearing.since_s(now_s))
    snapshot = await store.snapshot(context.policy, listening_since)
    snapshot = replace(snapshot, hosts=without_twins(snapshot.hosts))
    return context.heartbeats.freshen(snapshot, now, now_s)


async def carry_out(store: SchedulerStore, snapshot: Snapshot, decided: Plan) -> None:
    """Do what the plan says, in the transaction that its snapshot was read in."""
    actions: list[Action] = [
        *decided.ended,
        *decided.unassigned,
        *decided.placed,
        *decided.waiting,
        *decided.short,
        *decided.giving_way,
        *decided.purged,
    ]
    deployments = await store.deployments({action.endpoint_id for action in actions})
    for action in actions:
        before = deployments[action.endpoint_id]
        outcome = _applied(before, action, decided.at, snapshot.policy)
        trace = {"traceparent": before.definition.traceparent} if before.definition.traceparent else {}
        with _tracer.start_as_current_span(f"scheduler {type(action).__name__}", context=propagate.extract(trace)):
            await save(store, before, outcome)
        deployments[action.endpoint_id] = outcome.deployment
    hosts = {host.host_id: host for host in snapshot.hosts}
    for loss in decided.lost:
        host = hosts[loss.host_id]
        await store.save_host(replace(host, state="lost", fenced=False))
        await store.emit(
            HostLost(host_id=host.host_id, at=decided.at, last_seen_at=host.last_seen_at, reason=loss.reason)
        )


def _applied(before: Deployment, action: Action, now: datetime, policy: Policy) -> Outcome:
    match action:
        case EndReplica():
            return lifecycle.lose(before, action, now, policy)
        case Unassign():
            return lifecycle.unassign(before, action, now, policy)
        case Place():
            return lifecycle.place(before, action, new_id(REPLICA), now, policy)
        case Wait():
            return lifecycle.wait(before, action, now, policy)
        case Shortage():
            return lifecycle.lack(before, action, now, policy)
        case GiveWay():
            return lifecycle.give_way(before, action, now, policy)
        case Purge():
            return lifecycle.purge(before, action, now, policy)


def _report(snapshot: Snapshot, decided: Plan) -> None:
    """Metrics and a log of what was decided, and why."""
    _placed.inc(len(decided.placed))
    _given_way.inc(len(decided.giving_way))
    _waiting.set(decided.queued)
    for state in ("up", "lost", "left"):
        _hosts.labels(state).set(sum(host.state == state for host in snapshot.hosts))
    for loss in decided.lost:
        log.warning("host lost", extra={"host": loss.host_id, "reason": loss.reason})
    for place in decided.placed:
        log.info(
            "replica placed",
            extra={"endpoint": place.endpoint_id, "host": place.host_id, "reason": place.reason},
        )
    for given in decided.giving_way:
        log.info("replica gives way", extra={"endpoint": given.endpoint_id, "replica": given.replica_id})
