"""What the provisioner's tests share: git repositories, a package index in a folder, a host with a faked platform."""

import asyncio
import contextlib
import io
import os
import subprocess
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock_runtime
from penstock_common.contracts.endpoint import BodyParameter, PinnedSource, Resources, RouteSpec
from penstock_common.contracts.events import LogBatch, LogLine, ReplicaReported
from penstock_common.contracts.records import Assignment
from penstock_provisioner.app import Host, open_host
from penstock_provisioner.drivers.process import procfs
from penstock_provisioner.drivers.process.variables import HOST_DIR
from penstock_provisioner.settings import ProvisionerSettings
from penstock_provisioner.source.installed import installed_pins
from tests_support import eventually

HOST_ID = "test-host"
ECHO = {"predict.py": "def predict(features):\n    return {'count': len(features)}\n"}
ROUTE = RouteSpec(
    path="/predict", file="predict", function="predict", body=(BodyParameter(name="features", type="list"),)
)


class Repository:
    """A git repository that tests write to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def uri(self) -> str:
        return str(self.path)

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.path, env=env, input=stdin, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, files: dict[str, str | bytes], message: str = "change") -> str:
        """Write and commit files; returns the commit."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.commit_all(message)

    def commit_all(self, message: str = "change") -> str:
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


MakeRepository = Callable[..., Repository]
MakeSettings = Callable[..., ProvisionerSettings]


