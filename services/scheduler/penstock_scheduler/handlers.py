"""One function for each message and heartbeat: load, decide, save."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from penstock_common.contracts.events import (
    EndCause,
    EndpointRequest,
    EndpointRequested,
    HostJoined,
    HostLost,
    ReplicaReported,
)
from penstock_common.contracts.heartbeat import Heartbeat
from penstock_common.contracts.questions import ScaleEndpoint, ScaleReply
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.errors import Permanent
from penstock_scheduler import lifecycle
from penstock_scheduler.domain import EarlyRequest, EndReplica, Evidence, Gpu, Host, Policy, Replica, RequestKind
from penstock_scheduler.heartbeats import Heartbeats
from penstock_scheduler.planning import last_ran_at
from penstock_scheduler.ports import SchedulerStore
from penstock_scheduler.records import content_due
from penstock_scheduler.saving import save

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers need besides the store."""

    policy: Policy
    heartbeats: Heartbeats
    clock_s: Callable[[], float]
    """The process's own clock, by which heartbeats are noted."""


# --- requests -------------------------------------------------------------------------------


async def endpoint_requested(received: Received[EndpointRequested], store: SchedulerStore, *, context: Context) -> None:
    """Take a new endpoint into the queue."""
    event = received.message
    await store.lock()
    if await store.deployment(event.endpoint_id) is not None:
        return
    early = await store.early_request(event.endpoint_id)
    now = await store.now()
    await save(store, None, lifecycle.create(event, received.traceparent, early, now, context.policy))
    if early is not None:
        await store.forget_early_request(event.endpoint_id)


async def endpoint_request(
    received: Received[EndpointRequest], store: SchedulerStore, *, kind: RequestKind, context: Context
) -> None:
    """Stop, restart or terminate an endpoint. If its creation is still on the way, keep the request."""
    event = received.message
    await store.lock()
    before = await store.deployment(event.endpoint_id)
    if before is None:
        await store.save_early_request(EarlyRequest(event.endpoint_id, kind, event.version))
        return
    now = await store.now()
    await save(
        store,
        before,
        lifecycle.request(before, kind, event.version, received.traceparent, now, context.policy),
    )


# --- scaling --------------------------------------------------------------------------------


async def scale(wish: ScaleEndpoint, store: SchedulerStore, *, context: Context) -> tuple[ScaleReply, bool]:
    """Do as an endpoint's autoscaler wishes; what became of it, and whether a plan could differ now."""
    await store.lock()
    before = await store.deployment(wish.endpoint_id)
    if before is None:
        reason = f"there is no endpoint {wish.endpoint_id}"
        return ScaleReply(accepted=False, desired_replicas=0, version=0, reason=reason), False
    scaled = lifecycle.scale(before, wish, await store.now(), context.policy)
    await save(store, before, scaled.outcome)
    after = scaled.outcome.deployment
    content = content_due(after.endpoint, after.replicas)
    reply = ScaleReply(
        accepted=not scaled.refused,
        desired_replicas=content.desired_replicas,
        version=after.endpoint.route_version,
        reason=scaled.refused or content.shortage,
    )
    return reply, scaled.news


# --- reports --------------------------------------------------------------------------------


async def replica_reported(received: Received[ReplicaReported], store: SchedulerStore, *, context: Context) -> None:
    """A host says how far a replica is. Raises Permanent when it makes no sense."""
    await store.lock()
    await _apply_report(received.message, store, context, waited_s=received.waited_s)


async def _apply_report(
    said: ReplicaReported, store: SchedulerStore, context: Context, *, waited_s: float | None = None
) -> None:
    """`waited_s` is how long NATS has kept the report; None when it came with a heartbeat."""
    if said.phase == "ready" and not said.address:
        raise Permanent(f"{said.replica_id} is reported ready without an address: nobody could send it a request")
    endpoint_id = await store.endpoint_of(said.replica_id)
    before = await store.deployment(endpoint_id) if endpoint_id is not None else None
    replica = before.replica(said.replica_id) if before is not None else None
    if before is None or replica is None:
        return
    now = await store.now()
    evidence = await _evidence(replica, waited_s, max(0.0, said.age_s), now, store, context)
    outcome = lifecycle.report(before, said, evidence, now, context.policy)
    await save(store, before, outcome)
    if said.cause == "host_left":
        context.heartbeats.announce_leaving(said.host_id, context.clock_s())


async def _evidence(
    replica: Replica, waited_s: float | None, age_s: float, now: datetime, store: SchedulerStore, context: Context
) -> Evidence:
    last_alive_at = await _last_alive_at(replica, now, store, context)
    told_at = now - timedelta(seconds=waited_s or 0.0)
    # However old its host says the end is: when the host last said that the replica runs, it did.
    told_at = max(told_at - timedelta(seconds=age_s), min(last_alive_at, told_at))
    awake_s = context.heartbeats.awake_s(context.clock_s())
    return Evidence(
        told_at=told_at,
        last_alive_at=last_alive_at,
        # A heartbeat is kept by nobody, so when it was sent says nothing of when the replica ended.
        silence_counts=waited_s is None or now - timedelta(seconds=awake_s) <= last_alive_at,
    )


