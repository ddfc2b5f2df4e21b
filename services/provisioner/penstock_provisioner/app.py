"""Composition root: wires the host's parts to each other and to the platform."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import penstock_runtime
from penstock_common.contracts.events import LogBatch, ReplicaReported
from penstock_common.contracts.heartbeat import Inventory
from penstock_common.contracts.questions import InspectSource, SourceInspection
from penstock_common.contracts.records import Assignment
from penstock_common.contracts.topology import assignments_of, heartbeat_subject, log_subject
from penstock_common.delivery.publish import publish_message
from penstock_common.service import Service
from penstock_provisioner import handlers, journal
from penstock_provisioner.drivers.process import procfs
from penstock_provisioner.drivers.process.driver import ProcessDriver, ProcessLimits, environments_in_use
from penstock_provisioner.drivers.process.runtime_copy import copy_runtime, remove_other_copies
from penstock_provisioner.drivers.process.variables import DATA_DIR, HOST_DIR
from penstock_provisioner.helpers import HELPER, Helpers
from penstock_provisioner.inventory import own_disk_bytes, take_inventory, with_own_disk
from penstock_provisioner.journal import Journal
from penstock_provisioner.logs.follow import LogFollower, LogLimits
from penstock_provisioner.logs.follow import Publish as PublishLogs
from penstock_provisioner.reconciler import Reconciler
from penstock_provisioner.reporting import EAGER_INTERVAL_S, Reporter, heartbeat, heartbeat_wait_s
from penstock_provisioner.reporting import Publish as PublishReport
from penstock_provisioner.settings import ProvisionerSettings
from penstock_provisioner.source.environment import Environments, InstallFailed
from penstock_provisioner.source.fetch import SourceLimits, Sources
from penstock_provisioner.source.git import Git, GitLimits
from penstock_provisioner.source.inspection import Inspector
from penstock_provisioner.source.installed import installed_pins
from penstock_provisioner.source.resolving import Resolver
from penstock_provisioner.source.uv import Uv
from penstock_provisioner.supervising import Times
from penstock_provisioner.threads import in_thread

log = logging.getLogger(__name__)

_MIB = 1024**2
_GB = 1000**3
_KILL_HELPERS_DEADLINE_S = 10.0
_LAST_WORDS_S = 1
_DISK_S = 4.0
"""A host is not silent for longer because its own files have not been counted yet."""


@dataclass(frozen=True, slots=True)
class Host:
    """Everything that works on this host without the rest of the platform."""

    reconciler: Reconciler
    reporter: Reporter
    logs: LogFollower
    inspector: Inspector
    environments: Environments
    inventory: Inventory
    helpers: Helpers
    driver: str
    boot_id: str


@asynccontextmanager
async def open_host(
    settings: ProvisionerSettings,
    *,
    publish_report: PublishReport,
    publish_logs: PublishLogs,
    wanted: Callable[[], Collection[Assignment] | None],
) -> AsyncIterator[Host]:
    """This host, with what runs on it adopted; at the end of the block it is left running.

    Raises journal.DirectoryInUse when another provisioner has it.
    """
    async with AsyncExitStack() as stack:
        for directory in dict.fromkeys((settings.own_dir, settings.own_cache_dir)):
            stack.enter_context(journal.locked(directory))
        # What an earlier provisioner had git and uv do would write where we do.
        leftovers = procfs.Finder({HELPER: str(settings.own_dir)})
        await procfs.kill_all(leftovers, _KILL_HELPERS_DEADLINE_S)
        host = await in_thread(_assemble, settings, publish_report, publish_logs, wanted)
        await host.reconciler.adopt()
        stack.push_async_callback(host.reconciler.detach)
        yield host


def _assemble(
    settings: ProvisionerSettings,
    publish_report: PublishReport,
    publish_logs: PublishLogs,
    wanted: Callable[[], Collection[Assignment] | None],
) -> Host:
    own, cache = settings.own_dir, settings.own_cache_dir
    data_dir = str(settings.data_dir)
    helpers = Helpers({HELPER: str(own), DATA_DIR: data_dir})
    uv = Uv(helpers, cache / "uv-work", cache / "uv")
    sources = _sources(settings, helpers)
    replicas = Journal(own / "replicas")
    reporter = Reporter(publish_report)
    logs = LogFollower(settings.host_id, _log_limits(settings), publish_logs)
    environments = Environments(
        uv,
        cache / "environments",
        count_max=settings.environments_max,
        wheels_bytes_max=int(settings.wheel_cache_gb_max * _GB),
        parallel=settings.parallel_installs,
        timeout_s=settings.install_timeout_s,
        allow_builds=settings.allow_source_builds,
        in_use=lambda: environments_in_use(own / "replicas"),
    )
    runtime = copy_runtime(own / "runtime")
    if not any(replica.instance for replica in replicas.load()[0]):
        remove_other_copies(own / "runtime", runtime)
    driver = ProcessDriver(
        sources=sources,
        environments=environments,
        runtime=runtime,
        directory_of=replicas.directory,
        marks={HOST_DIR: str(own), DATA_DIR: data_dir},
        limits=ProcessLimits(settings.replica_open_files_max, settings.replica_nice),
    )
    reconciler = Reconciler(
        settings.host_id,
        driver=driver,
        journal=replicas,
        logs=logs,
        report=reporter.report,
        times=_times(settings),
        wanted=wanted,
    )
    resolver = Resolver(
        uv, cache / "resolving", timeout_s=settings.resolve_timeout_s, allow_builds=settings.allow_source_builds
    )
    return Host(
        reconciler=reconciler,
        reporter=reporter,
        logs=logs,
        inspector=Inspector(sources, resolver, helpers, parallel=settings.parallel_inspections),
        environments=environments,
        inventory=take_inventory(settings.host_id, own, settings.simulate_gpus),
        helpers=helpers,
        driver=driver.name,
        boot_id=procfs.boot_id(),
    )


def _sources(settings: ProvisionerSettings, helpers: Helpers) -> Sources:
    cache = settings.own_cache_dir
    bytes_max = settings.source_mb_max * _MIB
    git = Git(helpers, cache / "git", GitLimits(bytes_max=bytes_max, timeout_s=settings.fetch_timeout_s))
    limits = SourceLimits(
        allow_local=settings.allow_local_sources,
        allow_private=settings.allow_private_sources,
        files_max=settings.source_files_max,
        bytes_max=bytes_max,
        cache_bytes_max=int(settings.source_cache_gb_max * _GB),
        timeout_s=settings.fetch_timeout_s,
        parallel=settings.parallel_fetches,
    )
    return Sources(git, cache / "sources", limits)


def _log_limits(settings: ProvisionerSettings) -> LogLimits:
    return LogLimits(settings.log_lines_per_s, settings.log_lines_burst, settings.log_file_mb_max * _MIB)


def _times(settings: ProvisionerSettings) -> Times:
    return Times(
        ready_timeout_s=settings.ready_timeout_s,
        liveness_interval_s=settings.liveness_interval_s,
        liveness_timeout_s=settings.liveness_timeout_s,
        liveness_misses=settings.liveness_misses,
        stop_grace_s=settings.stop_grace_s,
    )


class Provisioner:
    """The host, spoken to by the platform."""

    def __init__(self, settings: ProvisionerSettings) -> None:
        self.service: Service[None] = Service("provisioner", settings)
        self._settings = settings
        self._stack = AsyncExitStack()
        self._host: Host | None = None
        self._inventory: Inventory | None = None
        self._disk_known = asyncio.Event()
        self._leaving = False
        self._assignments = self.service.watch(Assignment, self._assigned, keys=assignments_of(settings.host_id))
        self.service.on_start(self._open)
        self.service.answer(InspectSource, self._inspect)
        self.service.background("reconcile", lambda: self.host.reconciler.run())
        self.service.background("first snapshot", self._first_snapshot)
        self.service.background("reports", lambda: self.host.reporter.run())
        self.service.background("logs", lambda: self.host.logs.run())
        self.service.background("own disk", self._measure_disk)
        self.service.background("heartbeats", self._heartbeats)
        self.service.background("base environment", self._warm)
        self.service.on_stop(self._leave)

    @property
    def host(self) -> Host:
        if self._host is None:
            raise RuntimeError("the host is not open yet")
        return self._host

    async def _open(self) -> None:
        self._host = await self._stack.enter_async_context(
            open_host(
                self._settings,
                publish_report=self._publish_report,
                publish_logs=self._publish_logs,
                wanted=self._wanted,
            )
        )

    def _assigned(self, _key: str, _assignment: Assignment | None) -> None:
        self.host.reconciler.wake()

    def _wanted(self) -> Collection[Assignment] | None:
        """None until there was a whole snapshot. While NATS is away the last one stands."""
        return self._assignments.snapshot.values() if self._assignments.ready.is_set() else None

    async def _first_snapshot(self) -> None:
        """An empty first snapshot changes no key, and yet says that nothing should run."""
        await self._assignments.ready.wait()
        self.host.reconciler.wake()

    async def _inspect(self, question: InspectSource) -> SourceInspection:
        return await handlers.inspect_source(question, self.host.inspector)

    async def _publish_report(self, report: ReplicaReported, traceparent: str | None) -> None:
        await publish_message(
            self.service.js,
            report.message_type,
            report,
            message_id=f"{report.replica_id}.{report.sequence}",
            source=f"provisioner/{self._settings.host_id}",
            traceparent=traceparent,
        )

    async def _publish_logs(self, batch: LogBatch, message_id: str) -> None:
        await publish_message(
            self.service.js,
            log_subject(self._settings.host_id),
            batch,
            message_id=message_id,
            source=f"provisioner/{self._settings.host_id}",
        )

    async def _measure_disk(self) -> None:
        """Once: what replicas take later is known to the scheduler as reserved."""
        own, cache = self._settings.own_dir, self._settings.own_cache_dir
        used_bytes = await own_disk_bytes(own, cache, self.host.helpers)
        self._inventory = with_own_disk(self.host.inventory, own, used_bytes)
        self._disk_known.set()

    async def _heartbeats(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISK_S):
                await self.host.reconciler.looked()
                await self._disk_known.wait()
        now_s, interval_s = asyncio.get_running_loop().time, self._settings.heartbeat_interval_s
        connected_at: float | None = None
        # Who left must not be heard of again.
        while not self._leaving:
            wait_s = EAGER_INTERVAL_S
            if self.service.nats.is_connected:
                connected_at = now_s() if connected_at is None else connected_at
                wait_s = heartbeat_wait_s(now_s() - connected_at, interval_s)
                await self._send_heartbeat()
                # Those that may be lost are not counted on to bring a replica's last report.
                if wait_s == interval_s:
                    self.host.reconciler.beat()
            else:
                connected_at = None
            await asyncio.sleep(wait_s)

    async def _send_heartbeat(self) -> None:
        beat = heartbeat(
            host_id=self._settings.host_id,
            boot_id=self.host.boot_id,
            driver=self.host.driver,
            inventory=self._inventory or self.host.inventory,
            reports=self.host.reporter.repeated(self.host.reconciler.reports()),
            leaving=self._leaving,
        )
        await self.service.nats.publish(heartbeat_subject(self._settings.host_id), beat)

    async def _warm(self) -> None:
        """Most replicas need little more than the runtime: its environment is there before the first."""
        pins = await in_thread(installed_pins, penstock_runtime.REQUIREMENTS)
        if pins is not None:
            try:
                await self.host.environments.ensure(pins)
            except InstallFailed as failure:
                log.warning("the base environment cannot be built", extra={"reason": str(failure)})

    async def _leave(self) -> None:
        """Leave the replicas to the next provisioner, or end them, as the settings say."""
        if self._host is None:
            return
        try:
            if self._settings.stop_replicas_on_exit:
                await self.host.reconciler.stop_all(grace_s=self._settings.stop_grace_on_exit_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORDS_S):
                        await self.host.reporter.drained()
                        await self.host.logs.drained()
                self._leaving = True
                await self._send_heartbeat()
                await self.service.nats.flush(_LAST_WORDS_S)
        finally:
            await self._stack.aclose()


def build(settings: ProvisionerSettings) -> Service[None]:
    """The provisioner, ready to run."""
    return Provisioner(settings).service
