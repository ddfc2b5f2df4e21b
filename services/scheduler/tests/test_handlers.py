"""Handlers on both stores: the whole life of an endpoint, each step twice, with the same effect."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from penstock_common.contracts.events import (
    EndpointRequest,
    EndpointRestartRequested,
    EndpointStopRequested,
    EndpointTerminateRequested,
)
from penstock_scheduler import handlers
from penstock_scheduler.checking import violations
from penstock_scheduler.domain import Deployment, Policy, Replica, RequestKind
from penstock_scheduler.handlers import Context
from penstock_scheduler.heartbeats import Heartbeats
from penstock_scheduler.planner import carry_out
from penstock_scheduler.planning import plan
from penstock_scheduler.ports import SchedulerStore

from .builders import RTX, heartbeat, received, report, requested, spec
from .conftest import Tables

Step = Callable[[SchedulerStore], Awaitable[None]]
_REQUESTS: dict[RequestKind, type[EndpointRequest]] = {
    "stop": EndpointStopRequested,
    "restart": EndpointRestartRequested,
    "terminate": EndpointTerminateRequested,
}


class Life:
    """Runs steps, each in its own transaction and each twice: the second must change nothing."""

    def __init__(self, tables: Tables, *, times: int = 2) -> None:
        self.tables = tables
        self.times = times
        self.context = Context(Policy(drain=timedelta(0)), Heartbeats(), lambda: 0.0)

    async def step(self, step: Step) -> None:
        async with self.tables.transaction() as store:
            await step(store)
        after = await self.state()
        for _ in range(self.times - 1):
            async with self.tables.transaction() as store:
                await step(store)
            assert await self.state() == after

    async def state(self) -> Any:
        async with self.tables.transaction() as store:
            known = await store.deployments(["ep_1"])
            hosts = [await store.host(each) for each in ("host-a", "host-b")]
            early = await store.early_request("ep_1")
        return known, hosts, early, await self.tables.told(), await self.tables.bucket("assignments")

    async def create(self) -> None:
        await self.step(
            lambda store: handlers.endpoint_requested(received(requested("ep_1", spec(1))), store, context=self.context)
        )

    async def ask(self, kind: RequestKind, version: int) -> None:
        message = _REQUESTS[kind](endpoint_id="ep_1", organization_id="org_a", version=version)
        await self.step(
            lambda store: handlers.endpoint_request(received(message), store, kind=kind, context=self.context)
        )

    async def beat(self, *args: Any, **fields: Any) -> None:
        message = heartbeat(*args, **fields)
        await self.step(lambda store: handlers.host_heard(message, store, context=self.context))

    async def report(self, replica: Replica, sequence: int, phase: Any, **fields: Any) -> None:
        message = received(report(replica, sequence, phase, **fields))
        await self.step(lambda store: handlers.replica_reported(message, store, context=self.context))

    async def plan(self) -> None:
        await self.step(self._plan)

    async def _plan(self, store: SchedulerStore) -> None:
        now = await store.now()
        snapshot = await store.snapshot(self.context.policy, now)
        decided = plan(snapshot, now)
        assert violations(snapshot, decided) == []
        await carry_out(store, snapshot, decided)

    async def deployment(self) -> Deployment:
        async with self.tables.transaction() as store:
            found: Deployment | None = await store.deployment("ep_1")
        assert found is not None
        return found

    async def replica(self) -> Replica:
        [found] = (await self.deployment()).live
        return found


@pytest.fixture
def life(tables: Tables) -> Life:
    return Life(tables)


async def test_every_step_of_a_life_twice_has_the_effect_of_once(life: Life) -> None:
    await life.beat()
    await life.create()
    await life.plan()
    placed = await life.replica()
    await life.report(placed, 1, "fetching", detail="cloning")
    await life.report(placed, 2, "ready")
    assert (await life.deployment()).endpoint.state == "running"
    await life.ask("stop", 2)
    await life.plan()
    await life.report(placed, 3, "stopped", cause="stopped")
    assert (await life.deployment()).endpoint.state == "stopped"
    await life.ask("restart", 3)
    await life.plan()
    again = await life.replica()
    await life.report(again, 1, "failed", cause="crashed", exit_code=1, log_tail="boom")
    assert (await life.deployment()).endpoint.crash_streak == 1
    await life.ask("terminate", 4)
    assert await life.tables.told() == [
        "HostJoined",
        "EndpointStarting",
        "ReplicaScheduled",
        "ReplicaProgressed",
        "ReplicaStarted",
        "EndpointRunning",
        "EndpointStopping",
        "ReplicaEnded",
        "EndpointStopped",
        "EndpointStarting",
        "ReplicaScheduled",
        "ReplicaEnded",
        "EndpointStarting",
        "EndpointTerminated",
    ]
    assert await life.tables.bucket("assignments") == {}
    assert await life.tables.bucket("routes") == {}


async def test_an_endpoint_that_waits_is_told_once(life: Life) -> None:
    await life.create()
    await life.plan()
    found = await life.deployment()
    assert (found.endpoint.state, found.endpoint.position) == ("queued", 1)
    assert found.endpoint.reason.startswith("needs 1 × RTX 4090 on one host; no host has joined yet")
    assert await life.tables.told() == ["EndpointQueued"]
    route = (await life.tables.bucket("routes"))["ep_1"]
    assert (route["state"], route["reason"]) == ("queued", found.endpoint.reason)


async def test_a_host_that_leaves_comes_back_and_changes(life: Life) -> None:
    await life.beat()
    await life.create()
    await life.plan()
    await life.report(await life.replica(), 1, "ready")
    await life.beat(leaving=True)
    assert (await life.deployment()).live == ()
    await life.beat(boot_id="boot-2", driver="docker")
    async with life.tables.transaction() as store:
        known = await store.host("host-a")
    assert (known.state, known.boot_id, known.driver, known.gpu_count(RTX)) == ("up", "boot-2", "docker", 4)
    assert (await life.tables.told())[-3:] == ["EndpointStarting", "HostLost", "HostJoined"]


async def test_a_request_before_the_creation_is_kept_and_the_newest_counts(life: Life) -> None:
    await life.ask("terminate", 4)
    await life.ask("stop", 2)
    await life.create()
    assert (await life.deployment()).endpoint.state == "terminated"
    assert await life.tables.told() == ["EndpointTerminated"]
    async with life.tables.transaction() as store:
        assert await store.early_request("ep_1") is None


async def test_what_is_saved_is_read_back_as_it_was(life: Life) -> None:
    await life.beat()
    await life.create()
    await life.plan()
    found = await life.deployment()
    assert found.definition.spec == spec(1)
    assert found.definition.source == requested("ep_1").source
    assert (await life.replica()).gpu_uuids == (f"host-a-{RTX}-0",)
    async with life.tables.transaction() as store:
        snapshot = await store.snapshot(Policy(), await store.now())
        assert snapshot.endpoints == (found.endpoint,)
        assert snapshot.replicas == found.live
        assert snapshot.reserved == {f"host-a-{RTX}-0"}
        assert [host.host_id for host in snapshot.hosts] == ["host-a"]
        assert snapshot.hosts[0] == await store.host("host-a")


async def test_a_plan_that_ends_and_purges_is_carried_out_on_both_stores(life: Life) -> None:
    life.context = Context(Policy(drain=timedelta(0), purge_after=timedelta(0)), Heartbeats(), lambda: 0.0)
    await life.create()
    await life.ask("stop", 2)
    await life.plan()
    assert (await life.deployment()).endpoint.state == "terminated"
    life.context = Context(Policy(lost_after=timedelta(0)), Heartbeats(), lambda: 0.0)
    await life.beat()
    await life.plan()
    assert (await life.tables.told())[-2:] == ["HostJoined", "HostLost"]


async def test_signs_of_life_only_ever_move_forward(life: Life) -> None:
    await life.beat()
    async with life.tables.transaction() as store:
        before = (await store.host("host-a")).last_seen_at
        await store.saw_hosts({"host-a": 1000.0, "host-unknown": 0.0})
        assert (await store.host("host-a")).last_seen_at == before
