"""The whole platform on this machine: what is started in which order, and stopped in which."""

import asyncio
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from penstock_launcher import environment
from penstock_launcher.children import die_with_parent
from penstock_launcher.errors import LauncherError
from penstock_launcher.files import tail
from penstock_launcher.layout import Layout
from penstock_launcher.nats import NatsError, NatsServer
from penstock_launcher.options import UpOptions
from penstock_launcher.postgres import PostgresError, PostgresServer
from penstock_launcher.probes import accepts, answers_ready, host_has_joined
from penstock_launcher.processes import PROCESS, sweep
from penstock_launcher.program import Program, ProgramSpec
from penstock_launcher.state import State

READY_WAIT_S = 60.0
EXITS_MAX = 3
"""A service that ends this often before it was ever ready will not get better by itself."""
SET_UP_WAIT_S = 60.0
DRAIN_WAIT_S = 6.0
KEY_WAIT_S = 30.0
SERVICE_GRACE_S = 15.0
PROVISIONER_GRACE_S = 45.0
"""It stops its replicas first, each with the grace of its own."""
SWEEP_GRACE_S = 5.0


class Platform:
    """Servers and services of one data directory. `start()` once, then `stop()` once."""

    def __init__(
        self,
        layout: Layout,
        state: State,
        options: UpOptions,
        base: Mapping[str, str],
        *,
        changed: Callable[[], None],
        step: Callable[[str], None],
    ) -> None:
        self._layout = layout
        self._state = state
        self._options = options
        self._base = dict(base)
        self._changed = changed
        self._step = step
        self._movement = asyncio.Event()
        # Servers are started from these threads, and the kernel takes the end of the starting thread
        # for the death of the parent: they live as long as this process.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="servers")
        self._nats = NatsServer(layout.nats, port=state.ports["nats"], passwords=state.passwords)
        self._postgres = PostgresServer(layout.postgres, port=state.ports["postgres"])
        self._complete = False
        self.programs: dict[str, Program] = {}

    async def start(self) -> None:
        """Start everything and wait until it is ready. Raises LauncherError, with some still running."""
        set_up = await self._administration("set-up")
        try:
            await self._start_servers()
            addresses = await self._set_up(set_up)
        finally:
            await _end(set_up)
        for service in environment.SERVICES:
            variables = environment.of_service(service, self._base, self._state, addresses)
            self._add(self._service(service, variables))
        await asyncio.gather(*(self.programs[service].start() for service in environment.SERVICES))
        # The key needs the API's tables only, which it makes itself if it comes first.
        making_key = asyncio.create_task(self._make_key(addresses))
        try:
            await self._all_ready()
            await making_key
        finally:
            making_key.cancel()
        self._complete = True

    async def stop(self) -> None:
        """Stop in order, so that every bill is closed; then end whatever is left of this data directory."""
        if self._complete:
            draining = await self._administration("drain")
            self._step("stopping replicas")
            await self._stop("provisioner")
            await self._drain(draining)
        self._step("stopping services")
        await self._stop("provisioner")
        await self._stop("scheduler")
        await self._stop("api", "billing", "gateway")
        self._step("stopping servers")
        await self._stop("nats")
        await self._stop("postgres")
        await asyncio.to_thread(sweep, self._layout.root, grace_s=SWEEP_GRACE_S)
        self._threads.shutdown()

    # --- servers --------------------------------------------------------------------------

    async def _start_servers(self) -> None:
        self._add(self._server("nats", self._nats.start, self._nats.log_path, signal.SIGTERM))
        if self._options.database_url is None:
            self._add(self._server("postgres", self._postgres.start, self._postgres.log_path, signal.SIGINT))
        try:
            await asyncio.gather(*(program.start() for program in self.programs.values()))
        except (NatsError, PostgresError, OSError) as error:
            raise LauncherError(str(error)) from error

    def _server(
        self, name: str, start: Callable[[], subprocess.Popen[bytes]], log_path: Path, stop_signal: signal.Signals
    ) -> ProgramSpec:
        async def launch() -> subprocess.Popen[bytes]:
            return await asyncio.get_running_loop().run_in_executor(self._threads, start)

        async def is_ready() -> bool:
            return True  # start() returns when it is

        return ProgramSpec(name, launch, is_ready, log_path, stop_signal=stop_signal, grace_s=25)

    # --- administration -------------------------------------------------------------------

    async def _administration(self, task: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *_python("penstock_launcher.administration", task),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._layout.root,
            env={**environment.without_indexes(self._base), PROCESS: task},
            preexec_fn=die_with_parent(signal.SIGKILL),
        )

    async def _ask(self, process: asyncio.subprocess.Process, *, wait_s: float) -> tuple[bytes, bytes]:
        task = {
            "database_url": self._options.database_url or self._postgres.url,
            "nats_url": self._nats.url,
            "passwords": self._state.passwords,
        }
        async with asyncio.timeout(wait_s):
            return await process.communicate(json.dumps(task).encode())

    async def _set_up(self, process: asyncio.subprocess.Process) -> environment.Addresses:
        try:
            answer, failure = await self._ask(process, wait_s=SET_UP_WAIT_S)
        except TimeoutError:
            raise LauncherError(f"NATS and PostgreSQL could not be set up within {SET_UP_WAIT_S:g} s") from None
        if process.returncode != 0:
            where = "the PostgreSQL of DATABASE_URL" if self._options.database_url else "PostgreSQL"
            raise LauncherError(f"NATS or {where} could not be set up: {failure.decode(errors='replace').strip()}")
        return environment.Addresses(nats_url=self._nats.url, databases=json.loads(answer))

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        try:
            answer, failure = await self._ask(process, wait_s=DRAIN_WAIT_S)
            if json.loads(answer or b"false"):
                return
        except TimeoutError:
            failure = b""
        finally:
            await _end(process)
        detail = failure.decode(errors="replace").strip()
        self._step(f"some messages are left to be handled at the next start {detail}".strip())

    # --- services -------------------------------------------------------------------------

    def _service(self, service: str, variables: dict[str, str]) -> ProgramSpec:
        log_path = self._layout.log(service)
        prepare = die_with_parent(signal.SIGKILL)
        ops_port = self._state.ports[service]
        public_port = self._state.ports.get(f"{service}-http")

        def spawn() -> subprocess.Popen[bytes]:
            with log_path.open("ab") as log:
                return subprocess.Popen(
                    _python(f"penstock_{service}"),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._layout.root,
                    env=variables,
                    preexec_fn=prepare,
                )

        async def launch() -> subprocess.Popen[bytes]:
            return spawn()

        async def is_ready() -> bool:
            if not await answers_ready(ops_port):
                return False
            if service == "provisioner":
                # Only then can an endpoint start: before, it would wait for a first host.
                return await host_has_joined(self._state.ports["scheduler"])
            return public_port is None or await accepts(public_port)

        grace_s = PROVISIONER_GRACE_S if service == "provisioner" else SERVICE_GRACE_S
        return ProgramSpec(service, launch, is_ready, log_path, grace_s=grace_s)

    async def _all_ready(self) -> None:
        deadline = time.monotonic() + READY_WAIT_S
        while True:
            self._movement.clear()
            waiting = [program for program in self.programs.values() if program.state != "ready"]
            if not waiting:
                return
            for program in waiting:
                if program.exits >= EXITS_MAX:
                    raise _not_ready(program, f"{program.spec.name} ended {program.exits} times while starting")
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._movement.wait()
            except TimeoutError:
                raise _not_ready(waiting[0], f"{waiting[0].spec.name} was not ready after {READY_WAIT_S:g} s") from None

    async def _make_key(self, addresses: environment.Addresses) -> None:
        """The first organization, its owner, and the owner's API key in a file, unless there is one."""
        if self._layout.api_key.exists():
            return
        log_path = self._layout.log("first-key")
        variables = environment.of_service("api", self._base, self._state, addresses)
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *_python("penstock_api", "bootstrap", "--organization", "default"),
                "--key-file",
                str(self._layout.api_key),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._layout.root,
                env=variables,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        try:
            async with asyncio.timeout(KEY_WAIT_S):
                code = await process.wait()
        except TimeoutError:
            code = None
        finally:
            await _end(process)
        if code != 0:
            raise LauncherError("the first API key could not be made", log_path=log_path, log_tail=tail(log_path))

    # --- programs -------------------------------------------------------------------------

    def _add(self, spec: ProgramSpec) -> None:
        self.programs[spec.name] = Program(spec, functools.partial(self._program_changed, spec.name))

    def _program_changed(self, name: str) -> None:
        program = self.programs[name]
        if program.state == "ready" and program.exits == 0:
            self._step(f"{name} is ready ({program.ready_after_s:.1f} s)")
        self._movement.set()
        self._changed()

    async def _stop(self, *names: str) -> None:
        await asyncio.gather(*(self.programs[name].stop() for name in names if name in self.programs))


def _not_ready(program: Program, message: str) -> LauncherError:
    return LauncherError(message, log_path=program.spec.log_path, log_tail=program.log_tail())


def _python(module: str, *arguments: str) -> list[str]:
    # -P: a module in the current directory is never taken for one of ours.
    return [sys.executable, "-P", "-m", module, *arguments]


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