async def _last_alive_at(replica: Replica, now: datetime, store: SchedulerStore, context: Context) -> datetime:
    """When the replica's host last said that it runs."""
    known = context.heartbeats.last_alive_at(replica, now, context.clock_s())
    if known is not None:
        return known
    host = await store.host(replica.host_id)
    return host.last_seen_at if host is not None else now


# --- hosts ----------------------------------------------------------------------------------


async def host_heard(heartbeat: Heartbeat, store: SchedulerStore, *, context: Context) -> None:
    """A heartbeat that says something new: reports, a host that joins or leaves, other hardware."""
    await store.lock()
    for said in await _newer_reports(heartbeat, store):
        try:
            await _apply_report(said, store, context)
        except Permanent as error:
            log.error("a report in a heartbeat makes no sense", extra={"host": heartbeat.host_id, "error": str(error)})
    now = await store.now()
    known = await store.host(heartbeat.host_id)
    if heartbeat.leaving:
        if known is not None and known.state != "left":
            await _leave(known, now, store, context)
        return
    if known is not None and known.state == "up":
        await _end_what_is_gone(known, heartbeat, now, store, context)
    host = _host_of(heartbeat, now, fenced=await _runs_what_is_not_its_own(heartbeat, store))
    if known is None or known.state != "up":
        await store.save_host(host)
        await store.emit(HostJoined(host_id=host.host_id, at=now))
    elif host != replace(known, last_seen_at=now):
        await store.save_host(host)


async def _newer_reports(heartbeat: Heartbeat, store: SchedulerStore) -> list[ReplicaReported]:
    """Most reports in a heartbeat only repeat what is known."""
    known = await store.replicas([said.replica_id for said in heartbeat.reports])
    return [
        said
        for said in heartbeat.reports
        if said.replica_id in known and said.sequence > known[said.replica_id].sequence
    ]


async def _leave(known: Host, now: datetime, store: SchedulerStore, context: Context) -> None:
    reason = f"{known.host_id} left: its provisioner was stopped"
    for replica in await store.live_replicas_on(known.host_id):
        await _end(replica, "host_left", now, reason, now, store, context)
    await store.save_host(replace(known, state="left", fenced=False))
    await store.emit(HostLost(host_id=known.host_id, at=now, last_seen_at=known.last_seen_at, reason=reason))


async def _end_what_is_gone(
    known: Host, heartbeat: Heartbeat, now: datetime, store: SchedulerStore, context: Context
) -> None:
    """End what cannot run any more: everything after the machine booted, or what lost a GPU."""
    gpu_uuids = {gpu.uuid for gpu in heartbeat.inventory.gpus}
    for replica in await store.live_replicas_on(known.host_id):
        missing = sorted(set(replica.gpu_uuids) - gpu_uuids)
        if heartbeat.boot_id != known.boot_id:
            reason = f"{known.host_id} was started again"
        elif missing:
            reason = f"{known.host_id} no longer has GPU {missing[0]}: look at the card and its driver"
        else:
            continue
        last_alive_at = await _last_alive_at(replica, now, store, context)
        await _end(replica, "vanished", min(now, last_ran_at(replica, last_alive_at)), reason, now, store, context)


async def _end(
    replica: Replica,
    cause: EndCause,
    at: datetime,
    reason: str,
    now: datetime,
    store: SchedulerStore,
    context: Context,
) -> None:
    before = await store.deployment(replica.endpoint_id)
    if before is None:
        raise LookupError(f"{replica.replica_id} belongs to no endpoint")
    end = EndReplica(replica.replica_id, replica.endpoint_id, cause, at, reason)
    await save(store, before, lifecycle.lose(before, end, now, context.policy))


async def _runs_what_is_not_its_own(heartbeat: Heartbeat, store: SchedulerStore) -> bool:
    """Whether the host runs replicas that were given up, and will stop them once it sees that."""
    running = {said.replica_id: said for said in heartbeat.reports if said.phase not in ("failed", "stopped")}
    known = await store.replicas(running.keys())
    for replica_id, said in running.items():
        replica = known.get(replica_id)
        # A report from before the replica's own end is only late.
        if replica is None or (not replica.live and said.sequence >= replica.sequence):
            return True
    return False


def _host_of(heartbeat: Heartbeat, now: datetime, *, fenced: bool) -> Host:
    inventory = heartbeat.inventory
    return Host(
        host_id=heartbeat.host_id,
        state="up",
        boot_id=heartbeat.boot_id,
        driver=heartbeat.driver,
        cpu_cores=inventory.cpu_cores,
        memory_gb=inventory.memory_gb,
        disk_gb=inventory.disk_gb,
        simulated=inventory.simulated,
        last_seen_at=now,
        gpus=tuple(Gpu(gpu.uuid, gpu.type, gpu.memory_gb) for gpu in sorted(inventory.gpus, key=lambda gpu: gpu.uuid)),
        fenced=fenced,
    )
