"""What is due of hosts and replicas: what is lost, what stops now, what was never started."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from penstock_scheduler.domain import EndReplica, Host, Purge, Replica, Snapshot, Unassign


def heard_until(host: Host, snapshot: Snapshot) -> datetime:
    """The moment from which the host's silence counts: its own, never the scheduler's deafness."""
    return max(host.last_seen_at, snapshot.listening_since)


def lost_hosts(snapshot: Snapshot, now: datetime) -> list[Host]:
    """Hosts that are up and have been silent for too long."""
    limit = snapshot.policy.lost_after
    return [host for host in snapshot.hosts if host.state == "up" and now - heard_until(host, snapshot) >= limit]


def silence(host: Host, now: datetime) -> str:
    """Why a host is lost."""
    return f"no heartbeat for {(now - host.last_seen_at).total_seconds():.0f} s"


def ends_with_hosts(lost: Iterable[Host], snapshot: Snapshot) -> Iterable[EndReplica]:
    """What ran on hosts that are lost."""
    by_id = {host.host_id: host for host in lost}
    for replica in snapshot.replicas:
        host = by_id.get(replica.host_id)
        if host is not None:
            at = last_ran_at(replica, snapshot.alive_at.get(replica.replica_id, host.last_seen_at))
            yield EndReplica(replica.replica_id, replica.endpoint_id, "host_lost", at, f"{host.host_id} was lost")


def last_ran_at(replica: Replica, seen_at: datetime) -> datetime:
    """When a replica that nobody saw end last ran: never before it was ready, or placed."""
    return max(seen_at, replica.ready_at or replica.scheduled_at)


def due_unassignments(snapshot: Snapshot, now: datetime) -> tuple[Unassign, ...]:
    """Replicas whose time to finish is over: the moment after they left the route, or the drain limit."""
    return tuple(
        Unassign(replica.replica_id, replica.endpoint_id, "its last requests had time to finish")
        for replica in snapshot.replicas
        if replica.unassigned_at is None and replica.unassign_at is not None and replica.unassign_at <= now
    )


def forgotten(snapshot: Snapshot, now: datetime) -> tuple[EndReplica, ...]:
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


def purges(snapshot: Snapshot, now: datetime) -> tuple[Purge, ...]:
    """Endpoints stopped for so long that nobody will miss them."""
    after = snapshot.policy.purge_after
    return tuple(
        Purge(endpoint.endpoint_id, f"terminated because it was stopped and unused for {_span(after)}")
        for endpoint in snapshot.endpoints
        if endpoint.state == "stopped" and endpoint.stopped_at is not None and now - endpoint.stopped_at >= after
    )


def _span(length: timedelta) -> str:
    return f"{length.days} days" if length.days else f"{length.total_seconds():g} s"
