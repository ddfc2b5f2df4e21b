"""`plan(snapshot, now)`: what should happen next, as data with its reasons.

Pure: no clock, no randomness, no I/O. The loss of a host is a plan of its own, so that what ran
there is placed again from a snapshot that knows of the loss.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from penstock_scheduler import reasons
from penstock_scheduler.domain import (
    WANTED_STATES,
    Demand,
    EndpointRecord,
    EndReplica,
    Host,
    LoseHost,
    Place,
    Plan,
    Purge,
    Replica,
    Snapshot,
    Unassign,
    Wait,
)
from penstock_scheduler.room import HostRoom, Room

_ESTIMATE_SLACK = timedelta(seconds=5)
"""An estimate that moves by less is not told again."""


def plan(snapshot: Snapshot, now: datetime) -> Plan:
    """Everything due at `now`. The same arguments always give the same plan."""
    lost = _lost_hosts(snapshot, now)
    if lost:
        return Plan(
            at=now,
            lost=tuple(LoseHost(host.host_id, _silence(host, now)) for host in lost),
            ended=tuple(_ends_with_hosts(lost, snapshot)),
            wake_at=now,
        )
    walk = walk_queue(snapshot, waiting_entries(snapshot), now)
    unassigned = _due_unassignments(snapshot, now)
    forgotten = _forgotten(snapshot, now)
    purged = _purges(snapshot, now)
    waiting = _notices(walk, snapshot, now)
    return Plan(
        at=now,
        ended=forgotten,
        unassigned=unassigned,
        placed=tuple(walk.placed),
        waiting=waiting,
        purged=purged,
        wake_at=_wake_at(snapshot, walk, now),
        queued=len(walk.blocked),
    )


# --- hosts and replicas ---------------------------------------------------------------------


def heard_until(host: Host, snapshot: Snapshot) -> datetime:
    """The moment from which the host's silence counts: its own, never the scheduler's deafness."""
    return max(host.last_seen_at, snapshot.listening_since)


def _lost_hosts(snapshot: Snapshot, now: datetime) -> list[Host]:
    limit = snapshot.policy.lost_after
    return [host for host in snapshot.hosts if host.state == "up" and now - heard_until(host, snapshot) >= limit]


def _silence(host: Host, now: datetime) -> str:
    return f"no heartbeat for {(now - host.last_seen_at).total_seconds():.0f} s"


def _ends_with_hosts(lost: Iterable[Host], snapshot: Snapshot) -> Iterable[EndReplica]:
    by_id = {host.host_id: host for host in lost}
    for replica in snapshot.replicas:
        host = by_id.get(replica.host_id)
        if host is not None:
            at = last_ran_at(replica, snapshot.alive_at.get(replica.replica_id, host.last_seen_at))
            yield EndReplica(replica.replica_id, replica.endpoint_id, "host_lost", at, f"{host.host_id} was lost")


def last_ran_at(replica: Replica, seen_at: datetime) -> datetime:
    """When a replica that nobody saw end last ran: never before it was ready, or placed."""
    return max(seen_at, replica.ready_at or replica.scheduled_at)


def _due_unassignments(snapshot: Snapshot, now: datetime) -> tuple[Unassign, ...]:
    return tuple(
        Unassign(replica.replica_id, replica.endpoint_id, "its last requests had time to finish")
        for replica in snapshot.replicas
        if replica.unassigned_at is None and replica.unassign_at is not None and replica.unassign_at <= now
    )


def _forgotten(snapshot: Snapshot, now: datetime) -> tuple[EndReplica, ...]:
    """Replicas told to stop before their host ever saw their assignment: nobody will report them."""
    return tuple(
        EndReplica(
            replica.replica_id,
            replica.endpoint_id,
            "stopped",
            last_ran_at(replica, replica.unassigned_at),
            "its host does not know it",
        )
        for replica in snapshot.replicas
        if replica.replica_id in snapshot.unmentioned
        and replica.unassigned_at is not None
        and now - replica.unassigned_at >= snapshot.policy.forgotten_after
    )


def _purges(snapshot: Snapshot, now: datetime) -> tuple[Purge, ...]:
    after = snapshot.policy.purge_after
    return tuple(
        Purge(endpoint.endpoint_id, f"terminated because it was stopped and unused for {_span(after)}")
        for endpoint in snapshot.endpoints
        if endpoint.state == "stopped" and endpoint.stopped_at is not None and now - endpoint.stopped_at >= after
    )


def _span(length: timedelta) -> str:
    return f"{length.days} days" if length.days else f"{length.total_seconds():g} s"


# --- the queue ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """An endpoint in the queue, with how many replicas it has and how many it misses."""

    endpoint: EndpointRecord
    live: int
    missing: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """An endpoint that has no room now. `live` replicas of it run or start all the same."""

    endpoint: EndpointRecord
    live: int
    position: int
    reason: str
    estimated_start_at: datetime | None


@dataclass
class Walk:
    """What going through the queue once led to, so far."""

    room: Room
    placed: list[Place] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)


def waiting_entries(snapshot: Snapshot) -> list[Entry]:
    """Endpoints that miss replicas, first come first."""
    live = Counter(replica.endpoint_id for replica in snapshot.replicas if not replica.leaving)
    found = [
        Entry(endpoint, live[endpoint.endpoint_id], endpoint.replicas_wanted - live[endpoint.endpoint_id])
        for endpoint in snapshot.endpoints
        if endpoint.state in WANTED_STATES and endpoint.replicas_wanted > live[endpoint.endpoint_id]
    ]
    return sorted(found, key=lambda entry: (entry.endpoint.requested_at, entry.endpoint.endpoint_id))


def walk_queue(snapshot: Snapshot, entries: Sequence[Entry], now: datetime) -> Walk:
    """Place what fits, in order. The first that waits in each line has what it waits for kept free.

    Later ones in the same line may use only what is left over; other lines go on. An endpoint that
    waits after a crash keeps the room it will need.
    """
    walk = Walk(Room(snapshot))
    in_line: Counter[str] = Counter()
    kept: set[str] = set()
    lacks: dict[Demand, _Lack] = {}
    for entry in entries:
        demand = entry.endpoint.demand
        # What had no room has none later in the same walk: nothing frees up during a plan.
        placed = 0 if demand in lacks else _place_missing(walk, entry, now)
        if placed == entry.missing:
            continue
        if demand not in lacks:
            lacks[demand] = _lack(demand, walk.room, snapshot)
        lack = lacks[demand]
        position = in_line[demand.line] + 1
        estimate = None
        if lack.soonest is not None:
            in_line[demand.line] += 1  # one that no host can run holds up nobody
            if demand.line not in kept:
                estimate = _estimate(snapshot, demand, lack.soonest, now)
                lack.soonest.keep(demand)
                kept.add(demand.line)
        reason = f"{lack.text}; {reasons.in_line(position, demand.line)}"
        walk.blocked.append(Blocked(entry.endpoint, entry.live + placed, position, reason, estimate))
    return walk


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why a demand has no room; worked out once for all who ask for the same."""

    text: str
    soonest: HostRoom | None
    """The host where it will probably fit first; None if none could ever run it."""