@pytest.fixture
def make_repository(tmp_path: Path) -> MakeRepository:
    """Makes a repository, with a first commit if files are given."""

    def make(files: dict[str, str | bytes] | None = None, name: str = "model") -> Repository:
        repository = Repository(tmp_path / "repositories" / name)
        if files is not None:
            repository.commit(files)
        return repository

    return make


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes wheels in a folder that is the only package index there is; the runtime's own are in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    empty = tmp_path / "empty-index"
    empty.mkdir()
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", empty.as_uri())
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))

    def make(name: str, version: str, *requires: str, code: str = "") -> None:
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        files = {
            f"{module}/__init__.py": code,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path, content in {**files, f"{info}/RECORD": record}.items():
                archive.writestr(path, content)
        (folder / f"{module}-{version}-py3-none-any.whl").write_bytes(data.getvalue())

    for pin in base_requirements().splitlines():
        make(*pin.split("=="))
    return make


def base_requirements() -> str:
    """The locked set of a source that needs no packages of its own."""
    pins = installed_pins(penstock_runtime.REQUIREMENTS)
    assert pins is not None
    return pins


@pytest.fixture(name="base_requirements")
def base_requirements_fixture() -> str:
    return base_requirements()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of environments for all tests: each is built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def host_settings(tmp_path: Path, shared_cache: Path) -> MakeSettings:
    """Settings of a host in the test's own folder."""

    def make(**overrides: Any) -> ProvisionerSettings:
        values: dict[str, Any] = {
            "host_id": HOST_ID,
            "data_dir": tmp_path / "data",
            "cache_dir": shared_cache,
            "allow_local_sources": True,
            **overrides,
        }
        return ProvisionerSettings(**values)

    return make


class Platform:
    """One host, and in place of the platform: what is wanted, and what was said."""

    def __init__(self, settings: ProvisionerSettings) -> None:
        self.settings = settings
        self.assignments: dict[str, Assignment] = {}
        self.knows_assignments = True
        self.reports: list[ReplicaReported] = []
        self.batches: list[tuple[str, LogBatch]] = []
        self.is_reachable = True

    def wanted(self) -> list[Assignment] | None:
        return list(self.assignments.values()) if self.knows_assignments else None

    async def publish_report(self, report: ReplicaReported, traceparent: str | None) -> None:
        self._check_reachable()
        self.reports.append(report)

    async def publish_logs(self, batch: LogBatch, message_id: str) -> None:
        self._check_reachable()
        if message_id not in {known for known, _ in self.batches}:  # as the server does
            self.batches.append((message_id, batch))

    def _check_reachable(self) -> None:
        if not self.is_reachable:
            raise ConnectionError("the platform is away")

    @contextlib.asynccontextmanager
    async def host(self) -> AsyncIterator[Host]:
        """The host at work, until the end of the block; then its replicas run on."""
        async with open_host(
            self.settings, publish_report=self.publish_report, publish_logs=self.publish_logs, wanted=self.wanted
        ) as host:
            self.current = host
            work = [asyncio.create_task(run()) for run in (host.reporter.run, host.logs.run, host.reconciler.run)]
            try:
                yield host
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)

    def assign(
        self,
        repository: Repository,
        replica_id: str = "rep_1",
        *,
        route: RouteSpec = ROUTE,
        requirements: str | None = None,
        **fields: Any,
    ) -> Assignment:
        """Want a replica of the repository's HEAD."""
        source = PinnedSource(
            uri=repository.uri,
            ref="main",
            commit=repository.git("rev-parse", "HEAD"),
            requirements=base_requirements() if requirements is None else requirements,
        )
        values: dict[str, Any] = {
            "host_id": HOST_ID,
            "replica_id": replica_id,
            "endpoint_id": "ep_1",
            "organization_id": "org_1",
            "workspace": "default",
            "endpoint": "model",
            "generation": 1,
            "source": source,
            "routes": (route,),
            "gpu_uuids": (),
            "resources": Resources(),
            "concurrency": 1,
            **fields,
        }
        assignment = Assignment(**values)
        self.assignments[replica_id] = assignment
        self.wake()
        return assignment

    def unassign(self, replica_id: str = "rep_1") -> None:
        del self.assignments[replica_id]
        self.wake()

    def wake(self) -> None:
        if hasattr(self, "current"):
            self.current.reconciler.wake()

    def phases(self, replica_id: str = "rep_1") -> list[str]:
        return [report.phase for report in self.reports if report.replica_id == replica_id]

    async def reported(self, phase: str, replica_id: str = "rep_1", deadline_s: float = 30) -> ReplicaReported:
        """The replica's report of this phase, once it was sent."""

        def found() -> ReplicaReported | None:
            of_it = [report for report in self.reports if report.replica_id == replica_id]
            return next((report for report in reversed(of_it) if report.phase == phase), None)

        await eventually(
            lambda: found() or any(p in ("failed", "stopped") for p in self.phases(replica_id)), deadline_s
        )
        report = found()
        assert report is not None, self.reports
        return report

    def lines(self, replica_id: str = "rep_1") -> list[LogLine]:
        return [line for _, batch in self.batches if batch.replica_id == replica_id for line in batch.lines]

    def texts(self, replica_id: str = "rep_1") -> list[str]:
        return [line.text for line in self.lines(replica_id)]

    def processes(self) -> list[int]:
        """Every process that bears the marks of this host's replicas."""
        own = str(self.settings.own_dir)
        return [
            pid
            for pid in procfs.pids()
            if (stat := procfs.stat(pid)) and stat.is_alive and procfs.environment(pid).get(HOST_DIR) == own
        ]

    def leaders(self) -> list[int]:
        """The processes at the head of a replica: one for each that was started."""
        return [pid for pid in self.processes() if (stat := procfs.stat(pid)) and stat.session == pid]


MakePlatform = Callable[..., Platform]


@pytest.fixture
async def make_platform(host_settings: MakeSettings) -> AsyncIterator[MakePlatform]:
    """Makes a platform with one host; whatever runs at the end of the test is ended."""
    made: list[Platform] = []

    def make(**overrides: Any) -> Platform:
        platform = Platform(host_settings(**overrides))
        made.append(platform)
        return platform

    yield make
    for platform in made:
        own = str(platform.settings.own_dir)
        await procfs.kill_all(procfs.Finder({HOST_DIR: own}), deadline_s=10)


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    """A host with the settings of most tests: everything happens soon."""
    return make_platform(stop_grace_s=3, liveness_interval_s=0.1, liveness_timeout_s=0.3)


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """No test leaves a dead child that nobody waited for."""
    yield
    with contextlib.suppress(ChildProcessError):
        left = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        assert left is None, f"process {left.si_pid} ended and was never waited for"
