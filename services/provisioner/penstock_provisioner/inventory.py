"""What this machine has: CPU, memory, disk and NVIDIA GPUs."""

import logging
import os
import re
import shutil
from pathlib import Path

import pynvml

from penstock_common.contracts.heartbeat import Gpu, Inventory
from penstock_provisioner.gpus import gpu_type, parse_simulated_gpus
from penstock_provisioner.helpers import HelperFailed, Helpers

log = logging.getLogger(__name__)

_GIB = 1024**3
_CGROUP = Path("/sys/fs/cgroup")
_DU_TIMEOUT_S = 600.0


def take_inventory(host_id: str, disk: Path, simulate_gpus: str) -> Inventory:
    """What replicas of this host can be given.

    Disk is what is free now on the file system of `disk`: `with_own_disk` adds what this host's own files
    take. Simulated GPUs stand in for real ones, which are then not offered, so that no bill mixes the two.
    """
    simulated = parse_simulated_gpus(simulate_gpus, host_id=host_id)
    return Inventory(
        cpu_cores=cpu_cores(),
        memory_gb=memory_bytes() // _GIB,
        disk_gb=shutil.disk_usage(disk).free // _GIB,
        gpus=simulated or nvidia_gpus(),
        simulated=bool(simulated),
    )


async def own_disk_bytes(own: Path, cache: Path, helpers: Helpers) -> int:
    """Bytes on the disk of `own` that this host's state and caches take; a file with several names counts once.

    0, which is too little, where that cannot be found out in time.
    """
    # By another program, as caches may hold a million files.
    command = ["du", "-s", "-k", "-x", "--", str(own), *([str(cache)] if _counts_apart(own, cache) else [])]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    try:
        found = await helpers.run(command, cwd=Path("/"), env=environment, timeout_s=_DU_TIMEOUT_S)
    except (HelperFailed, OSError) as error:
        log.warning("less disk is offered than there is: counting what is used failed", extra={"error": str(error)})
        return 0
    # Its exit code is 1 for a file that vanished meanwhile; what it says counts all the same.
    return sum(int(kilobytes) for kilobytes in re.findall(rb"^(\d+)\t", found.stdout, re.MULTILINE)) * 1024


def _counts_apart(own: Path, cache: Path) -> bool:
    return not cache.is_relative_to(own) and cache.stat().st_dev == own.stat().st_dev


def with_own_disk(inventory: Inventory, disk: Path, used_bytes: int) -> Inventory:
    """The inventory with all the disk that replicas can be given, also what they and the caches take already.

    The scheduler subtracts what it has reserved for replicas, so what they use must not be missing from
    this number too: it stays the same while they come and go and the provisioner starts again.
    """
    free_bytes = shutil.disk_usage(disk).free
    return inventory.model_copy(update={"disk_gb": (free_bytes + used_bytes) // _GIB})


def cpu_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use: those it is bound to, within a container's quota."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory of the machine, within a container's limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(cgroup / "memory.max")
    return min(machine, int(limit)) if limit.isdigit() else machine


def nvidia_gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVML finds. Without its driver there are none; a GPU that cannot be read is left out."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("no NVIDIA GPUs", extra={"reason": str(error)})
        return ()
    try:
        return tuple(gpu for number in range(pynvml.nvmlDeviceGetCount()) if (gpu := _nvidia_gpu(number)))
    finally:
        # NVML keeps the devices open, and open files would pass to nobody's use.
        pynvml.nvmlShutdown()


def _nvidia_gpu(number: int) -> Gpu | None:
    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(number)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        return Gpu(
            uuid=pynvml.nvmlDeviceGetUUID(device),
            type=gpu_type(pynvml.nvmlDeviceGetName(device)),
            memory_gb=round(memory.total / _GIB),
        )
    except pynvml.NVMLError as error:
        log.error("a GPU cannot be read and is not offered", extra={"gpu": number, "error": str(error)})
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