def _lack(demand: Demand, room: Room, snapshot: Snapshot) -> _Lack:
    text = reasons.not_now(demand, room.with_type(demand.gpu_type), snapshot.hosts)
    return _Lack(text, room.soonest(demand))


def _place_missing(walk: Walk, entry: Entry, now: datetime) -> int:
    """Take room for the replicas that are missing, and place them if they may start; how many."""
    endpoint = entry.endpoint
    for count in range(entry.missing):
        room = walk.room.best(endpoint.demand)
        if room is None:
            return count
        gpu_uuids = room.take(endpoint.demand)
        if _waits_after_crash(endpoint, now):
            continue  # the room is kept for it until then
        reason = f"first in the queue for {reasons.needs(endpoint.demand)}, which {room.host.host_id} has free"
        walk.placed.append(
            Place(endpoint.endpoint_id, endpoint.generation + count + 1, room.host.host_id, gpu_uuids, reason)
        )
    return entry.missing


def _waits_after_crash(endpoint: EndpointRecord, now: datetime) -> bool:
    return endpoint.next_start_at is not None and endpoint.next_start_at > now


def _estimate(snapshot: Snapshot, demand: Demand, soonest: HostRoom, now: datetime) -> datetime | None:
    """When the first in line may start, if replicas that are stopping free enough for it."""
    missing = demand.gpu_count - soonest.free_gpus(demand.gpu_type)
    if snapshot.release_s is None or missing <= 0:
        return None
    of_type = {gpu.uuid for gpu in soonest.host.gpus if gpu.type == demand.gpu_type}
    ends = sorted(
        replica.unassign_at
        for replica in snapshot.replicas
        if replica.unassign_at is not None
        for gpu_uuid in replica.gpu_uuids
        if gpu_uuid in of_type
    )
    if len(ends) < missing:
        return None
    return max(now, ends[missing - 1] + timedelta(seconds=snapshot.release_s))


# --- what waiting endpoints are told --------------------------------------------------------


def _notices(walk: Walk, snapshot: Snapshot, now: datetime) -> tuple[Wait, ...]:
    return tuple(
        Wait(blocked.endpoint.endpoint_id, blocked.position, blocked.reason, blocked.estimated_start_at)
        for blocked in _untold(walk, now)
        if _tell_at(blocked.endpoint, snapshot, now) <= now
    )


def _untold(walk: Walk, now: datetime) -> list[Blocked]:
    """Endpoints that wait for room alone, and do not know where they stand."""
    return [
        blocked
        for blocked in walk.blocked
        if blocked.live == 0 and not _waits_after_crash(blocked.endpoint, now) and _is_news(blocked)
    ]


def _is_news(blocked: Blocked) -> bool:
    endpoint = blocked.endpoint
    if endpoint.state != "queued" or endpoint.position != blocked.position or endpoint.reason != blocked.reason:
        return True
    told, known = endpoint.estimated_start_at, blocked.estimated_start_at
    if told is None or known is None:
        return told is not known
    return abs(told - known) > _ESTIMATE_SLACK


def _tell_at(endpoint: EndpointRecord, snapshot: Snapshot, now: datetime) -> datetime:
    return now if endpoint.told_at is None else endpoint.told_at + snapshot.policy.notice_every


# --- when to plan again ---------------------------------------------------------------------


def _wake_at(snapshot: Snapshot, walk: Walk, now: datetime) -> datetime | None:
    """The next moment at which a plan of an unchanged snapshot would differ."""
    policy = snapshot.policy
    due = [heard_until(host, snapshot) + policy.lost_after for host in snapshot.hosts if host.state == "up"]
    for replica in snapshot.replicas:
        if replica.unassigned_at is not None:
            # Only a heartbeat can change this, so there is no use in looking all the time.
            due.append(max(replica.unassigned_at + policy.forgotten_after, now + policy.notice_every))
        elif replica.unassign_at is not None:
            due.append(replica.unassign_at)
    due += [endpoint.next_start_at for endpoint in snapshot.endpoints if endpoint.next_start_at is not None]
    due += [_tell_at(blocked.endpoint, snapshot, now) for blocked in _untold(walk, now)]
    if snapshot.next_purge_at is not None:
        due.append(snapshot.next_purge_at)
    return min((moment for moment in due if moment > now), default=None)
