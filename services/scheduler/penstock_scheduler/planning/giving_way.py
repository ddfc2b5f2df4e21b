"""Idle replicas that make room for endpoints that wait.

Room that will be free soon anyway counts first; only what is missing besides is taken, from as few GPUs
as possible. Nobody gives up what it must have, nor what the autoscaler has not lately said is idle.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from penstock_scheduler.domain import WANTED_STATES, Demand, GiveWay, Policy, Replica, Snapshot
from penstock_scheduler.planning.line import Taken, Walk, waits_after_crash

REASON = "an idle replica makes room for an endpoint that waits"


@dataclass
class _Space:
    """What one host will have free."""

    cpu_cores: int
    memory_gb: int
    disk_gb: int
    gpus: Counter[str] = field(default_factory=Counter)

    def fits(self, demand: Demand) -> bool:
        return (
            self.cpu_cores >= demand.cpu_cores
            and self.memory_gb >= demand.memory_gb
            and self.disk_gb >= demand.disk_gb
            and (demand.gpu_type is None or self.gpus[demand.gpu_type] >= demand.gpu_count)
        )

    def add(self, demand: Demand, times: int = 1) -> None:
        """Give back what `demand` used; with `times` -1 take it."""
        self.cpu_cores += times * demand.cpu_cores
        self.memory_gb += times * demand.memory_gb
        self.disk_gb += times * demand.disk_gb
        if demand.gpu_type is not None:
            self.gpus[demand.gpu_type] += times * demand.gpu_count

    def with_all(self, replicas: Iterable[Replica]) -> "_Space":
        """The space, once these replicas have ended."""
        found = _Space(self.cpu_cores, self.memory_gb, self.disk_gb, self.gpus.copy())
        for replica in replicas:
            found.add(replica.demand)
        return found


def give_way(snapshot: Snapshot, walk: Walk, now: datetime) -> tuple[GiveWay, ...]:
    """Replicas to drain for those who wait, in the order of the queue."""
    idle = _idle_replicas(snapshot, now) if walk.blocked else {}
    if not idle:
        return ()
    spaces = _spaces_soon(snapshot, walk.taken, now)
    spare = _spare(snapshot)
    given: list[Replica] = []
    hopeless: set[Demand] = set()
    for blocked in walk.blocked:
        if blocked.endpoint.demand in hopeless or waits_after_crash(blocked.endpoint, now):
            continue
        for _ in range(blocked.missing):
            found = _cheapest(spaces, idle, spare, blocked.endpoint.demand, blocked.endpoint.endpoint_id)
            if found is None:
                if not blocked.live:  # otherwise its own idle replicas may help others
                    hopeless.add(blocked.endpoint.demand)
                break
            host_id, leaving = found
            spaces[host_id] = spaces[host_id].with_all(leaving)
            spaces[host_id].add(blocked.endpoint.demand, -1)
            spare.subtract(replica.endpoint_id for replica in leaving)
            idle[host_id] = [replica for replica in idle.get(host_id, []) if replica not in leaving]
            given += leaving
    return tuple(GiveWay(replica.replica_id, replica.endpoint_id, REASON) for replica in given)


def drain_began(replica: Replica, policy: Policy) -> datetime:
    """When a replica that drains began to."""
    assert replica.unassign_at is not None
    return replica.unassign_at - policy.drain_limit


def _ends_soon(replica: Replica, policy: Policy, now: datetime) -> bool:
    """Whether it is worth waiting for: one that drains for long may work on a long request."""
    return replica.leaving and (not replica.draining or now - drain_began(replica, policy) < policy.idle_fresh)


def _idle_replicas(snapshot: Snapshot, now: datetime) -> dict[str, list[Replica]]:
    """Host → replicas there that are known to be idle, newest first."""
    said = {
        replica_id
        for endpoint in snapshot.endpoints
        if endpoint.state in WANTED_STATES
        and endpoint.idle_told_at is not None
        and now - endpoint.idle_told_at <= snapshot.policy.idle_fresh
        for replica_id in endpoint.idle_replicas
    }
    usable = {host.host_id for host in snapshot.hosts if host.usable}
    found: dict[str, list[Replica]] = defaultdict(list)
    for replica in sorted(snapshot.replicas, key=_age, reverse=True):
        if replica.replica_id in said and replica.routable and replica.host_id in usable:
            found[replica.host_id].append(replica)
    return dict(found)


def _age(replica: Replica) -> tuple[datetime, int, str]:
    return replica.scheduled_at, replica.generation, replica.replica_id


def _spare(snapshot: Snapshot) -> Counter[str]:
    """Endpoint → how many replicas it has above what it must have."""
    found = Counter(replica.endpoint_id for replica in snapshot.replicas if not replica.leaving)
    found.subtract({endpoint.endpoint_id: endpoint.required_replicas for endpoint in snapshot.endpoints})
    return found


def _spaces_soon(snapshot: Snapshot, taken: Iterable[Taken], now: datetime) -> dict[str, _Space]:
    """Usable host → what it will have free once what ends soon has ended."""
    staying = [replica for replica in snapshot.replicas if not _ends_soon(replica, snapshot.policy, now)]
    ending = {
        gpu_uuid
        for replica in snapshot.replicas
        if _ends_soon(replica, snapshot.policy, now)
        for gpu_uuid in replica.gpu_uuids
    }
    spaces: dict[str, _Space] = {}
    for host in snapshot.hosts:
        if host.usable:
            gpus = (gpu for gpu in host.gpus if gpu.uuid not in snapshot.reserved or gpu.uuid in ending)
            space = _Space(host.cpu_cores, host.memory_gb, host.disk_gb, Counter(gpu.type for gpu in gpus))
            for replica in staying:
                if replica.host_id == host.host_id:
                    space.cpu_cores -= replica.demand.cpu_cores
                    space.memory_gb -= replica.demand.memory_gb
                    space.disk_gb -= replica.demand.disk_gb
            spaces[host.host_id] = space
    for each in taken:
        spaces[each.host_id].add(each.demand, -1)
    return spaces


def _cheapest(
    spaces: Mapping[str, _Space],
    idle: Mapping[str, Sequence[Replica]],
    spare: Mapping[str, int],
    demand: Demand,
    own_id: str,
) -> tuple[str, list[Replica]] | None:
    """The host where the fewest GPUs in use stand in the way, and whose; None where nothing helps."""
    found: list[tuple[int, int, str, list[Replica]]] = []
    for host_id, space in spaces.items():
        leaving = _in_the_way(space, idle.get(host_id, ()), spare, demand, own_id)
        if leaving is not None:
            found.append((sum(replica.demand.gpu_count for replica in leaving), len(leaving), host_id, leaving))
    if not found:
        return None
    *_, host_id, leaving = min(found, key=lambda each: each[:3])
    return host_id, leaving


def _in_the_way(
    space: _Space, idle: Sequence[Replica], spare: Mapping[str, int], demand: Demand, own_id: str
) -> list[Replica] | None:
    """Which of a host's idle replicas must end so that `demand` fits, no more than needed; None if it cannot."""
    chosen: list[Replica] = []
    per_endpoint: Counter[str] = Counter()
    # Those that hold what is wanted come first.
    for replica in sorted(idle, key=lambda each: each.demand.gpu_type != demand.gpu_type):
        if space.with_all(chosen).fits(demand):
            break
        if replica.endpoint_id != own_id and per_endpoint[replica.endpoint_id] < spare[replica.endpoint_id]:
            chosen.append(replica)
            per_endpoint[replica.endpoint_id] += 1
    if not space.with_all(chosen).fits(demand):
        return None
    for replica in list(chosen):
        others = [each for each in chosen if each is not replica]
        if space.with_all(others).fits(demand):
            chosen = others
    return chosen
