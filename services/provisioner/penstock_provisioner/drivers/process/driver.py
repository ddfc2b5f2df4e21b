"""The process driver: a replica is a supervised subprocess in its own directory and session.

Memory, disk and processor shares are not enforced, and nothing keeps one replica from another's
files: what needs that runs in containers.
"""

import asyncio
import contextlib
import json
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_common.contracts.records import Assignment
from penstock_provisioner.domain import Exit, Instance
from penstock_provisioner.drivers.process import procfs, shim
from penstock_provisioner.drivers.process.variables import ADDRESS, HOST_DIR, REPLICA, replica_variables
from penstock_provisioner.drivers.protocol import PrepareFailed, Progress, StartFailed
from penstock_provisioner.files import remove_tree
from penstock_provisioner.source.environment import Environments, InstallFailed
from penstock_provisioner.source.fetch import Sources
from penstock_provisioner.source.problems import SourceProblem
from penstock_provisioner.threads import in_thread
from penstock_provisioner.tracing import span

_HOST = "127.0.0.1"
_BACKLOG = 1024
_KILL_DEADLINE_S = 10.0
_OUTPUT = "output.log"
_EXIT = "exit"
_ENVIRONMENT = "environment"
"""A link to the environment that a replica is prepared from or runs in."""
_KEPT = frozenset({"replica.json", "log.json", _OUTPUT})
"""What `stop` leaves in a replica's directory: the reconciler still needs it."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What a plain process can be limited in."""

    open_files_max: int
    niceness: int


