"""`violations(snapshot, plan)`: what is wrong with a plan. It shares no code with planning.

It runs before every commit, so that a mistake in planning costs a delay and not a GPU used twice.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from penstock_scheduler.domain import Demand, EndpointRecord, Place, Plan, Replica, Snapshot

_MAY_RUN = ("queued", "starting", "running")


def violations(snapshot: Snapshot, plan: Plan) -> list[str]:
    """Every rule that the plan breaks, in words; empty for a plan that may be carried out."""
    return [
        *_gpu_violations(snapshot, plan),
        *_host_violations(snapshot, plan),
        *_endpoint_violations(snapshot, plan),
        *_order_violations(snapshot, plan),
        *_replica_violations(snapshot, plan),
        *_giving_violations(snapshot, plan),
        *_notice_violations(snapshot, plan),
    ]


def _gpu_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """Each GPU once, free, of the right type and on the replica's own host."""
    there = {(host.host_id, gpu.uuid): gpu.type for host in snapshot.hosts for gpu in host.gpus}
    taken = snapshot.reserved.union(*(replica.gpu_uuids for replica in snapshot.replicas))
    wanted = {endpoint.endpoint_id: endpoint.demand for endpoint in snapshot.endpoints}
    for gpu_uuid, times in Counter(gpu_uuid for place in plan.placed for gpu_uuid in place.gpu_uuids).items():
        if times > 1:
            yield f"GPU {gpu_uuid} is given out {times} times"
        if gpu_uuid in taken:
            yield f"GPU {gpu_uuid} is reserved already"
    for place in plan.placed:
        demand = wanted.get(place.endpoint_id)
        if demand is None:
            continue  # said by _endpoint_violations
        if len(place.gpu_uuids) != demand.gpu_count:
            yield f"{_name(place)} gets {len(place.gpu_uuids)} GPUs and needs {demand.gpu_count}"
        for gpu_uuid in place.gpu_uuids:
            kind = there.get((place.host_id, gpu_uuid))
            if kind is None:
                yield f"{_name(place)} gets GPU {gpu_uuid}, which {place.host_id} does not have"
            elif kind != demand.gpu_type:
                yield f"{_name(place)} gets GPU {gpu_uuid} of type {kind} and needs {demand.gpu_type}"


def _host_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """Nothing on a host that is not there, and no more on one than it has."""
    hosts = {host.host_id: host for host in snapshot.hosts}
    used = _demands_by_host(snapshot, plan)
    going = {loss.host_id for loss in plan.lost}
    for host_id in sorted({place.host_id for place in plan.placed}):
        host = hosts.get(host_id)
        if host is None or host.state != "up" or host.fenced or host_id in going:
            yield f"replicas are placed on {host_id}, which cannot take any"
            continue
        for what, total, needed in (
            ("CPU cores", host.cpu_cores, sum(demand.cpu_cores for demand in used[host_id])),
            ("GB of memory", host.memory_gb, sum(demand.memory_gb for demand in used[host_id])),
            ("GB of disk", host.disk_gb, sum(demand.disk_gb for demand in used[host_id])),
        ):
            if needed > total:
                yield f"{host_id} has {total} {what} and would need {needed}"


def _endpoint_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """Only endpoints that should run, not before their time, no more replicas than wanted, in order."""
    endpoints = {endpoint.endpoint_id: endpoint for endpoint in snapshot.endpoints}
    staying = _staying(snapshot)
    generations: dict[str, list[int]] = defaultdict(list)
    for place in plan.placed:
        generations[place.endpoint_id].append(place.generation)
    for endpoint_id, placed in sorted(generations.items()):
        endpoint = endpoints.get(endpoint_id)
        if endpoint is None:
            yield f"{endpoint_id} is placed and not known"
            continue
        if endpoint.state not in _MAY_RUN:
            yield f"{endpoint_id} is placed although it is {endpoint.state}"
        if _is_early(endpoint, plan):
            yield f"{endpoint_id} is placed before its wait after a crash is over"
        expected = list(range(endpoint.generation + 1, endpoint.generation + 1 + len(placed)))
        if sorted(placed) != expected:
            yield f"{endpoint_id} gets generations {sorted(placed)} and should get {expected}"
        replicas = staying[endpoint_id] + len(placed)
        if replicas > endpoint.desired_replicas:
            yield f"{endpoint_id} would have {replicas} replicas of {endpoint.desired_replicas}"


