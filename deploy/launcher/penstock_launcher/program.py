"""One supervised program: kept running, started again after a growing wait, stopped in order."""

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock_launcher.files import tail

log = logging.getLogger(__name__)

Launch = Callable[[], Awaitable[subprocess.Popen[bytes]]]
State = Literal["starting", "ready", "waiting", "stopped"]

WAIT_FIRST_S = 0.1
WAIT_MAX_S = 5.0
STEADY_S = 5.0
"""A program that ran this long is healthy: the next wait is the first again."""
READY_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """How to start one program, how to see that it is ready, and how to stop it.

    `launch` may raise; then, and when the program ends, it is called again. `grace_s` is how long
    the program may take to stop before it is killed.
    """

    name: str
    launch: Launch
    is_ready: Callable[[], Awaitable[bool]]
    log_path: Path
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 15.0


class Program:
    """Call `start()` once; `state`, `pid` and `exits` say how it goes, and `changed` is called at each change."""

    def __init__(self, spec: ProgramSpec, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.state: State = "stopped"
        self.pid: int | None = None
        self.exits = 0
        """How often it ended, or could not be started, without being asked to stop."""
        self.ready_after_s: float | None = None
        """Seconds from its latest start until it was ready."""
        self._changed = changed
        self._started = 0.0
        self._wait_s = WAIT_FIRST_S
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and keep it running from now on. Raises what the first `launch` raises."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_running(first), name=self.spec.name)
        await asyncio.shield(first)

    async def stop(self) -> None:
        """Ask it to stop, kill it after its grace, and do not start it again."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        self._set("stopped")

    def log_tail(self) -> str:
        return tail(self.spec.log_path)

    async def _keep_running(self, first: asyncio.Future[None]) -> None:
        try:
            process: subprocess.Popen[bytes] | None = await self._launch()
        except Exception as error:
            first.set_exception(error)
            return
        first.set_result(None)
        while True:
            if process is not None:
                await self._watch(process)
            self.pid = None
            if self._stopping.is_set():
                return
            self.exits += 1
            self._set("waiting")
            await self._pause()
            if self._stopping.is_set():
                return
            process = await self._launch_again()

    async def _launch(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        self._set("starting")
        process = await self.spec.launch()
        self.pid = process.pid
        self._changed()
        return process

    async def _launch_again(self) -> subprocess.Popen[bytes] | None:
        try:
            return await self._launch()
        except Exception as error:
            # Whatever it is, a full disk or a server still recovering, the mend is to try again.
            log.error("%s could not be started: %s", self.spec.name, error)
            return None

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Until it ends by itself, or was stopped."""
        ended = asyncio.create_task(_ended(process))
        stopping = asyncio.create_task(self._stopping.wait())
        readiness = asyncio.create_task(self._note_readiness())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, readiness):
            task.cancel()
        await asyncio.gather(stopping, readiness, return_exceptions=True)
        if self._stopping.is_set():
            await self._terminate(process, ended)
            return
        if time.monotonic() - self._started > STEADY_S:
            self._wait_s = WAIT_FIRST_S
        log.warning("%s ended %s; starting it again in %g s", self.spec.name, _how(process), self._wait_s)

    async def _terminate(self, process: subprocess.Popen[bytes], ended: asyncio.Task[None]) -> None:
        process.send_signal(self.spec.stop_signal)
        done, _ = await asyncio.wait({ended}, timeout=self.spec.grace_s)
        if not done:
            log.warning("%s did not stop within %g s and is killed", self.spec.name, self.spec.grace_s)
            process.kill()
            await ended

    async def _note_readiness(self) -> None:
        while True:
            if await self.spec.is_ready():
                break
            await asyncio.sleep(READY_EVERY_S)
        self.ready_after_s = time.monotonic() - self._started
        self._set("ready")

    async def _pause(self) -> None:
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, WAIT_MAX_S)
        try:
            await asyncio.wait_for(self._stopping.wait(), wait_s)
        except TimeoutError:
            return

    def _set(self, state: State) -> None:
        self.state = state
        self._changed()


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Returns once it ended and its exit status is known; no thread waits for it."""
    if process.poll() is not None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    process.wait()


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
