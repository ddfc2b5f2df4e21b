"""The gateway as a process of its own, started from a snapshot on disk."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from penstock_gateway.snapshots import Snapshot, save
from tests_support.servers import free_port

from .plane import key_record, ready, route
from .replica import ScriptedReplica


class Process:
    """`python -m penstock_gateway`, with a snapshot on disk; no server is reached unless the settings say where."""

    def __init__(self, data_dir: Path, port: int, settings: Mapping[str, object] | None = None) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "PENSTOCK_GATEWAY_PORT": str(port),
            "PENSTOCK_DATA_DIR": str(data_dir),
            "PENSTOCK_NATS_URL": f"nats://127.0.0.1:{free_port()}",
            "PENSTOCK_SHUTDOWN_GRACE_S": "10",
            **{f"PENSTOCK_{name.upper()}": str(value) for name, value in (settings or {}).items()},
        }
        self._log = b""

    async def __aenter__(self) -> "Process":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_gateway", env=self._environment, stderr=asyncio.subprocess.PIPE
        )
        assert self._process.stderr is not None
        while b'"listening"' not in self._log:
            line = await asyncio.wait_for(self._process.stderr.readline(), 20)
            assert line, self._log.decode()
            self._log += line
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._log += line

    async def stop(self) -> int:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self._process.wait(), 20)
        await self._reading
        return code

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def saved(data_dir: Path, *replicas: ScriptedReplica, concurrency: int = 8) -> None:
    served = route(replicas=ready(*replicas), target_concurrency=concurrency)
    save(data_dir / "gateway" / "snapshot.json", Snapshot(routes=(served,), api_keys=(key_record(),)))
