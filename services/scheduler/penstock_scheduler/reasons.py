"""Why an endpoint waits or failed, in words that say what to do about it."""

from collections.abc import Sequence
from datetime import timedelta

from penstock_common.contracts.events import EndCause
from penstock_scheduler.domain import Demand, Host
from penstock_scheduler.room import HostRoom, could_hold

_HOSTS_NAMED = 3
_ORDINALS = {1: "first", 2: "second", 3: "third"}

_CAUSES: dict[EndCause, str] = {
    "stopped": "the replica was stopped on its host",
    "crashed": "the model's process ended by itself",
    "start_failed": "the model could not be loaded",
    "start_timeout": "the model was not ready in time",
    "unresponsive": "the model no longer answered its health check",
    "out_of_memory": "the model ran out of memory",
    "source_unavailable": "the source could not be fetched",
    "install_failed": "the requirements could not be installed",
    "vanished": "the replica vanished from its host",
    "host_lost": "its host was lost",
    "host_left": "its host left",
}
_MENDS: dict[EndCause, str] = {
    "crashed": "Read the end of its log, mend the code and create the endpoint again.",
    "start_failed": "Read the end of its log, mend what fails while it is loaded and create the endpoint again.",
    "start_timeout": "Load less when the file is imported, or load it faster, and create the endpoint again.",
    "unresponsive": "Look in its log for what blocked the process, mend it and create the endpoint again.",
    "out_of_memory": "Create the endpoint again with more resources.memory_gb, or make the model use less.",
    "source_unavailable": "Check that the repository still exists, holds this commit and can be read from the host,"
    " and create the endpoint again.",
    "install_failed": "Mend requirements.txt so that it installs on an empty machine and create the endpoint again.",
}


def what_happened(cause: EndCause, exit_code: int | None, detail: str) -> str:
    """One clause on the end of a replica, such as `the model could not be loaded (exit code 3): …`."""
    code = "" if exit_code is None else f" (exit code {exit_code})"
    about = f": {detail.rstrip('. ')}" if detail else ""
    return f"{_CAUSES[cause]}{code}{about}"


def given_up(cause: EndCause, exit_code: int | None, detail: str, crashes: int) -> str:
    """Why an endpoint failed, and the mend."""
    sentence = what_happened(cause, exit_code, detail)
    return f"It failed {crashes} times in a row; the last time {sentence}. {_MENDS.get(cause, _MENDS['crashed'])}"


def backing_off(wait: timedelta, happened: str) -> str:
    return f"restarting in {wait.total_seconds():g} s after: {happened}"


def needs(demand: Demand) -> str:
    """`2 × RTX 4090`, or for the CPU `2 CPU cores, 4 GB of memory and 10 GB of disk`."""
    return f"{demand.gpu_count} × {demand.gpu_type}" if demand.gpu_type else _resources(demand)


def in_line(position: int, line: str) -> str:
    ordinal = _ORDINALS.get(position, f"number {position}")
    return f"{ordinal} in line for {line}"


def never_fits(demand: Demand, hosts: Sequence[Host]) -> tuple[tuple[str, str], ...]:
    """Why none of the hosts could ever run `demand`, as (field, message); empty when one could."""
    if not hosts or any(could_hold(host, demand) for host in hosts):
        return ()
    of_type = [host for host in hosts if host.gpu_count(demand.gpu_type)] if demand.gpu_type else list(hosts)
    if not of_type:
        types = sorted({gpu.type for host in hosts for gpu in host.gpus})
        there = f"there are: {', '.join(types)}" if types else "no host has a GPU: leave gpu out to use the CPU"
        return (("gpu.type", f"no host has {demand.gpu_type}; {there}"),)
    most = max(host.gpu_count(demand.gpu_type) for host in of_type)
    if most < demand.gpu_count:
        return (
            (
                "gpu.count",
                f"needs {needs(demand)} on one host, but no host has more than {most}: ask for {most} or fewer",
            ),
        )
    enough = [host for host in of_type if host.gpu_count(demand.gpu_type) >= demand.gpu_count]
    found: list[tuple[str, str]] = []
    for name, unit, needed, there_is in (
        ("cpu_cores", "CPU cores", demand.cpu_cores, max(host.cpu_cores for host in enough)),
        ("memory_gb", "GB of memory", demand.memory_gb, max(host.memory_gb for host in enough)),
        ("disk_gb", "GB of disk", demand.disk_gb, max(host.disk_gb for host in enough)),
    ):
        if needed > there_is:
            found.append(
                (
                    f"resources.{name}",
                    f"needs {needed} {unit} on one host, but no host that could run it has more than {there_is}",
                )
            )
    if not found:
        found.append(("resources", f"no one host has all of it: {_resources(demand)}; ask for less"))
    return tuple(found)


