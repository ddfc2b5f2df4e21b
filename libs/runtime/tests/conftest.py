"""Replicas as real processes: `python -m penstock_runtime` with real model code, over real HTTP."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests_support import eventually


class Replica:
    """One running model server, its client and its log."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, folder: Path) -> None:
        self.process = process
        self.address = address
        self.folder = folder
        self.client = httpx.AsyncClient(base_url=f"http://{address}", timeout=20)

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def source(self) -> Path:
        return self.folder / "source"

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def ready(self) -> "Replica":
        """Waits for the first 200 of GET /ping."""

        async def answers() -> bool:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.errors}"
            try:
                return (await self.client.get("/ping")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(answers, deadline_s=30)
        return self

    async def ended(self, deadline_s: float = 20) -> int:
        """Waits for the end of the process; its exit code."""
        await eventually(lambda: self.process.poll() is not None, deadline_s)
        return int(self.process.returncode)

    async def close(self) -> None:
        await self.client.aclose()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Start(Protocol):
    """Starts a replica from source files and routes; a plain text is `predict.py`."""

    def __call__(
        self,
        source: str | Mapping[str, str] | Path,
        *routes: Mapping[str, Any],
        concurrency: int = 1,
        max_body_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "penstock_runtime"),
    ) -> Replica: ...


def route(path: str, function: str, *body: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A route to a function of predict.py."""
    return {"path": path, "file": "predict", "function": function, "body": list(body), **more}


def field(name: str, kind: str, **more: Any) -> dict[str, Any]:
    """A field of a body."""
    return {"name": name, "type": kind, **more}


def write_source(folder: Path, source: str | Mapping[str, str]) -> Path:
    """Writes a model's source, and answers its folder."""
    for name, text in {"predict.py": source}.items() if isinstance(source, str) else source.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts replicas, and ends them with the test."""
    replicas: list[Replica] = []

    def begin(
        source: str | Mapping[str, str] | Path,
        *routes: Mapping[str, Any],
        concurrency: int = 1,
        max_body_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "penstock_runtime"),
    ) -> Replica:
        folder = tmp_path / f"replica-{len(replicas)}"
        folder.mkdir()
        directory = source if isinstance(source, Path) else write_source(folder / "source", source)
        config = {"directory": str(directory), "routes": routes, "concurrency": concurrency, "name": "team/model"}
        if max_body_bytes is not None:
            config["max_body_bytes"] = max_body_bytes
        (folder / "config.json").write_text(json.dumps(config))
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            (folder / "stdout").open("wb") as stdout,
            (folder / "stderr").open("wb") as stderr,
        ):
            arguments = ["--config", str(folder / "config.json"), "--fd", str(listener.fileno())]
            process = subprocess.Popen(
                [*command, *arguments],
                pass_fds=[listener.fileno()],
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )
            host, port = listener.getsockname()
        replicas.append(Replica(process, f"{host}:{port}", folder))
        return replicas[-1]

    yield begin
    for replica in replicas:
        await replica.close()


class Gate:
    """A named pipe that model code waits at: `open(gate).close()` returns once the test has opened it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._fd: int | None = None
        os.mkfifo(path)

    def open(self) -> None:
        """Let pass whoever waits, and whoever comes later."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        os.write(self._fd, b".")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


OPENED = """
import asyncio, os

async def opened(gate):
    seen, loop = asyncio.Event(), asyncio.get_running_loop()
    fd = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
    loop.add_reader(fd, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
"""
"""Model code that waits at a gate without holding up its loop."""


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    yield made
    made.close()
