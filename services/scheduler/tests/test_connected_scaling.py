"""Scaling as it runs: an autoscaler's wishes over real NATS, kept in real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock_common.contracts.base import Event
from penstock_common.contracts.endpoint import GpuRequest, Resources
from penstock_common.contracts.events import EndpointIdle, EndpointScaled, ReplicaEnded, ReplicaScheduled
from penstock_common.contracts.questions import AskForecast
from penstock_common.contracts.records import Route
from penstock_common.service import Service
from penstock_scheduler.store import Store
from tests_support import Servers, eventually

from .builders import RTX, scaling_wish, spec
from .platform import Gateway, MakeSettings, Platform, all_are, live_replicas, platform, states

pytestmark = pytest.mark.connected


@pytest.fixture
async def scene(make_settings: MakeSettings) -> AsyncIterator[Platform]:
    async with platform(make_settings) as found:
        yield found


async def told(scheduler: Service[Store], *kinds: type[Event]) -> list[int]:
    """How many facts of each kind were told."""
    count = "select count(*) from outbox where subject = $1"
    return [await scheduler.pool.fetchval(count, kind.message_type) for kind in kinds]


async def ready(gateway: Gateway, endpoint_id: str, count: int) -> Route:
    """Wait until so many replicas take requests."""

    def probe() -> bool:
        route = gateway.routes.get(endpoint_id)
        return route is not None and sum(not each.draining for each in route.replicas) == count

    await eventually(probe)
    return gateway.routes[endpoint_id]


async def test_an_endpoint_grows_shrinks_sleeps_and_wakes(scene: Platform) -> None:
    scheduler = await scene.scheduler(drain_s=0.1)
    host, gateway = await scene.host(), await scene.gateway()
    await scene.create("ep_1", spec=spec(1, replicas=0, most=6))
    await ready(gateway, "ep_1", 1)
    reply = await gateway.scale("ep_1", 6, reason="many wait")
    assert (reply.accepted, reply.desired_replicas) == (True, 6)
    await ready(gateway, "ep_1", 4)
    text = "4 of 6 replicas run; no host has a free RTX 4090 for more"
    await eventually(lambda: gateway.routes["ep_1"].shortage == gateway.routes["ep_1"].reason == text)
    works = gateway.routes["ep_1"].replicas[0].replica_id
    assert (await gateway.scale("ep_1", 1, busy=(works,))).accepted
    await eventually(lambda: sum(each.draining for each in gateway.routes["ep_1"].replicas) == 3)
    assert len(host.running) == 4
    await gateway.scale_until("ep_1", 1, lambda route: [each.replica_id for each in route.replicas] == [works])
    await eventually(lambda: len(host.running) == 1)
    slept = await gateway.scale_until("ep_1", 0, lambda route: route.state == "idle")
    assert slept.idle_since is not None
    assert (slept.desired_replicas, slept.replicas, host.running) == (0, (), [])
    assert await live_replicas(scheduler) == {}
    replies = await asyncio.gather(*(gateway.scale("ep_1", 1, route_version=slept.version) for _ in range(100)))
    assert sum(each.accepted for each in replies) == 1
    await ready(gateway, "ep_1", 1)
    assert (gateway.routes["ep_1"].state, gateway.routes["ep_1"].idle_since) == ("running", None)
    assert await told(scheduler, EndpointIdle, EndpointScaled, ReplicaScheduled, ReplicaEnded) == [1, 4, 5, 4]


async def test_a_wish_from_an_old_route_is_refused(scene: Platform) -> None:
    await scene.scheduler()
    await scene.host()
    gateway = await scene.gateway()
    await scene.create("ep_1", spec=spec(1, replicas=0, most=4))
    old = await ready(gateway, "ep_1", 1)
    first = await gateway.scale("ep_1", 2)
    late = await gateway.scale("ep_1", 4, route_version=old.version)
    assert (late.accepted, late.desired_replicas, late.version >= first.version) == (False, 2, True)
    wish = scaling_wish(gateway.routes["ep_1"], 4, endpoint_id="ep_unknown")
    unknown = await gateway.service.ask(wish)
    assert (unknown.accepted, unknown.reason) == (False, "there is no endpoint ep_unknown")


async def test_more_start_when_room_frees_and_the_waiting_come_first(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    gateway = await scene.gateway()
    await scene.create("ep_1", spec=spec(3))
    await scene.create("ep_2", spec=spec(1, replicas=0, most=4))
    await all_are(scheduler, "running", 2)
    route = await ready(gateway, "ep_2", 1)
    await gateway.scale("ep_2", 4, busy=tuple(each.replica_id for each in route.replicas))
    await eventually(lambda: gateway.routes["ep_2"].shortage)
    await scene.create("ep_3", spec=spec(1))
    await scene.ask("terminate", "ep_1")
    await ready(gateway, "ep_3", 1)
    route = await ready(gateway, "ep_2", 3)
    assert route.shortage.startswith("3 of 4 replicas run")


async def test_an_idle_endpoint_gives_way_to_one_that_waits(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    gateway = await scene.gateway()
    await scene.create("ep_1", spec=spec(4, replicas=0))
    await ready(gateway, "ep_1", 1)
    await scene.create("ep_2", spec=spec(4, replicas=0))
    await eventually(lambda: gateway.routes["ep_2"].state == "queued" if "ep_2" in gateway.routes else False)
    await gateway.scale("ep_1", 1)
    await eventually(lambda: gateway.routes["ep_1"].desired_replicas == 0)
    await gateway.scale_until("ep_1", 0, lambda route: route.state == "idle")
    await ready(gateway, "ep_2", 1)
    assert await states(scheduler) == {"ep_1": "idle", "ep_2": "running"}
    await gateway.scale("ep_1", 1)
    await eventually(lambda: gateway.routes["ep_1"].reason.endswith("first in line for RTX 4090"))


async def test_scaling_survives_the_scheduler(scene: Platform, make_settings: MakeSettings) -> None:
    host, gateway = await scene.host(), await scene.gateway()
    async with platform(make_settings) as first:
        await first.scheduler(drain_limit_s=60)
        await scene.create("ep_1", spec=spec(1, replicas=0, most=4))
        await ready(gateway, "ep_1", 1)
        await gateway.scale("ep_1", 3)
        route = await ready(gateway, "ep_1", 3)
        busy = tuple(each.replica_id for each in route.replicas)
        await gateway.scale("ep_1", 1, busy=busy)
        await ready(gateway, "ep_1", 1)
    scheduler = await scene.scheduler(drain_limit_s=60)
    assert (await gateway.scale("ep_1", 2, busy=busy)).desired_replicas == 2
    await ready(gateway, "ep_1", 2)
    await gateway.scale_until("ep_1", 2, lambda route: len(route.replicas) == 2)
    await eventually(lambda: len(host.running) == 2)
    assert await told(scheduler, ReplicaScheduled) == [3]


async def test_a_route_that_says_too_little_of_a_drain_is_put_right(scene: Platform, clean_servers: Servers) -> None:
    await scene.scheduler(repair_every_s=0.5)
    await scene.host()
    gateway = await scene.gateway()
    await scene.create("ep_1", spec=spec(1, replicas=0, most=4))
    await ready(gateway, "ep_1", 1)
    await gateway.scale("ep_1", 2)
    route = await ready(gateway, "ep_1", 2)
    await gateway.scale("ep_1", 1, busy=tuple(each.replica_id for each in route.replicas))
    wanted = await ready(gateway, "ep_1", 1)
    wrong = tuple(each.model_copy(update={"draining": False}) for each in wanted.replicas)
    admin = await clean_servers.admin_client()
    try:
        bucket = await admin.jetstream().key_value(Route.bucket)
        await bucket.put("ep_1", wanted.model_copy(update={"replicas": wrong}).model_dump_json().encode())
        await ready(gateway, "ep_1", 2)
    finally:
        await admin.close()
    await eventually(lambda: gateway.routes["ep_1"] == wanted)


async def test_the_forecast_of_an_endpoint_that_may_sleep_is_of_one_replica(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    await scene.create("ep_1", spec=spec(3))
    await all_are(scheduler, "running", 1)
    question = AskForecast(gpu=GpuRequest(type=RTX, count=1), resources=Resources(), replicas=0)
    forecast = await scene.api.ask(question)
    assert (forecast.starts_now, forecast.reason) == (True, "starts at once on host-a")
    question = AskForecast(gpu=GpuRequest(type=RTX, count=2), resources=Resources(), replicas=0)
    assert (await scene.api.ask(question)).position == 1