def _order_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """First come, first served: nobody is passed by one who asks for the same or more later, and
    the very first does not wait while it fits. What an endpoint must have comes before what others
    only desire; nobody is passed for that."""
    if plan.lost:
        return  # the queue is gone through by the next plan
    placed = Counter(place.endpoint_id for place in plan.placed)
    staying = _staying(snapshot)
    in_order = sorted(
        (endpoint for endpoint in snapshot.endpoints if endpoint.state in _MAY_RUN),
        key=lambda each: (each.requested_at, each.endpoint_id),
    )
    passed: list[EndpointRecord] = []
    waiting = 0
    for endpoint in in_order:
        if placed[endpoint.endpoint_id] and staying[endpoint.endpoint_id] < _must_have(endpoint):
            yield from _passing(endpoint, passed)
        if staying[endpoint.endpoint_id] + placed[endpoint.endpoint_id] >= _must_have(endpoint):
            continue
        if not _is_early(endpoint, plan):
            if not waiting and _fits_somewhere(endpoint.demand, snapshot, plan):
                yield f"{endpoint.endpoint_id} waits although it is first and fits"
            passed.append(endpoint)
        waiting += 1
    for endpoint in in_order:
        having = staying[endpoint.endpoint_id] + placed[endpoint.endpoint_id]
        if placed[endpoint.endpoint_id] and having > _must_have(endpoint):
            yield from _passing(endpoint, passed)
    if not waiting:
        yield from _extra_violations(in_order, snapshot, plan)


def _passing(endpoint: EndpointRecord, passed: list[EndpointRecord]) -> Iterator[str]:
    for earlier in passed:
        if earlier.endpoint_id != endpoint.endpoint_id and _asks_no_more(earlier.demand, endpoint.demand):
            yield f"{endpoint.endpoint_id} passes {earlier.endpoint_id}, which comes first and asks for no more"


