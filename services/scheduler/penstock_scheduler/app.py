"""Composition root: wires messages, questions and loops. The only file that does."""

import time
from datetime import timedelta
from functools import partial
from pathlib import Path

from penstock_common.contracts.events import (
    EndpointRequested,
    EndpointRestartRequested,
    EndpointStopRequested,
    EndpointTerminateRequested,
    ReplicaReported,
)
from penstock_common.contracts.questions import (
    AskCapacity,
    AskForecast,
    AskHosts,
    CapacityReply,
    ForecastReply,
    HostsReply,
    ScaleEndpoint,
    ScaleReply,
)
from penstock_common.contracts.records import Assignment, Route
from penstock_common.contracts.topology import SCHEDULER_REPORTS, SCHEDULER_REQUESTS
from penstock_common.service import Service
from penstock_scheduler import answers, handlers
from penstock_scheduler.handlers import Context
from penstock_scheduler.heartbeats import Hearing, Heartbeats
from penstock_scheduler.listening import Listening
from penstock_scheduler.planner import Planner, current_snapshot
from penstock_scheduler.repair import Repair, resync
from penstock_scheduler.settings import SchedulerSettings
from penstock_scheduler.store import Store

MIGRATIONS = Path(__file__).parent / "migrations"


def build(settings: SchedulerSettings) -> Service[Store]:
    """The scheduler, ready to run."""
    service: Service[Store] = Service("scheduler", settings, make_store=Store, migrations=MIGRATIONS)
    context = Context(settings.policy(), Heartbeats(), clock_s=time.monotonic)
    hearing = Hearing(context.clock_s())
    planner = Planner(service.transaction, context, hearing)
    listening = Listening(lambda: service.nats, lambda: service.js, service.transaction, context, hearing, planner.wake)
    repair = Repair(
        service.transaction,
        service.watch(Assignment, _ignore),
        service.watch(Route, _ignore),
        connected=lambda: service.nats.is_connected,
        every_s=settings.repair_every_s,
        ended_kept=timedelta(seconds=settings.ended_replicas_kept_s),
    )
    service.subscribe(
        SCHEDULER_REQUESTS,
        {
            EndpointRequested: partial(handlers.endpoint_requested, context=context),
            EndpointStopRequested: partial(handlers.endpoint_request, kind="stop", context=context),
            EndpointRestartRequested: partial(handlers.endpoint_request, kind="restart", context=context),
            EndpointTerminateRequested: partial(handlers.endpoint_request, kind="terminate", context=context),
        },
        after_commit=planner.wake,
    )
    service.subscribe(
        SCHEDULER_REPORTS,
        {ReplicaReported: partial(handlers.replica_reported, context=context)},
        after_commit=planner.wake,
    )
    service.background("listen", listening.listen)
    service.background("stay awake", listening.stay_awake)
    service.background("keep track of hosts", listening.keep_track)
    service.background("plan", planner.run)
    service.background("repair", repair.run)
    service.on_replay(resync)
    _answer_questions(service, context, hearing)
    _answer_autoscaler(service, context, planner)
    return service


def _answer_questions(service: Service[Store], context: Context, hearing: Hearing) -> None:
    async def capacity(_: AskCapacity) -> CapacityReply:
        async with service.transaction() as store:
            now = await store.now()
            return answers.capacity(await current_snapshot(store, context, hearing, now), now)

    async def forecast(question: AskForecast) -> ForecastReply:
        async with service.transaction() as store:
            now = await store.now()
            snapshot = await current_snapshot(store, context, hearing, now)
        return answers.forecast(snapshot, question.gpu, question.resources, question.replicas, now)

    async def hosts(_: AskHosts) -> HostsReply:
        async with service.transaction() as store:
            return answers.hosts(await current_snapshot(store, context, hearing, await store.now()))

    service.answer(AskCapacity, capacity)
    service.answer(AskForecast, forecast)
    service.answer(AskHosts, hosts)


def _answer_autoscaler(service: Service[Store], context: Context, planner: Planner) -> None:
    async def scale(wish: ScaleEndpoint) -> ScaleReply:
        async with service.transaction() as store:
            reply, news = await handlers.scale(wish, store, context=context)
        if news:
            planner.wake()
        return reply

    service.answer(ScaleEndpoint, scale)


def _ignore(key: str, record: Assignment | Route | None) -> None:
    """Records are compared as a whole, not as they change."""
