"""Answers to questions about capacity, worked out from a snapshot as a plan would be."""

from datetime import datetime

from penstock_common.contracts.endpoint import GpuRequest, Resources
from penstock_common.contracts.questions import (
    CPU_TYPE,
    CapacityReply,
    FieldProblem,
    ForecastReply,
    GpuCapacity,
    HostsReply,
    HostView,
)
from penstock_scheduler import reasons
from penstock_scheduler.domain import Demand, EndpointRecord, Host, Snapshot
from penstock_scheduler.planning import Entry, Walk, waiting_entries, walk_queue

COUNTS = (1, 2, 3, 4)
_NEW = "new"


def capacity(snapshot: Snapshot, now: datetime) -> CapacityReply:
    """What hosts that are up have, and what could start now, behind all who wait already."""
    walk = walk_queue(snapshot, waiting_entries(snapshot), now)
    up = [host for host in snapshot.hosts if host.state == "up"]
    types = sorted({gpu.type for host in up for gpu in host.gpus})
    return CapacityReply(
        gpus=tuple(_gpu_capacity(gpu_type, up, walk, snapshot) for gpu_type in types),
        cpu=_cpu_capacity(up, walk),
        hosts=len(up),
    )


def _gpu_capacity(gpu_type: str, up: list[Host], walk: Walk, snapshot: Snapshot) -> GpuCapacity:
    of_type = [gpu for host in up for gpu in host.gpus if gpu.type == gpu_type]
    return GpuCapacity(
        type=gpu_type,
        memory_gb=min(gpu.memory_gb for gpu in of_type),
        total=len(of_type),
        free=sum(gpu.uuid not in snapshot.reserved for gpu in of_type),
        startable_counts=_startable(walk, [(count, Demand(1, 1, 1, gpu_type, count)) for count in COUNTS]),
    )


def _cpu_capacity(up: list[Host], walk: Walk) -> GpuCapacity:
    return GpuCapacity(
        type=CPU_TYPE,
        memory_gb=max((host.memory_gb for host in up), default=0),
        total=sum(host.cpu_cores for host in up),
        free=sum(max(0, room.cpu_cores) for room in walk.room.hosts),
        startable_counts=_startable(walk, [(count, Demand(count, 1, 1)) for count in COUNTS]),
    )


def _startable(walk: Walk, demands: list[tuple[int, Demand]]) -> tuple[int, ...]:
    return tuple(count for count, demand in demands if walk.room.best(demand) is not None)


def forecast(
    snapshot: Snapshot, gpu: GpuRequest | None, resources: Resources, replicas: int, now: datetime
) -> ForecastReply:
    """What would happen to a new endpoint: it comes after all who wait for what they must have, and before
    what others only desire. It starts now if at least one of its replicas does."""
    demand = Demand(
        cpu_cores=resources.cpu_cores,
        memory_gb=resources.memory_gb,
        disk_gb=resources.disk_gb,
        gpu_type=gpu.type if gpu else None,
        gpu_count=gpu.count if gpu else 0,
    )
    problems = reasons.never_fits(demand, [host for host in snapshot.hosts if host.state != "left"])
    replicas = max(1, replicas)  # one that may sleep starts awake
    newcomer = EndpointRecord(_NEW, "queued", demand, replicas, requested_at=now, request_version=0)
    entries = [*waiting_entries(snapshot), Entry(newcomer, live=0, missing=replicas)]
    walk = walk_queue(snapshot, sorted(entries, key=lambda entry: entry.extra), now)
    placed = sum(place.endpoint_id == _NEW for place in walk.placed)
    blocked = next((each for each in walk.blocked if each.endpoint.endpoint_id == _NEW), None)
    if blocked is None:
        host_ids = sorted({place.host_id for place in walk.placed if place.endpoint_id == _NEW})
        reason = f"starts at once on {' and '.join(host_ids)}"
    elif placed:
        reason = f"{placed} of {replicas} replicas start at once; for the others: {blocked.reason}"
    else:
        reason = blocked.reason
    return ForecastReply(
        starts_now=placed > 0,
        position=blocked.position if blocked is not None and not placed else None,
        reason=reason,
        problems=tuple(FieldProblem(field=field, message=message) for field, message in problems),
    )


def hosts(snapshot: Snapshot) -> HostsReply:
    """Every host ever heard of."""
    return HostsReply(hosts=tuple(_host_view(host, snapshot) for host in snapshot.hosts))


def _host_view(host: Host, snapshot: Snapshot) -> HostView:
    replicas = [replica for replica in snapshot.replicas if replica.host_id == host.host_id]
    return HostView(
        host_id=host.host_id,
        state=host.state,
        last_seen_at=host.last_seen_at,
        cpu_cores=host.cpu_cores,
        memory_gb=host.memory_gb,
        disk_gb=host.disk_gb,
        gpus={gpu_type: host.gpu_count(gpu_type) for gpu_type in sorted({gpu.type for gpu in host.gpus})},
        gpus_used=sum(len(replica.gpu_uuids) for replica in replicas),
        replicas=len(replicas),
        driver=host.driver,
        simulated=host.simulated,
    )
