"""The provisioner among real servers: assignments in, reports, logs and heartbeats out."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.client import Client

from penstock_common.contracts.endpoint import GitSource
from penstock_common.contracts.events import LogBatch, ReplicaReported
from penstock_common.contracts.heartbeat import Heartbeat
from penstock_common.contracts.questions import InspectSource, SourceInspection
from penstock_common.contracts.records import Assignment
from penstock_common.contracts.topology import HEARTBEATS, log_subject
from penstock_common.rpc import ask
from penstock_provisioner import reporting
from penstock_provisioner.app import build
from penstock_provisioner.drivers.process import procfs
from penstock_provisioner.reconciling import FORGET_AFTER_BEATS
from penstock_provisioner.settings import ProvisionerSettings
from tests_support import Servers, eventually, running

from .conftest import MakeRepository, MakeSettings, Platform

pytestmark = pytest.mark.connected

MODEL = {"predict.py": "print('hello from the model')\ndef predict(features):\n    return 1\n"}


class Peer:
    """Everybody else: writes assignments, and keeps what the provisioner says."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.js = client.jetstream()
        self.reports: list[tuple[str, ReplicaReported]] = []
        self.batches: list[LogBatch] = []
        self.beats: list[Heartbeat] = []

    async def listen(self) -> None:
        await self.js.subscribe("events.provisioner.>", cb=self._on_report)
        await self.js.subscribe(log_subject("test-host"), cb=self._on_batch)
        await self.client.subscribe(HEARTBEATS, cb=self._on_beat)

    async def assign(self, assignment: Assignment) -> None:
        bucket = await self.js.key_value(Assignment.bucket)
        await bucket.put(assignment.key(), assignment.model_dump_json().encode())

    async def unassign(self, assignment: Assignment) -> None:
        await (await self.js.key_value(Assignment.bucket)).delete(assignment.key())

    def phases(self) -> list[str]:
        return [report.phase for _, report in self.reports]

    async def _on_report(self, message: Any) -> None:
        report = ReplicaReported.model_validate_json(message.data)
        assert message.headers["ce-id"] == f"{report.replica_id}.{report.sequence}"
        self.reports.append((message.headers.get("traceparent", ""), report))

    async def _on_batch(self, message: Any) -> None:
        self.batches.append(LogBatch.model_validate_json(message.data))

    async def _on_beat(self, message: Any) -> None:
        self.beats.append(Heartbeat.model_validate_json(message.data))


@pytest.fixture
async def peer(clean_servers: Servers) -> AsyncIterator[Peer]:
    client = await clean_servers.admin_client()
    found = Peer(client)
    await found.listen()
    yield found
    await client.close()


@pytest.fixture
def settings(make_settings: MakeSettings, host_settings: MakeSettings) -> MakeSettings:
    def make(**overrides: Any) -> ProvisionerSettings:
        own = host_settings(**{"heartbeat_interval_s": 0.1, **overrides})
        return make_settings("provisioner", ProvisionerSettings, **own.model_dump(exclude_unset=True))

    return make


