"""The scheduler as it runs: real NATS, real PostgreSQL, hosts that obey."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock_common.contracts.endpoint import GpuRequest, Resources
from penstock_common.contracts.events import EndpointStopRequested
from penstock_common.contracts.questions import AskCapacity, AskForecast, AskHosts, Replay
from penstock_common.contracts.records import Assignment, Route
from penstock_common.contracts.topology import ASSIGNMENTS, EVENTS, ROUTES, heartbeat_subject, replay_subject
from penstock_common.delivery.topology import declare
from penstock_common.service import Service
from penstock_scheduler.domain import Place, Plan, Policy
from penstock_scheduler.planner import carry_out
from penstock_scheduler.store import Store
from tests_support import Servers, eventually

from .builders import RTX, inventory, requested, spec
from .platform import MakeSettings, Platform, all_are, live_replicas, platform, states

pytestmark = pytest.mark.connected


@pytest.fixture
async def scene(make_settings: MakeSettings) -> AsyncIterator[Platform]:
    async with platform(make_settings) as found:
        yield found


async def test_an_endpoint_runs_stops_restarts_and_terminates(scene: Platform) -> None:
    scheduler = await scene.scheduler(drain_s=0.2)
    host = await scene.host()
    buckets = await scene.buckets()
    await scene.create("ep_1", spec=spec(2))
    await eventually(lambda: buckets.routes["ep_1"].state == "running" if buckets.routes else False)
    route = buckets.routes["ep_1"]
    assert [each.address for each in route.replicas] == ["127.0.0.1:9000"]
    [assignment] = buckets.assignments.values()
    assert (assignment.gpu_uuids, assignment.host_id) == ((f"host-a-{RTX}-0", f"host-a-{RTX}-1"), "host-a")
    await scene.ask("stop", "ep_1")
    await eventually(lambda: buckets.routes["ep_1"].state == "stopped")
    assert (buckets.assignments, host.running) == ({}, [])
    await scene.ask("restart", "ep_1")
    await eventually(lambda: buckets.routes["ep_1"].state == "running")
    assert [each.generation for each in buckets.assignments.values()] == [2]
    await scene.ask("terminate", "ep_1")
    await eventually(lambda: not buckets.routes and not buckets.assignments)
    await all_are(scheduler, "terminated", 1)
    assert await scheduler.pool.fetchval("select count(*) from gpu_reservations where released_at is null") == 0
    assert host.ran_together == 1


async def test_those_who_wait_start_by_themselves(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    host = await scene.host()
    await scene.create("ep_1", spec=spec(4))
    await all_are(scheduler, "running", 1)
    await scene.create("ep_2", spec=spec(3))
    await eventually(lambda: _is(scheduler, "ep_2", "queued"))
    await scene.ask("terminate", "ep_1")
    await eventually(lambda: _is(scheduler, "ep_2", "running"))
    assert host.ran_together == 1


async def _is(scheduler: Service[Store], endpoint_id: str, state: str) -> bool:
    return (await states(scheduler)).get(endpoint_id) == state


async def test_a_lost_host_is_replaced_and_fenced_when_it_returns(scene: Platform) -> None:
    scheduler = await scene.scheduler(host_lost_after_s=1.5)
    first = await scene.host("host-a")
    await scene.create("ep_1", spec=spec(4))
    await all_are(scheduler, "running", 1)
    second = await scene.host("host-b")
    first.silent = True
    await eventually(lambda: len(second.running) == 1)
    await all_are(scheduler, "running", 1)
    assert list((await live_replicas(scheduler)).values()) == ["host-b"]
    await eventually(lambda: first.running == [])  # it saw that its assignment is gone
    first.silent = False
    await eventually(lambda: _host_is_usable(scheduler, "host-a"))
    await all_are(scheduler, "running", 1)


async def _host_is_usable(scheduler: Service[Store], host_id: str) -> bool:
    async with scheduler.transaction() as store:
        found = await store.host(host_id)
    return found is not None and found.usable


async def test_the_database_refuses_a_gpu_reserved_twice(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    async with scheduler.transaction() as store:
        taken = (await store.snapshot(Policy(), await store.now())).replicas[0]
    with pytest.raises(asyncpg.UniqueViolationError, match="gpu_reserved_once"):
        async with scheduler.transaction() as store:
            await store.insert_replica(replace(taken, replica_id="rep_twin", generation=2))
    assert list(await live_replicas(scheduler)) == [taken.replica_id]


async def test_a_plan_that_the_database_refuses_leaves_nothing_behind(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    wrong = Plan(at=datetime.now(UTC), placed=(Place("ep_1", 2, "host-a", (f"host-a-{RTX}-0",), ""),))
    with pytest.raises(asyncpg.UniqueViolationError):
        async with scheduler.transaction() as store:
            await carry_out(store, await store.snapshot(Policy(), await store.now()), wrong)
    assert len(await live_replicas(scheduler)) == 1


async def test_two_schedulers_place_everything_once(scene: Platform) -> None:
    one = await scene.scheduler()
    await scene.scheduler()
    hosts = [await scene.host(f"host-{name}", inventory(4, cpu_cores=64, host_id=f"host-{name}")) for name in "ab"]
    names = [f"ep_{number}" for number in range(40)]
    await scene.create(*names, spec=spec(cpu_cores=1, memory_gb=1))
    await all_are(one, "running", 40)
    assert len(await live_replicas(one)) == 40
    assert await one.pool.fetchval("select count(*) from replicas") == 40
    assert sum(len(host.reports) for host in hosts) == 40


async def test_a_second_scheduler_goes_on_when_the_first_is_gone(scene: Platform, make_settings: MakeSettings) -> None:
    standby = await scene.scheduler()
    async with platform(make_settings) as other:
        await other.scheduler()
        await scene.host()
        await scene.create("ep_1", spec=spec(1))
        await all_are(standby, "running", 1)
    await scene.create("ep_2", spec=spec(1))
    await all_are(standby, "running", 2)


async def test_nothing_is_forgotten_while_no_scheduler_runs(scene: Platform, make_settings: MakeSettings) -> None:
    host = await scene.host()
    async with platform(make_settings) as first:
        scheduler = await first.scheduler()
        await scene.create("ep_1", spec=spec(1))
        await all_are(scheduler, "running", 1)
    await scene.create("ep_2", spec=spec(1))
    await scene.ask("stop", "ep_1")
    scheduler = await scene.scheduler()
    await eventually(lambda: _is(scheduler, "ep_1", "stopped"))
    await eventually(lambda: _is(scheduler, "ep_2", "running"))
    assert await scheduler.pool.fetchval("select count(*) from replicas where cause is distinct from 'stopped'") == 1
    assert len(host.reports) == 2


async def test_a_replica_that_ended_while_no_scheduler_ran_ended_then(
    scene: Platform, make_settings: MakeSettings
) -> None:
    host = await scene.host()
    async with platform(make_settings) as first:
        scheduler = await first.scheduler()
        await scene.create("ep_1", spec=spec(1))
        await all_are(scheduler, "running", 1)
    [replica] = host.running
    now = scene.api.pool.fetchval
    before = await now("select clock_timestamp()")
    await host.say(replica.replica_id, "failed", cause="crashed", exit_code=-9)
    after = await now("select clock_timestamp()")
    await _wait_until(scene.api, timedelta(seconds=4))
    host.silent = True  # its heartbeats come later than the report that waits
    scheduler = await scene.scheduler()
    find = "select ended_at from replicas where replica_id = $1"
    ended_at = await eventually(lambda: scheduler.pool.fetchval(find, replica.replica_id))
    assert before - timedelta(seconds=0.5) <= ended_at <= after + timedelta(seconds=0.5)


async def test_every_request_twice_and_in_any_order(scene: Platform, clean_servers: Servers) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    stop = EndpointStopRequested(endpoint_id="ep_1", organization_id="org_a", version=2)
    try:
        for number, message in enumerate([stop, requested("ep_1"), stop, requested("ep_1")]):
            headers = {
                "ce-id": f"evt_{number}",
                "ce-type": message.message_type,
                "ce-time": datetime.now(UTC).isoformat(),
            }
            await js.publish(message.message_type, message.model_dump_json().encode(), headers=headers)
    finally:
        await admin.close()
    await all_are(scheduler, "stopped", 1)


async def test_hosts_are_not_lost_while_nats_stands_still(scene: Platform, platform_servers: Servers) -> None:
    scheduler = await scene.scheduler(host_lost_after_s=4)
    await scene.host()
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    process = platform_servers.nats.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await _wait_until(scheduler, timedelta(seconds=7))
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await scene.create("ep_2", spec=spec(1))
    await all_are(scheduler, "running", 2)
    assert await _hosts_lost(scheduler) == 0


async def _wait_until(service: Service[Any], passed: timedelta) -> None:
    """Until so much time has passed on the database's clock."""
    end = await service.pool.fetchval("select clock_timestamp() + $1::interval", passed)
    await eventually(
        lambda: service.pool.fetchval("select clock_timestamp() > $1", end), deadline_s=passed.total_seconds() + 5
    )