class ProcessDriver:
    """Replicas as processes. `directory_of` says where each keeps its files; `marks` go into its environment."""

    name = "process"

    def __init__(
        self,
        *,
        sources: Sources,
        environments: Environments,
        runtime: Path,
        directory_of: Callable[[str], Path],
        marks: Mapping[str, str],
        limits: ProcessLimits,
    ) -> None:
        self._sources = sources
        self._environments = environments
        self._runtime = runtime
        self._directory_of = directory_of
        self._marks = dict(marks)
        self._limits = limits

    async def prepare(self, assignment: Assignment, progress: Progress) -> None:
        """Fetch the pinned source into the replica's own directory, and build its environment."""
        source = assignment.source
        directory = self._directory_of(assignment.replica_id)
        await progress("fetching", f"{source.uri} at {source.commit[:12]}")
        try:
            with span("replica.fetch", assignment):
                await self._sources.copy(source.uri, source.ref, source.commit, directory / "source")
        except SourceProblem as problem:
            raise PrepareFailed("source_unavailable", problem.message) from problem
        await progress("installing", _packages(source.requirements))
        _mark_use(directory / _ENVIRONMENT, self._environments.path(source.requirements))
        try:
            with span("replica.install", assignment):
                await self._environments.ensure(source.requirements)
        except InstallFailed as failure:
            raise PrepareFailed("install_failed", str(failure)) from failure

    async def start(self, assignment: Assignment) -> Instance:
        """Bind the replica's port and hand it over: what connects waits until the replica answers."""
        directory = self._directory_of(assignment.replica_id)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
                listener.bind((_HOST, 0))
                listener.listen(_BACKLOG)
                address = f"{_HOST}:{listener.getsockname()[1]}"
                pid = self._spawn(assignment, directory, listener.fileno(), address)
        except OSError as error:
            raise StartFailed(f"this host could not start a process: {error.strerror or error}") from error
        return _instance(pid, address)

    def _spawn(self, assignment: Assignment, directory: Path, listen_fd: int, address: str) -> int:
        environment = self._environments.path(assignment.source.requirements)
        config = directory / "config.json"
        config.write_text(json.dumps(_config(assignment, directory / "source")))
        for folder in ("home", "tmp"):
            (directory / folder).mkdir(exist_ok=True)
        (directory / _EXIT).unlink(missing_ok=True)
        # -P keeps the model's files out of the server's imports: a file of theirs may be called json.py.
        command = [str(environment / "bin/python"), "-P", "-m", "penstock_runtime"]
        return shim.spawn(
            [*command, "--config", str(config), "--fd", str(shim.LISTEN_FD)],
            exit_file=directory / _EXIT,
            output=self.logs(assignment.replica_id),
            directory=directory / "source",
            env=replica_variables(
                assignment,
                directory=directory,
                environment=environment,
                runtime=self._runtime,
                address=address,
                marks=self._marks,
            ),
            listen_fd=listen_fd,
            open_files_max=min(self._limits.open_files_max, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            niceness=self._limits.niceness,
        )

    async def inspect(self, replica_id: str, instance: Instance) -> Exit | None:
        """None while its shell is alive; else what the shell wrote down."""
        known = _Process.parse(instance)
        with known.hold() as held:
            if held is not None and held.is_alive:
                return None
        return self._exit(replica_id, known, None)

    async def wait(self, replica_id: str, instance: Instance) -> Exit:
        """Sleeps in the kernel until then, also for a process that is not our child."""
        known = _Process.parse(instance)
        with known.hold() as held:
            code = await held.ended() if held is not None else None
        return self._exit(replica_id, known, code)

    async def stop(self, replica_id: str, instance: Instance | None, grace_s: float) -> bool:
        """SIGTERM to the group, SIGKILL after `grace_s`, then whatever escaped the group."""
        forced = False
        known = _Process.parse(instance) if instance else None
        if known is not None:
            with known.hold() as held:
                if held is not None:
                    forced = await _end_group(held, grace_s)
        leader = (known.pid, known.start_ticks) if known is not None and known.boot_id == procfs.boot_id() else None
        await procfs.kill_all(
            procfs.Finder({HOST_DIR: self._marks[HOST_DIR], REPLICA: replica_id}, leader=leader), _KILL_DEADLINE_S
        )
        await in_thread(_remove_working_files, self._directory_of(replica_id))
        return forced

    def logs(self, replica_id: str) -> Path:
        return self._directory_of(replica_id) / _OUTPUT

    async def list(self) -> Mapping[str, Instance]:
        """Found by the marks in the environment of each replica's shell, which leads its session."""
        found: dict[str, Instance] = {}
        for pid in procfs.pids():
            stat = procfs.stat(pid)
            if stat is None or not stat.is_alive or stat.session != pid:
                continue
            variables = procfs.environment(pid)
            if variables.get(HOST_DIR) == self._marks[HOST_DIR] and {REPLICA, ADDRESS} <= variables.keys():
                found[variables[REPLICA]] = _instance(pid, variables[ADDRESS])
        return found

    def _exit(self, replica_id: str, known: "_Process", code: int | None) -> Exit:
        """What the shell noted; else how the shell itself ended, if it was our child; else nobody knows."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            code = int((self._directory_of(replica_id) / _EXIT).read_text())
        kills = procfs.oom_kills()
        if known.oom_kills is None or kills is None or known.boot_id != procfs.boot_id():
            return Exit(code)
        return Exit(code, out_of_memory=kills > known.oom_kills)


@dataclass(frozen=True, slots=True)
class _Process:
    """What an instance's id says: which process of which boot, and what the kernel had killed before it."""

    pid: int
    start_ticks: int
    boot_id: str
    oom_kills: int | None

    @classmethod
    def parse(cls, instance: Instance) -> "_Process":
        pid, start_ticks, boot, kills = instance.id.split("/")
        return cls(int(pid), int(start_ticks), boot, int(kills) if kills else None)

    def format(self) -> str:
        return f"{self.pid}/{self.start_ticks}/{self.boot_id}/{'' if self.oom_kills is None else self.oom_kills}"

    @contextlib.contextmanager
    def hold(self) -> Iterator[procfs.Held | None]:
        """The process, if it still runs."""
        if self.boot_id != procfs.boot_id():
            yield None
            return
        with procfs.hold(self.pid, self.start_ticks) as held:
            yield held


def _instance(pid: int, address: str) -> Instance:
    # Its entry stays until it is reaped, and only `wait` and `stop` do that.
    stat = procfs.stat(pid)
    start_ticks = stat.start_ticks if stat is not None else 0
    return Instance(_Process(pid, start_ticks, procfs.boot_id(), procfs.oom_kills()).format(), address)


async def _end_group(leader: procfs.Held, grace_s: float) -> bool:
    if grace_s > 0:
        leader.send_group(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await leader.ended()
                return False
    leader.send_group(signal.SIGKILL)
    await leader.ended()
    return True


def _config(assignment: Assignment, source: Path) -> dict[str, object]:
    """The runtime's configuration file."""
    return {
        "directory": str(source),
        "routes": [route.model_dump(mode="json") for route in assignment.routes],
        "concurrency": assignment.concurrency,
        "name": f"{assignment.workspace}/{assignment.endpoint}",
    }


def _remove_working_files(directory: Path) -> None:
    if not directory.is_dir():
        return
    for entry in directory.iterdir():
        if entry.name in _KEPT:
            continue
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            entry.unlink(missing_ok=True)


def environments_in_use(replicas: Path) -> set[Path]:
    """The environments of all replicas with a directory in `replicas`.

    On disk, so that nothing is removed under a replica that was adopted, whatever else is known of it.
    """
    found: set[Path] = set()
    for link in replicas.glob(f"*/{_ENVIRONMENT}"):
        # Its replica may have ended this moment, and may have put anything there.
        with contextlib.suppress(OSError):
            found.add(link.readlink())
    return found


def _mark_use(link: Path, environment: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(environment)


def _packages(requirements: str) -> str:
    count = len(requirements.splitlines())
    return f"{count} package" if count == 1 else f"{count} packages"
