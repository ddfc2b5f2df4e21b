"""What every candidate is told, and what it must do."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.processes import Child

DOMAIN = "default.localhost"
API_KEY = "psk_0123456789abcdefghijklmnopqrstuv"
MANY_CONNECTIONS = 16_000
"""What candidates with a limit on connections are allowed: above the 10,000 idle ones."""


@dataclass(frozen=True)
class Upstreams:
    """The replicas of one endpoint. Each works on `concurrency` requests at the same time."""

    addresses: tuple[str, ...]
    concurrency: int = 1024
    streams: bool = False
    """Bodies and answers are to be passed on as they come."""


Endpoints = Mapping[str, Upstreams]
"""By name: requests with the Host `<name>.default.localhost` are for it."""


class Candidate(Protocol):
    """A gateway or proxy."""

    name: str

    def prepare(self) -> str:
        """Install it, where we can, and tell its version. Raises Failed."""

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        """Start it on `port` of 127.0.0.1 with its files in `folder`. Raises Failed."""


def host(endpoint: str, port: int) -> str:
    """The Host header of a request for an endpoint."""
    return f"{endpoint}.{DOMAIN}:{port}"


def plain_environment() -> dict[str, str]:
    """Our environment without any setting of Penstock."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