async def _hosts_lost(scheduler: Service[Store]) -> int:
    count: int = await scheduler.pool.fetchval(
        "select count(*) from outbox where subject = 'events.scheduler.host.lost.v1'"
    )
    return count


async def test_servers_that_go_away_cost_no_host_and_no_replica(scene: Platform, platform_servers: Servers) -> None:
    scheduler = await scene.scheduler(host_lost_after_s=3)
    await scene.host()
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    for server in (platform_servers.postgres, platform_servers.nats):
        server.stop()
        server.start()
    await eventually(lambda: _created(scene, "ep_2"))
    await all_are(scheduler, "running", 2)
    assert await _hosts_lost(scheduler) == 0
    assert await scheduler.pool.fetchval("select count(*) from replicas") == 2


async def _created(scene: Platform, endpoint_id: str) -> bool:
    try:
        await scene.create(endpoint_id, spec=spec(1))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def test_buckets_that_differ_from_the_tables_are_put_right(scene: Platform, clean_servers: Servers) -> None:
    scheduler = await scene.scheduler(repair_every_s=0.5)
    await scene.host()
    buckets = await scene.buckets()
    await scene.create("ep_1", "ep_2", spec=spec(1))
    await all_are(scheduler, "running", 2)
    await eventually(lambda: len(buckets.assignments) == 2 and len(buckets.routes["ep_1"].replicas) == 1)
    wanted_routes, wanted = dict(buckets.routes), dict(buckets.assignments)
    first, second = sorted(wanted)
    admin = await clean_servers.admin_client()
    try:
        js = admin.jetstream()
        assignments, routes = await js.key_value(Assignment.bucket), await js.key_value(Route.bucket)
        stray = wanted[first].model_copy(update={"replica_id": "rep_stray"})
        await assignments.put(stray.key(), stray.model_dump_json().encode())
        await assignments.delete(second)
        empty = wanted_routes["ep_1"].model_copy(update={"replicas": ()})
        await routes.put("ep_1", empty.model_dump_json().encode())
        await routes.delete("ep_2")
        await routes.put("ep_stray", empty.model_copy(update={"endpoint_id": "ep_stray"}).model_dump_json().encode())
        await eventually(lambda: stray.key() in buckets.assignments and "ep_stray" in buckets.routes)
    finally:
        await admin.close()
    await eventually(lambda: stray.key() not in buckets.assignments and "ep_stray" not in buckets.routes)
    await eventually(lambda: set(buckets.routes) == {"ep_1", "ep_2"} and buckets.routes["ep_1"].replicas)
    # The host stopped what had no assignment any more, as it should; a new replica took its place.
    await eventually(lambda: set(buckets.assignments) == _keys(buckets.routes, buckets.assignments))
    assert buckets.assignments[first] == wanted[first]


