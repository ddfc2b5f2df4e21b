"""A proxy as one writes it with aiohttp: its server and its client on uvloop, in one process."""

import json
from pathlib import Path

from bench.candidates.kinds import Endpoints
from bench.installing import environment, pinned_version
from bench.processes import Child

SERVER = Path(__file__).with_name("aiohttp_server.py")


class Aiohttp:
    name = "aiohttp"

    def prepare(self) -> str:
        environment(self.name)
        return pinned_version(self.name)

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        upstreams = {name: one.addresses[0] for name, one in endpoints.items()}
        command = [str(environment(self.name) / "python"), "-P", str(SERVER), str(port), json.dumps(upstreams)]
        return Child(command, core=core, log=folder / "aiohttp.log")