async def test_an_assignment_is_carried_out_and_told(
    settings: MakeSettings, peer: Peer, platform: Platform, make_repository: MakeRepository
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assignment = platform.assign(make_repository(MODEL), traceparent=traceparent)
    async with running(build(settings(simulate_gpus="RTX 4090=2"))):
        await eventually(lambda: peer.beats)
        assert [gpu.type for gpu in peer.beats[0].inventory.gpus] == ["RTX 4090", "RTX 4090"]
        assert (peer.beats[0].host_id, peer.beats[0].driver) == ("test-host", "process")
        await peer.assign(assignment)
        await eventually(lambda: peer.phases() == ["fetching", "installing", "starting", "ready"], 30)
        assert {trace for trace, _ in peer.reports} == {traceparent}
        await eventually(lambda: "hello from the model" in [line.text for one in peer.batches for line in one.lines])
        await eventually(lambda: [report.phase for report in peer.beats[-1].reports] == ["ready"])
        await peer.unassign(assignment)
        await eventually(lambda: peer.phases()[-1] == "stopped")
        assert platform.processes() == []
        await eventually(lambda: peer.beats[-1].reports == ())
        assert len({report.sequence for _, report in peer.reports}) == 5


async def test_a_source_is_inspected_when_asked(
    settings: MakeSettings, peer: Peer, make_repository: MakeRepository
) -> None:
    question = InspectSource(source=GitSource(uri=make_repository(MODEL).uri), routes=())
    async with running(build(settings())):
        reply = await ask(peer.client, question, subject=question.rpc, deadline_s=30)
    assert isinstance(reply, SourceInspection)
    assert reply.source is not None


async def test_what_runs_is_adopted_and_stops_if_it_was_unassigned_meanwhile(
    settings: MakeSettings, peer: Peer, platform: Platform, make_repository: MakeRepository
) -> None:
    assignment = platform.assign(make_repository(MODEL))
    async with running(build(settings())):
        await peer.assign(assignment)
        await eventually(lambda: "ready" in peer.phases(), 30)
    leaders = platform.leaders()
    assert len(leaders) == 1
    async with running(build(settings())):
        await eventually(lambda: peer.beats[-1].reports and peer.beats[-1].reports[0].phase == "ready")
        assert platform.leaders() == leaders
    await peer.unassign(assignment)
    # An empty first snapshot is a snapshot.
    async with running(build(settings())):
        await eventually(lambda: peer.phases()[-1] == "stopped")
        assert platform.processes() == []


async def test_the_first_heartbeats_come_fast_and_count_for_nothing(
    settings: MakeSettings,
    peer: Peer,
    platform: Platform,
    make_repository: MakeRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "EAGER_S", 60)
    assignment = platform.assign(make_repository({"predict.py": "raise SystemExit(3)"}))
    async with running(build(settings(heartbeat_interval_s=60))):
        await peer.assign(assignment)
        await eventually(lambda: "failed" in peer.phases(), 30)
        await peer.unassign(assignment)
        sent = len(peer.beats)
        await eventually(lambda: len(peer.beats) > sent + FORGET_AFTER_BEATS + 1)
        # Whoever should hear it may not have listened yet, so it is not forgotten.
        assert [report.phase for report in peer.beats[-1].reports] == ["failed"]


async def test_a_restarted_host_offers_as_much_disk_as_before(
    settings: MakeSettings, peer: Peer, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, free = 64 * 1024**2, {"bytes": 10 * 1024**3 + 32 * 1024**2}
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free["bytes"]))
    async with running(build(settings())):
        await eventually(lambda: peer.beats)
    with (platform.settings.own_dir / "replicas/weights").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, taken)
    free["bytes"] -= taken
    seen = len(peer.beats)
    async with running(build(settings())):
        await eventually(lambda: len(peer.beats) > seen)
    assert {beat.inventory.disk_gb for beat in peer.beats} == {10}


async def test_leaving_ends_replicas_where_asked_for_and_says_so_last(
    settings: MakeSettings, peer: Peer, platform: Platform, make_repository: MakeRepository
) -> None:
    assignment = platform.assign(make_repository(MODEL))
    async with running(build(settings(stop_replicas_on_exit=True))):
        await peer.assign(assignment)
        await eventually(lambda: "ready" in peer.phases(), 30)
    await eventually(lambda: peer.phases()[-1] == "stopped")
    assert peer.reports[-1][1].cause == "host_left"
    assert platform.processes() == []
    await eventually(lambda: peer.beats[-1].leaving)
    assert [report.phase for report in peer.beats[-1].reports] == ["stopped"]


async def test_a_lost_server_stops_nothing_and_what_happened_meanwhile_is_told(
    settings: MakeSettings, peer: Peer, platform: Platform, make_repository: MakeRepository, clean_servers: Servers
) -> None:
    first, second = (platform.assign(make_repository(MODEL, name=name), f"rep_{name}") for name in "ab")
    async with running(build(settings())):
        await peer.assign(first)
        await peer.assign(second)
        await eventually(lambda: peer.phases().count("ready") == 2, 30)
        clean_servers.nats.stop()
        crashing = [pid for pid in platform.leaders() if procfs.environment(pid)["PENSTOCK_REPLICA"] == "rep_a"]
        os.killpg(crashing[0], signal.SIGKILL)
        await eventually(lambda: len(platform.leaders()) == 1)
        # Not in a thread: the server ends with the thread that started it.
        clean_servers.nats.start()
        await eventually(lambda: "failed" in peer.phases(), 30)
        assert len(platform.leaders()) == 1, peer.reports
        await peer.unassign(second)
        await eventually(lambda: "stopped" in peer.phases(), 30)
        assert platform.processes() == []


async def test_a_whole_process_starts_and_leaves_on_sigterm(
    settings: MakeSettings, peer: Peer, platform: Platform, make_repository: MakeRepository, tmp_path: Path
) -> None:
    assignment = platform.assign(make_repository(MODEL))
    values = settings(stop_replicas_on_exit=True).model_dump(exclude_unset=True, mode="json")
    password = settings().nats_password
    assert password is not None
    values["nats_password"] = password.get_secret_value()
    environment = {f"PENSTOCK_{name.upper()}": str(value) for name, value in values.items()}

    def start() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "penstock_provisioner"]
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **environment}, stderr=log)

    process = await asyncio.to_thread(start)
    try:
        await peer.assign(assignment)
        await eventually(lambda: "ready" in peer.phases(), 30)
        refused = await asyncio.to_thread(start)
        assert await asyncio.to_thread(refused.wait, 20) == 1
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
    await eventually(lambda: peer.beats[-1].leaving)
    assert platform.processes() == []