def not_now(demand: Demand, rooms: Sequence[HostRoom], hosts: Sequence[Host]) -> str:
    """What `demand` misses: `needs 2 × RTX 4090 on one host; 1 is free on host-a, 3 are in use`.

    `rooms` are the hosts that are up and have the GPU type, `hosts` all that are known.
    """
    problems = never_fits(demand, [host for host in hosts if host.state != "left"])
    if problems:
        return "; ".join(message for _, message in problems)
    able = [room for room in rooms if could_hold(room.host, demand)]
    if not able:
        return f"needs {needs(demand)} on one host; {_nobody_up(demand, hosts)}"
    fenced = [room.host.host_id for room in able if room.host.fenced]
    if len(fenced) == len(able):
        return f"needs {needs(demand)} on one host; {_named(fenced)} must first stop what it still runs from before"
    if demand.gpu_type is None:
        return f"needs {needs(demand)} on one host; {_cpu_left(able)}"
    return f"needs {needs(demand)} on one host; {_gpus_left(demand, rooms)}"


def no_more(demand: Demand, rooms: Sequence[HostRoom]) -> str:
    """What keeps an endpoint from having more replicas: `no host has a free RTX 4090 for more`.

    `rooms` are the hosts that are up and have the GPU type.
    """
    if demand.gpu_type is None:
        return f"no host has {_resources(demand)} free for more"
    if any(room.host.usable and room.free_gpus(demand.gpu_type) >= demand.gpu_count for room in rooms):
        return f"no host with {needs(demand)} free has {_resources(demand)} free for more"
    count = "a" if demand.gpu_count == 1 else demand.gpu_count
    return f"no host has {count} free {demand.gpu_type} for more"


def short(ready: int, desired: int, shortage: str) -> str:
    """`3 of 5 replicas run; no host has a free RTX 4090 for more`; empty without a shortage."""
    return f"{ready} of {desired} replicas run; {shortage}" if shortage else ""


def _nobody_up(demand: Demand, hosts: Sequence[Host]) -> str:
    lost = [host.host_id for host in hosts if host.state == "lost" and could_hold(host, demand)]
    if lost:
        return f"{_named(lost)} could run it but cannot be reached: check that its provisioner runs"
    return "no host has joined yet: start a provisioner"


def _gpus_left(demand: Demand, rooms: Sequence[HostRoom]) -> str:
    kind = demand.gpu_type
    free = {room.host.host_id: room.free_gpus(kind) + room.kept_gpus[kind or ""] for room in rooms}
    total = sum(room.host.gpu_count(kind) for room in rooms)
    used = total - sum(free.values())
    best = sorted((host_id for host_id in free if free[host_id]), key=lambda host_id: (-free[host_id], host_id))
    parts = [
        f"{free[host_id]} {'is' if free[host_id] == 1 else 'are'} free on {host_id}" for host_id in best[:_HOSTS_NAMED]
    ] or ["none is free"]
    parts += [f"{used} {'is' if used == 1 else 'are'} in use"] if used else []
    parts += _short_besides(demand, rooms)
    if any(room.kept_gpus[kind or ""] for room in rooms):
        parts.append("what is free is kept for an endpoint further ahead")
    return ", ".join(parts)


def _short_besides(demand: Demand, rooms: Sequence[HostRoom]) -> list[str]:
    """What else is missing on the host that has the GPUs."""
    for room in rooms:
        if room.free_gpus(demand.gpu_type) >= demand.gpu_count and not room.fits(demand):
            return [f"but {room.host.host_id} has only {_left(room)} free, and it needs {_resources(demand)}"]
    return []


def _cpu_left(rooms: Sequence[HostRoom]) -> str:
    best = sorted(rooms, key=lambda room: (-room.cpu_cores, -room.memory_gb, room.host.host_id))
    return ", ".join(f"{room.host.host_id} has {_left(room)} free" for room in best[:_HOSTS_NAMED])


def _left(room: HostRoom) -> str:
    return _amounts(max(0, room.cpu_cores), max(0, room.memory_gb), max(0, room.disk_gb))


def _resources(demand: Demand) -> str:
    return _amounts(demand.cpu_cores, demand.memory_gb, demand.disk_gb)


def _amounts(cpu_cores: int, memory_gb: int, disk_gb: int) -> str:
    cores = "1 CPU core" if cpu_cores == 1 else f"{cpu_cores} CPU cores"
    return f"{cores}, {memory_gb} GB of memory and {disk_gb} GB of disk"


def _named(host_ids: Sequence[str]) -> str:
    shown = sorted(host_ids)[:_HOSTS_NAMED]
    more = len(host_ids) - len(shown)
    return " and ".join(shown) + (f" and {more} more" if more else "")