def _extra_violations(in_order: list[EndpointRecord], snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """When nobody waits for what it must have, nothing is left free that somebody desires."""
    placed = Counter(place.endpoint_id for place in plan.placed)
    staying = _staying(snapshot)
    short = [each for each in in_order if staying[each.endpoint_id] + placed[each.endpoint_id] < each.desired_replicas]
    if any(_is_early(endpoint, plan) for endpoint in short):
        return  # those keep room
    for endpoint in short:
        if _fits_somewhere(endpoint.demand, snapshot, plan):
            yield f"{endpoint.endpoint_id} desires more and it fits"


def _must_have(endpoint: EndpointRecord) -> int:
    """How many replicas come in the order of the queue; more come after everybody's."""
    return min(endpoint.desired_replicas, max(endpoint.required_replicas, 1))


def _is_early(endpoint: EndpointRecord, plan: Plan) -> bool:
    return endpoint.next_start_at is not None and endpoint.next_start_at > plan.at


def _staying(snapshot: Snapshot) -> Counter[str]:
    return Counter(replica.endpoint_id for replica in snapshot.replicas if replica.unassign_at is None)


def _asks_no_more(one: Demand, other: Demand) -> bool:
    """Whether `one` would fit wherever `other` fits."""
    return (
        one.gpu_type == other.gpu_type
        and one.gpu_count <= other.gpu_count
        and one.cpu_cores <= other.cpu_cores
        and one.memory_gb <= other.memory_gb
        and one.disk_gb <= other.disk_gb
    )


def _demands_by_host(snapshot: Snapshot, plan: Plan) -> dict[str, list[Demand]]:
    """What runs on each host, with what the plan puts there."""
    wanted = {endpoint.endpoint_id: endpoint.demand for endpoint in snapshot.endpoints}
    found: dict[str, list[Demand]] = defaultdict(list)
    for replica in snapshot.replicas:
        found[replica.host_id].append(replica.demand)
    for place in plan.placed:
        if place.endpoint_id in wanted:
            found[place.host_id].append(wanted[place.endpoint_id])
    return found


def _fits_somewhere(need: Demand, snapshot: Snapshot, plan: Plan) -> bool:
    """Whether one more replica fits next to everything that runs and is placed by this plan."""
    used = _demands_by_host(snapshot, plan)
    taken = snapshot.reserved.union(*(place.gpu_uuids for place in plan.placed))
    return any(
        host.state == "up"
        and not host.fenced
        and sum(gpu.type == need.gpu_type and gpu.uuid not in taken for gpu in host.gpus) >= need.gpu_count
        and host.cpu_cores - sum(demand.cpu_cores for demand in used[host.host_id]) >= need.cpu_cores
        and host.memory_gb - sum(demand.memory_gb for demand in used[host.host_id]) >= need.memory_gb
        and host.disk_gb - sum(demand.disk_gb for demand in used[host.host_id]) >= need.disk_gb
        for host in snapshot.hosts
    )


def _replica_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """Only live replicas end or lose their assignment, each once, and none in the future."""
    replicas = {replica.replica_id: replica for replica in snapshot.replicas}
    times = Counter(end.replica_id for end in plan.ended)
    lost = {loss.host_id for loss in plan.lost}
    for end in plan.ended:
        replica = replicas.get(end.replica_id)
        if replica is None or replica.endpoint_id != end.endpoint_id:
            yield f"{end.replica_id} would end, but no live replica of {end.endpoint_id} is called so"
        elif times[end.replica_id] > 1:
            yield f"{end.replica_id} would end {times[end.replica_id]} times"
        elif end.at < (replica.ready_at or replica.scheduled_at) or end.at > plan.at:
            yield f"{end.replica_id} would end at {end.at.isoformat()}, outside its life"
        elif end.cause == "host_lost" and replica.host_id not in lost:
            yield f"{end.replica_id} would end with its host, which is not lost"
    for replica in snapshot.replicas:
        if replica.host_id in lost and replica.replica_id not in times:
            yield f"{replica.replica_id} would stay on {replica.host_id}, which is lost"
    for unassign in plan.unassigned:
        replica = replicas.get(unassign.replica_id)
        if replica is None or replica.endpoint_id != unassign.endpoint_id:
            yield f"{unassign.replica_id} would be unassigned, but no live replica is called so"
        elif replica.unassign_at is None or replica.unassign_at > plan.at:
            yield f"{unassign.replica_id} would be unassigned before its time"


def _giving_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """Only replicas that are idle as far as is known lately, of endpoints that keep what they must have,
    and only where that helps somebody who waits."""
    replicas = {replica.replica_id: replica for replica in snapshot.replicas}
    endpoints = {endpoint.endpoint_id: endpoint for endpoint in snapshot.endpoints}
    staying = _staying(snapshot)
    for replica_id, times in Counter(given.replica_id for given in plan.giving_way).items():
        if times > 1:
            yield f"{replica_id} would give way {times} times"
    for endpoint_id, count in Counter(given.endpoint_id for given in plan.giving_way).items():
        endpoint = endpoints.get(endpoint_id)
        if endpoint is None or endpoint.state not in _MAY_RUN:
            yield f"{endpoint_id} would give way, but it does not run"
        elif staying[endpoint_id] - count < endpoint.required_replicas:
            yield f"{endpoint_id} would keep {staying[endpoint_id] - count} replicas of {endpoint.required_replicas}"
    for given in plan.giving_way:
        replica, endpoint = replicas.get(given.replica_id), endpoints.get(given.endpoint_id)
        if replica is None or replica.endpoint_id != given.endpoint_id or endpoint is None:
            yield f"{given.replica_id} would give way, but no live replica of {given.endpoint_id} is called so"
        elif replica.phase != "ready" or replica.unassign_at is not None:
            yield f"{given.replica_id} would give way, but requests do not go to it"
        elif (
            given.replica_id not in endpoint.idle_replicas
            or endpoint.idle_told_at is None
            or plan.at - endpoint.idle_told_at > snapshot.policy.idle_fresh
        ):
            yield f"{given.replica_id} would give way, but nobody said lately that it is idle"
        elif not _helps_somebody(replica, snapshot, plan):
            yield f"{given.replica_id} would give way, but nobody who waits could have its room"


def _helps_somebody(replica: Replica, snapshot: Snapshot, plan: Plan) -> bool:
    """Whether one who waits would fit on the replica's host, once all has ended there that is about to."""
    going = {given.replica_id for given in plan.giving_way}
    going.update(each.replica_id for each in snapshot.replicas if each.unassign_at is not None)
    ended = [each for each in snapshot.replicas if each.replica_id in going]
    later = replace(
        snapshot,
        hosts=tuple(host for host in snapshot.hosts if host.host_id == replica.host_id),
        replicas=tuple(each for each in snapshot.replicas if each.replica_id not in going),
        reserved=snapshot.reserved.difference(*(each.gpu_uuids for each in ended)),
    )
    staying = _staying(snapshot)
    staying.update(place.endpoint_id for place in plan.placed)
    return any(
        endpoint.endpoint_id != replica.endpoint_id
        and endpoint.state in _MAY_RUN
        and staying[endpoint.endpoint_id] < _must_have(endpoint)
        and _fits_somewhere(endpoint.demand, later, plan)
        for endpoint in snapshot.endpoints
    )


def _notice_violations(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """Hosts are lost once they are silent; only waiting endpoints are told to wait, only stopped ones purged."""
    hosts = {host.host_id: host for host in snapshot.hosts}
    for loss in plan.lost:
        host = hosts.get(loss.host_id)
        if host is None or host.state != "up":
            yield f"{loss.host_id} would be lost, but it is not up"
        elif plan.at - max(host.last_seen_at, snapshot.listening_since) < snapshot.policy.lost_after:
            yield f"{loss.host_id} would be lost, but it was heard of lately"
    endpoints = {endpoint.endpoint_id: endpoint for endpoint in snapshot.endpoints}
    placed = Counter(place.endpoint_id for place in plan.placed)
    for wait in plan.waiting:
        known = endpoints.get(wait.endpoint_id)
        if known is None or known.state not in _MAY_RUN or wait.endpoint_id in placed:
            yield f"{wait.endpoint_id} would be told to wait, but it does not"
    having = _staying(snapshot)
    having.update(placed)
    for short in plan.short:
        known = endpoints.get(short.endpoint_id)
        if known is None or known.state not in _MAY_RUN:
            yield f"{short.endpoint_id} would be told of a shortage, but it does not run"
        elif short.text and not 0 < having[short.endpoint_id] < known.desired_replicas:
            yield f"{short.endpoint_id} would be told of a shortage, but it has none"
    for purge in plan.purged:
        known = endpoints.get(purge.endpoint_id)
        if known is None or known.state != "stopped":
            yield f"{purge.endpoint_id} would be purged, but it is not stopped"


def _name(place: Place) -> str:
    return f"replica {place.generation} of {place.endpoint_id}"
