"""What a host says of itself every few seconds on core NATS; losing one costs nothing."""

from penstock_common.contracts.base import Contract
from penstock_common.contracts.events import ReplicaReported


class Gpu(Contract):
    uuid: str
    type: str
    memory_gb: int


class Inventory(Contract):
    cpu_cores: int
    memory_gb: int
    disk_gb: int
    gpus: tuple[Gpu, ...]
    simulated: bool = False
    """Whether the GPUs are made up by settings, to try the platform without them."""


class Heartbeat(Contract):
    """Published on `hosts.<host_id>.heartbeat`. Reports repeat each replica's last state, so a lost
    report is never missed for longer than a heartbeat."""

    host_id: str
    boot_id: str
    """Changes when the machine boots, so the scheduler can tell a restart of the host."""
    driver: str
    inventory: Inventory
    reports: tuple[ReplicaReported, ...]
    leaving: bool = False
    """The host is shutting down and has stopped its replicas."""
