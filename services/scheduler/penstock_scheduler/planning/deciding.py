"""`plan(snapshot, now)`: what should happen next, as data with its reasons.

Pure: no clock, no randomness, no I/O. The loss of a host is a plan of its own, so that what ran
there is placed again from a snapshot that knows of the loss.
"""

from collections import Counter
from datetime import datetime, timedelta

from penstock_scheduler.domain import WANTED_STATES, EndpointRecord, LoseHost, Plan, Shortage, Snapshot, Wait
from penstock_scheduler.planning import fleet
from penstock_scheduler.planning.giving_way import drain_began, give_way
from penstock_scheduler.planning.line import Blocked, Walk, waiting_entries, waits_after_crash, walk_queue

_ESTIMATE_SLACK = timedelta(seconds=5)
"""An estimate that moves by less is not told again."""


def plan(snapshot: Snapshot, now: datetime) -> Plan:
    """Everything due at `now`. The same arguments always give the same plan."""
    lost = fleet.lost_hosts(snapshot, now)
    if lost:
        return Plan(
            at=now,
            lost=tuple(LoseHost(host.host_id, fleet.silence(host, now)) for host in lost),
            ended=tuple(fleet.ends_with_hosts(lost, snapshot)),
            wake_at=now,
        )
    walk = walk_queue(snapshot, waiting_entries(snapshot), now)
    return Plan(
        at=now,
        ended=fleet.forgotten(snapshot, now),
        unassigned=fleet.due_unassignments(snapshot, now),
        placed=tuple(walk.placed),
        waiting=_notices(walk, snapshot, now),
        short=_shortages(walk, snapshot),
        giving_way=give_way(snapshot, walk, now),
        purged=fleet.purges(snapshot, now),
        wake_at=_wake_at(snapshot, walk, now),
        queued=len(walk.blocked),
    )


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
        if blocked.live == 0 and not waits_after_crash(blocked.endpoint, now) and _is_news(blocked)
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


def _shortages(walk: Walk, snapshot: Snapshot) -> tuple[Shortage, ...]:
    """Endpoints that have some of their replicas, and do not know what there is no room for, or that there is."""
    having = Counter(replica.endpoint_id for replica in snapshot.replicas if not replica.leaving)
    having.update(place.endpoint_id for place in walk.placed)
    found: list[Shortage] = []
    for endpoint in snapshot.endpoints:
        if endpoint.state in WANTED_STATES:
            text = walk.shortages.get(endpoint.endpoint_id, "") if having[endpoint.endpoint_id] else ""
            if text != endpoint.shortage:
                found.append(Shortage(endpoint.endpoint_id, text))
    return tuple(found)


# --- when to plan again ---------------------------------------------------------------------


def _wake_at(snapshot: Snapshot, walk: Walk, now: datetime) -> datetime | None:
    """The next moment at which a plan of an unchanged snapshot would differ."""
    policy = snapshot.policy
    due = [fleet.heard_until(host, snapshot) + policy.lost_after for host in snapshot.hosts if host.state == "up"]
    for replica in snapshot.replicas:
        if replica.unassigned_at is not None:
            # Only a heartbeat can change this, so there is no use in looking all the time.
            due.append(max(replica.unassigned_at + policy.forgotten_after, now + policy.notice_every))
        elif replica.unassign_at is not None:
            due.append(replica.unassign_at)
    if walk.blocked:
        # From then on a replica that still drains is not expected to end soon.
        due += [drain_began(replica, policy) + policy.idle_fresh for replica in snapshot.replicas if replica.draining]
    due += [endpoint.next_start_at for endpoint in snapshot.endpoints if endpoint.next_start_at is not None]
    due += [_tell_at(blocked.endpoint, snapshot, now) for blocked in _untold(walk, now)]
    if snapshot.next_purge_at is not None:
        due.append(snapshot.next_purge_at)
    return min((moment for moment in due if moment > now), default=None)
