"""What this machine has: CPU, memory, disk and NVIDIA GPUs."""

import logging
import os
import shutil
from pathlib import Path

import pynvml

from penstock_common.contracts.heartbeat import Gpu, Inventory
from penstock_provisioner.gpus import gpu_type, parse_simulated_gpus

log = logging.getLogger(__name__)

_GIB = 1024**3
_CGROUP = Path("/sys/fs/cgroup")


def take_inventory(host_id: str, disk: Path, simulate_gpus: str) -> Inventory:
    """What replicas of this host can be given.

    Disk is what is free now on the file system of `disk`. Simulated GPUs stand in for real ones,
    which are then not offered, so that no bill mixes the two.
    """
    simulated = parse_simulated_gpus(simulate_gpus, host_id=host_id)
    return Inventory(
        cpu_cores=cpu_cores(),
        memory_gb=memory_bytes() // _GIB,
        disk_gb=shutil.disk_usage(disk).free // _GIB,
        gpus=simulated or nvidia_gpus(),
        simulated=bool(simulated),
    )


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
