"""What is still free while a plan is being made: taken from piece by piece, in queue order."""

from collections import defaultdict
from collections.abc import Iterable

from penstock_scheduler.domain import Demand, Gpu, Host, Replica, Snapshot


def could_hold(host: Host, demand: Demand) -> bool:
    """Whether the host, if nothing else ran there, could run a replica that needs `demand`."""
    return (
        host.gpu_count(demand.gpu_type) >= demand.gpu_count
        and host.cpu_cores >= demand.cpu_cores
        and host.memory_gb >= demand.memory_gb
        and host.disk_gb >= demand.disk_gb
    )


class HostRoom:
    """What one host has free. Lives no longer than one plan."""

    def __init__(self, host: Host, reserved: frozenset[str], replicas: Iterable[Replica]) -> None:
        self.host = host
        self.cpu_cores = host.cpu_cores
        self.memory_gb = host.memory_gb
        self.disk_gb = host.disk_gb
        self.leaving_gpus = 0
        for replica in replicas:
            self.cpu_cores -= replica.demand.cpu_cores
            self.memory_gb -= replica.demand.memory_gb
            self.disk_gb -= replica.demand.disk_gb
            self.leaving_gpus += len(replica.gpu_uuids) if replica.leaving else 0
        self._gpus: dict[str, list[Gpu]] = defaultdict(list)
        for gpu in sorted(host.gpus, key=lambda gpu: gpu.uuid):
            if gpu.uuid not in reserved:
                self._gpus[gpu.type].append(gpu)
        self.kept_gpus: dict[str, int] = defaultdict(int)
        """GPU type → how many are free, but kept for an endpoint that waits for more."""

    def free_gpus(self, gpu_type: str | None) -> int:
        """GPUs of this type that a replica may take now."""
        return len(self._gpus[gpu_type]) if gpu_type else 0

    def fits(self, demand: Demand) -> bool:
        return (
            self.cpu_cores >= demand.cpu_cores
            and self.memory_gb >= demand.memory_gb
            and self.disk_gb >= demand.disk_gb
            and (demand.gpu_type is None or len(self._gpus[demand.gpu_type]) >= demand.gpu_count)
        )

    def take(self, demand: Demand) -> tuple[str, ...]:
        """Use what one replica needs; returns its GPUs' UUIDs. Only where it fits."""
        self.cpu_cores -= demand.cpu_cores
        self.memory_gb -= demand.memory_gb
        self.disk_gb -= demand.disk_gb
        if demand.gpu_type is None:
            return ()
        free = self._gpus[demand.gpu_type]
        taken, self._gpus[demand.gpu_type] = free[: demand.gpu_count], free[demand.gpu_count :]
        return tuple(gpu.uuid for gpu in taken)

    def keep(self, demand: Demand) -> None:
        """Let nobody behind in the queue have what is free of the thing that `demand` waits for.

        Where GPUs are missing, the free ones are kept; where only CPU, memory or disk is missing,
        what is free of those is kept together with the GPUs.
        """
        free = self.free_gpus(demand.gpu_type)
        if demand.gpu_type is not None:
            kept = min(free, demand.gpu_count)
            self._gpus[demand.gpu_type] = self._gpus[demand.gpu_type][kept:]
            self.kept_gpus[demand.gpu_type] += kept
        if free >= demand.gpu_count:
            self.cpu_cores -= min(self.cpu_cores, demand.cpu_cores)
            self.memory_gb -= min(self.memory_gb, demand.memory_gb)
            self.disk_gb -= min(self.disk_gb, demand.disk_gb)

    def waiting_key(self, demand: Demand) -> tuple[int, int, int, int, int, str]:
        """Smaller where `demand` will probably fit sooner."""
        missing = max(0, demand.gpu_count - self.free_gpus(demand.gpu_type))
        return (
            max(0, missing - self.leaving_gpus),
            missing,
            max(0, demand.cpu_cores - self.cpu_cores),
            max(0, demand.memory_gb - self.memory_gb),
            max(0, demand.disk_gb - self.disk_gb),
            self.host.host_id,
        )

    def _packing_key(self, demand: Demand) -> tuple[int, int, int, str]:
        """Smaller where least is left over, so that large gaps stay for large demands."""
        if demand.gpu_type is None:
            # CPU-only replicas leave the cores of GPU hosts to those that need them.
            return (len(self.host.gpus), self.cpu_cores, self.memory_gb, self.host.host_id)
        return (len(self._gpus[demand.gpu_type]), self.cpu_cores, self.memory_gb, self.host.host_id)


class Room:
    """What the whole fleet has free."""

    def __init__(self, snapshot: Snapshot) -> None:
        on_host: dict[str, list[Replica]] = defaultdict(list)
        for replica in snapshot.replicas:
            on_host[replica.host_id].append(replica)
        self.hosts = [
            HostRoom(host, snapshot.reserved, on_host[host.host_id]) for host in snapshot.hosts if host.state == "up"
        ]
        self._of_type: dict[str | None, list[HostRoom]] = defaultdict(list)
        self._of_type[None] = self.hosts
        for room in self.hosts:
            for gpu_type in {gpu.type for gpu in room.host.gpus}:
                self._of_type[gpu_type].append(room)

    def with_type(self, gpu_type: str | None) -> list[HostRoom]:
        """Hosts that are up and have GPUs of this type; all that are up when it is None."""
        return self._of_type[gpu_type]

    def best(self, demand: Demand) -> HostRoom | None:
        """The host that a replica should go to now, or None when it fits nowhere."""
        fitting = [room for room in self.with_type(demand.gpu_type) if room.host.usable and room.fits(demand)]
        return min(fitting, key=lambda room: room._packing_key(demand), default=None)

    def soonest(self, demand: Demand) -> HostRoom | None:
        """The host where a replica that fits nowhere now will probably fit first."""
        able = [room for room in self.with_type(demand.gpu_type) if could_hold(room.host, demand)]
        return min(able, key=lambda room: room.waiting_key(demand), default=None)
