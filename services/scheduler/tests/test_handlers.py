"""Handlers on both stores: the whole life of an endpoint, each step twice, with the same effect."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from penstock_common.contracts.endpoint import EndpointSpec
from penstock_common.contracts.events import (
    EndpointRequest,
    EndpointRestartRequested,
    EndpointStopRequested,
    EndpointTerminateRequested,
)
from penstock_common.contracts.questions import ScaleEndpoint, ScaleReply
from penstock_common.contracts.records import Route
from penstock_scheduler import handlers
from penstock_scheduler.checking import violations
from penstock_scheduler.domain import Deployment, Policy, Replica, RequestKind
from penstock_scheduler.handlers import Context
from penstock_scheduler.heartbeats import Heartbeats
from penstock_scheduler.planner import carry_out
from penstock_scheduler.planning import plan
from penstock_scheduler.ports import SchedulerStore
from penstock_scheduler.records import content_of

from .builders import RTX, heartbeat, received, report, requested, scaling_wish, spec
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

    async def create(self, wanted: EndpointSpec | None = None) -> None:
        message = received(requested("ep_1", wanted or spec(1)))
        await self.step(lambda store: handlers.endpoint_requested(message, store, context=self.context))

    async def scale(self, replicas: int, **fields: Any) -> ScaleReply:
        """A wish made from the route as it is; the last of the replies."""
        route = Route.model_validate((await self.tables.bucket("routes"))["ep_1"])
        wish = scaling_wish(route, replicas, **{"endpoint_id": "ep_1", **fields})
        replies: list[ScaleReply] = []

        async def step(store: SchedulerStore) -> None:
            reply, _ = await handlers.scale(wish, store, context=self.context)
            replies.append(reply)

        await self.step(step)
        return replies[0]

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


async def test_every_step_to_more_replicas_to_none_and_back_twice_has_the_effect_of_once(life: Life) -> None:
    await life.beat()
    await life.create(spec(1, replicas=0, most=6))
    await life.plan()
    first = await life.replica()
    await life.report(first, 1, "ready")
    assert (await life.scale(9)).desired_replicas == 6
    await life.plan()
    for each in (await life.deployment()).live[1:]:
        await life.report(each, 1, "ready")
    found = await life.deployment()
    assert found.endpoint.shortage == "no host has a free RTX 4090 for more"
    route = (await life.tables.bucket("routes"))["ep_1"]
    assert (route["reason"], route["shortage"]) == ("4 of 6 replicas run; no host has a free RTX 4090 for more",) * 2
    reply = await life.scale(1, busy=tuple(each.replica_id for each in found.live), reason="the load fell")
    assert (reply.accepted, reply.desired_replicas) == (True, 1)
    draining = [
        each["replica_id"] for each in (await life.tables.bucket("routes"))["ep_1"]["replicas"] if each["draining"]
    ]
    assert draining == sorted(each.replica_id for each in found.live[1:])
    await life.scale(2, busy=(first.replica_id, found.live[1].replica_id))
    await life.scale(0)
    await life.scale(0)
    assert (await life.tables.bucket("assignments")) == {}
    for each in (await life.deployment()).live:
        await life.report(each, 2, "stopped", cause="stopped")
    asleep = (await life.deployment()).endpoint
    assert (asleep.state, asleep.desired_replicas, asleep.idle_since is not None) == ("idle", 0, True)
    async with life.tables.transaction() as store:
        assert (await store.snapshot(Policy(), await store.now())).endpoints == ()
    await life.scale(1, reason="a request came")
    await life.plan()
    assert (await life.deployment()).endpoint.state == "starting"
    told = await life.tables.told()
    assert told[-3:] == ["EndpointScaled", "EndpointStarting", "ReplicaScheduled"]
    assert (told.count("EndpointScaled"), told.count("EndpointIdle")) == (5, 1)


async def test_an_idle_replica_gives_way_on_both_stores(life: Life) -> None:
    await life.beat()
    await life.create(spec(4, replicas=0))
    await life.plan()
    await life.report(await life.replica(), 1, "ready")
    await life.scale(1)
    other = received(requested("ep_2", spec(1)))
    await life.step(lambda store: handlers.endpoint_requested(other, store, context=life.context))
    await life.plan()
    found = await life.deployment()
    [given] = found.live
    assert (given.gives_way, given.draining, found.endpoint.desired_replicas) == (True, True, 0)
    await life.scale(0)
    await life.report(given, 2, "stopped", cause="stopped")
    await life.plan()
    assert (await life.deployment()).endpoint.state == "idle"
    assert (await life.tables.told())[-3:] == ["EndpointIdle", "EndpointStarting", "ReplicaScheduled"]


async def test_a_wish_about_an_unknown_endpoint_is_refused(life: Life) -> None:
    wish = ScaleEndpoint(endpoint_id="ep_9", route_version=1, replicas=1, minimum=0, reason="load")
    async with life.tables.transaction() as store:
        reply, news = await handlers.scale(wish, store, context=life.context)
    assert (reply.accepted, reply.reason, news) == (False, "there is no endpoint ep_9", False)


@pytest.mark.connected
async def test_what_the_bucket_must_hold_follows_from_the_tables(postgres_tables: Tables) -> None:
    life = Life(postgres_tables)
    await life.beat()
    await life.create(spec(1, replicas=0, most=6))
    await life.plan()

    async def same() -> None:
        async with life.tables.transaction() as store:
            due = await store.routed()
        records = await life.tables.bucket("routes")
        assert due == {key: content_of(Route.model_validate(record)) for key, record in records.items()}

    await life.report(await life.replica(), 1, "ready")
    await same()
    await life.scale(6)
    await life.plan()
    await same()
    for each in (await life.deployment()).live:
        await life.report(each, 1, "ready")
    await life.scale(1, busy=tuple(each.replica_id for each in (await life.deployment()).live))
    await same()
    await life.scale(0)
    await life.scale(0)
    for each in (await life.deployment()).live:
        await life.report(each, 2, "stopped", cause="stopped")
    await same()
    await life.ask("stop", 2)
    await same()


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
