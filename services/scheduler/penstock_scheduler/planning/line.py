"""The queue: who misses replicas, who gets room now, and who waits for what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from penstock_scheduler import reasons
from penstock_scheduler.domain import WANTED_STATES, Demand, EndpointRecord, Place, Snapshot
from penstock_scheduler.room import HostRoom, Room


@dataclass(frozen=True, slots=True)
class Entry:
    """An endpoint in the queue, with how many replicas it has and how many it misses."""

    endpoint: EndpointRecord
    live: int
    missing: int
    extra: bool = False
    """These are more than it must have: they come after everybody who must have some."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """An endpoint that has no room now for what it must have. `live` replicas of it run or start all the same."""

    endpoint: EndpointRecord
    live: int
    missing: int
    position: int
    reason: str
    estimated_start_at: datetime | None


@dataclass(frozen=True, slots=True)
class Taken:
    """Room that a walk gave out, or holds for an endpoint that waits after a crash."""

    host_id: str
    demand: Demand
    gpu_uuids: tuple[str, ...]


@dataclass
class Walk:
    """What going through the queue once led to, so far."""

    room: Room
    placed: list[Place] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    shortages: dict[str, str] = field(default_factory=dict)
    """Endpoint → what there is no room for, for those that have some of their replicas."""


def waiting_entries(snapshot: Snapshot) -> list[Entry]:
    """Endpoints that miss replicas: first those that miss what they must have, first come first; then those
    that desire more than they must have, the ones with the fewest first.

    Who desires any must have one.
    """
    staying = Counter(replica.endpoint_id for replica in snapshot.replicas if not replica.leaving)
    found: list[Entry] = []
    for endpoint in snapshot.endpoints:
        if endpoint.state not in WANTED_STATES:
            continue
        live = staying[endpoint.endpoint_id]
        needed = min(endpoint.desired_replicas, max(1, endpoint.required_replicas))
        if live < needed:
            found.append(Entry(endpoint, live, needed - live))
        more = endpoint.desired_replicas - max(live, needed)
        if more > 0:
            found.append(Entry(endpoint, max(live, needed), more, extra=True))
    return sorted(found, key=_place_in_line)


def _place_in_line(entry: Entry) -> tuple[bool, int, datetime, str]:
    return (
        entry.extra,
        entry.live if entry.extra else 0,
        entry.endpoint.requested_at,
        entry.endpoint.endpoint_id,
    )


def walk_queue(snapshot: Snapshot, entries: Sequence[Entry], now: datetime) -> Walk:
    """Place what fits, in order. The first that waits in each line has what it waits for kept free.

    Later ones in the same line may use only what is left over; other lines go on. An endpoint that
    waits after a crash keeps the room it will need. Nothing is kept for replicas that are extra.
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
        if entry.live + placed:
            walk.shortages[entry.endpoint.endpoint_id] = lack.shortage
        if entry.extra:
            continue
        position = in_line[demand.line] + 1
        estimate = None
        if lack.soonest is not None:
            in_line[demand.line] += 1  # one that no host can run holds up nobody
            if demand.line not in kept:
                estimate = _estimate(snapshot, demand, lack.soonest, now)
                lack.soonest.keep(demand)
                kept.add(demand.line)
        reason = f"{lack.text}; {reasons.in_line(position, demand.line)}"
        missing = entry.missing - placed
        walk.blocked.append(Blocked(entry.endpoint, entry.live + placed, missing, position, reason, estimate))
    return walk


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why a demand has no room; worked out once for all who ask for the same."""

    text: str
    shortage: str
    """The same for those that have some of their replicas."""
    soonest: HostRoom | None
    """The host where it will probably fit first; None if none could ever run it."""


def _lack(demand: Demand, room: Room, snapshot: Snapshot) -> _Lack:
    rooms = room.with_type(demand.gpu_type)
    text = reasons.not_now(demand, rooms, snapshot.hosts)
    return _Lack(text, reasons.no_more(demand, rooms), room.soonest(demand))


def _place_missing(walk: Walk, entry: Entry, now: datetime) -> int:
    """Take room for the replicas that are missing, and place them if they may start; how many."""
    endpoint = entry.endpoint
    for count in range(entry.missing):
        room = walk.room.best(endpoint.demand)
        if room is None:
            return count
        gpu_uuids = room.take(endpoint.demand)
        walk.taken.append(Taken(room.host.host_id, endpoint.demand, gpu_uuids))
        if waits_after_crash(endpoint, now):
            continue  # the room is kept for it until then
        before = sum(place.endpoint_id == endpoint.endpoint_id for place in walk.placed)
        reason = f"first in the queue for {reasons.needs(endpoint.demand)}, which {room.host.host_id} has free"
        walk.placed.append(
            Place(endpoint.endpoint_id, endpoint.generation + before + 1, room.host.host_id, gpu_uuids, reason)
        )
    return entry.missing


def waits_after_crash(endpoint: EndpointRecord, now: datetime) -> bool:
    """Whether none of its replicas may start yet."""
    return endpoint.next_start_at is not None and endpoint.next_start_at > now


def _estimate(snapshot: Snapshot, demand: Demand, soonest: HostRoom, now: datetime) -> datetime | None:
    """When the first in line may start, if replicas that are stopping free enough for it.

    When a replica that drains is done, nobody knows.
    """
    missing = demand.gpu_count - soonest.free_gpus(demand.gpu_type)
    if snapshot.release_s is None or missing <= 0:
        return None
    of_type = {gpu.uuid for gpu in soonest.host.gpus if gpu.type == demand.gpu_type}
    ends = sorted(
        replica.unassign_at
        for replica in snapshot.replicas
        if replica.unassign_at is not None and not replica.draining
        for gpu_uuid in replica.gpu_uuids
        if gpu_uuid in of_type
    )
    if len(ends) < missing:
        return None
    return max(now, ends[missing - 1] + timedelta(seconds=snapshot.release_s))