def _keys(routes: dict[str, Route], assignments: dict[str, Assignment]) -> set[str]:
    routed = {replica.replica_id for route in routes.values() for replica in route.replicas}
    return {key for key, record in assignments.items() if record.replica_id in routed}


async def test_a_replay_restores_both_buckets_and_the_facts(scene: Platform, clean_servers: Servers) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    admin = await clean_servers.admin_client()
    try:
        js = admin.jetstream()
        for stream in (EVENTS.name, ASSIGNMENTS.stream, ROUTES.stream):
            await js.delete_stream(stream)
        await declare(js)
    finally:
        await admin.close()
    reply = await scene.api.ask(
        Replay(since=datetime.now(UTC) - timedelta(hours=1)), subject=replay_subject("scheduler")
    )
    assert reply.records == 2
    assert reply.events >= 4
    buckets = await scene.buckets()
    await eventually(lambda: set(buckets.routes) == {"ep_1"} and len(buckets.assignments) == 1)


async def test_questions_are_answered(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    await scene.host()
    await scene.create("ep_1", spec=spec(3))
    await all_are(scheduler, "running", 1)
    capacity = await scene.api.ask(AskCapacity())
    assert [(gpu.type, gpu.total, gpu.free, gpu.startable_counts) for gpu in capacity.gpus] == [(RTX, 4, 1, (1,))]
    forecast = await scene.api.ask(AskForecast(gpu=GpuRequest(type=RTX, count=2), resources=Resources(), replicas=1))
    assert (forecast.starts_now, forecast.position) == (False, 1)
    [host] = (await scene.api.ask(AskHosts())).hosts
    assert (host.host_id, host.state, host.gpus_used, host.replicas) == ("host-a", "up", 3, 1)


async def test_heartbeats_that_make_no_sense_harm_nobody(scene: Platform) -> None:
    scheduler = await scene.scheduler()
    host = await scene.host()
    client = host.service.nats
    await client.publish(heartbeat_subject("host-a"), b"not json")
    await host.beat(host_id="host-b")  # in another's name
    await client.publish(heartbeat_subject("host-c"), b"{}")
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    assert [each.host_id for each in (await scene.api.ask(AskHosts())).hosts] == ["host-a"]


async def test_ended_replicas_are_forgotten_in_time(scene: Platform) -> None:
    scheduler = await scene.scheduler(repair_every_s=0.2, ended_replicas_kept_s=0.1)
    await scene.host()
    await scene.create("ep_1", spec=spec(1))
    await all_are(scheduler, "running", 1)
    await scene.ask("stop", "ep_1")
    await all_are(scheduler, "stopped", 1)
    await eventually(lambda: _counts(scheduler, replicas=0, reservations=0))


async def _counts(scheduler: Service[Store], *, replicas: int, reservations: int) -> bool:
    found = await scheduler.pool.fetchrow(
        "select (select count(*) from replicas) as replicas, (select count(*) from gpu_reservations) as reservations"
    )
    return tuple(found) == (replicas, reservations)
