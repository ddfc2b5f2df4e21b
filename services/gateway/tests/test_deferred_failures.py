"""Asynchronous requests when something fails: gateways, replicas, endpoints, NATS."""

import pytest

from penstock_common.contracts.inference import OpenInference
from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.keeping import Conflict, Keep, Unkept
from tests_support import Servers, eventually

from .deferring import (
    ASYNC,
    MakeGateway,
    make_gateway,
    messages_kept,
    reaches,
    result,
    seen_body,
    start,
    status,
    works_until_cancelled,
)
from .plane import ENDPOINT_ID, ready
from .raw import KEY
from .replica import Connection, Gate, MakeReplica, ScriptedReplica, Seen
from .test_deferred_lifecycle import inference

pytestmark = pytest.mark.connected

__all__ = ["make_gateway"]


async def test_what_waits_survives_the_restart_of_everything(
    make_gateway: MakeGateway, replica: ScriptedReplica, clean_servers: Servers
) -> None:
    first = await make_gateway(state="starting")
    async with first.running.client() as client:
        paths = [await start(client, body=b"%d" % number) for number in range(3)]
    await first.stop()
    clean_servers.nats.stop()
    clean_servers.nats.start()
    second = await make_gateway(replica)
    async with second.running.client() as client:
        for number, path in enumerate(paths):
            assert seen_body(await result(client, path)) == str(number)
    assert len(replica.seen) == 3


async def test_after_a_crash_only_what_may_be_repeated_runs_again(
    make_gateway: MakeGateway, make_replica: MakeReplica
) -> None:
    replicas = [await make_replica() for _ in range(3)]
    gate = Gate()
    for replica in replicas:
        replica.handler = gate
    first = await make_gateway(*replicas)
    async with first.running.client() as client:
        plain = await start(client, "/plain")
        repeatable = await start(client, "/repeatable", b"Idempotency-Key: one\r\n")
        safe = (await client.request("GET", "/safe", ASYNC)).one("Location")
        await eventually(lambda: sum(replica.working for replica in replicas) == 3)
    await first.crash()
    second = await make_gateway(*replicas)
    gate.open(9)
    async with second.running.client() as client:
        said = await reaches(client, plain, "failed")
        assert said["code"] == "gateway_lost"
        assert "it may have run" in said["reason"]
        assert (await client.request("GET", f"{plain}/result")).status == 404
        for path in (repeatable, safe):
            assert (await result(client, path)).status == 200
    targets = [seen.target for replica in replicas for seen in replica.seen]
    assert sorted(targets) == ["/plain", "/repeatable", "/repeatable", "/safe", "/safe"]


async def test_a_stop_lets_what_runs_finish_and_says_what_it_cut_off(
    make_gateway: MakeGateway, make_replica: MakeReplica
) -> None:
    quick, slow = await make_replica(), await make_replica()
    gates = {replica.port: Gate() for replica in (quick, slow)}
    for replica in (quick, slow):
        replica.handler = gates[replica.port]
    first = await make_gateway(quick, slow)
    async with first.running.client() as client:
        paths = [await start(client, f"/{number}") for number in range(3)]
        await eventually(lambda: quick.working == slow.working == 1)
    finished = quick.seen[0].target
    gates[quick.port].open()
    await first.stop(limit_s=0.5)
    second = await make_gateway(quick)
    gates[quick.port].open(9)
    async with second.running.client() as client:
        said = [await reaches(client, path, "succeeded", "failed") for path in paths]
    by_target = {one["target"]: (one["state"], one["code"]) for one in said}
    assert by_target.pop(finished) == ("succeeded", None)
    assert by_target.pop(slow.seen[0].target) == ("failed", "gateway_stopped")
    # The third had not begun: the next gateway runs it.
    assert list(by_target.values()) == [("succeeded", None)]


async def test_two_gateways_run_each_request_once(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    first = await make_gateway(replica, target_concurrency=8)
    await make_gateway(replica, target_concurrency=8)
    async with first.running.client() as client:
        paths = [await start(client, f"/{number}") for number in range(30)]
        for path in paths:
            await reaches(client, path, "succeeded")
    assert sorted(seen.target for seen in replica.seen) == sorted(f"/{number}" for number in range(30))


async def test_without_nats_nothing_is_promised_and_nothing_kept_is_lost(
    make_gateway: MakeGateway, replica: ScriptedReplica, clean_servers: Servers
) -> None:
    replica.handler = gate = Gate()
    gateway = await make_gateway(replica, target_concurrency=2)
    async with gateway.running.client() as client:
        path = await start(client)
        await eventually(lambda: replica.working == 1)
        clean_servers.nats.stop()
        try:
            refused = await client.request("POST", "/run", ASYNC)
            assert (refused.status, refused.json()["code"]) == (503, "cannot_keep")
            gate.open(2)
            assert (await client.request("POST", "/run")).status == 200
        finally:
            clean_servers.nats.start()
        said = await reaches(client, path, "succeeded", "failed", deadline_s=30)
        assert said["state"] == "succeeded"
    assert len(replica.seen) == 2


@pytest.mark.parametrize("half", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_a_replica_that_is_lost_while_it_runs_is_not_asked_again_unless_that_does_no_harm(
    make_gateway: MakeGateway, replica: ScriptedReplica, half: bytes
) -> None:
    async def lost(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        if len(replica.seen) < 3:
            await connection.send(half)
            connection.writer.close()
        else:
            await connection.answer(b"at last")

    replica.handler = lost
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        said = await reaches(client, await start(client), "succeeded", "failed")
        assert (said["state"], said["code"]) == ("failed", "replica_lost")
        assert len(replica.seen) == 1
        path = await start(client, headers=b"Idempotency-Key: k\r\n")
        assert (await result(client, path)).body == b"at last"
    assert len(replica.seen) == 3


async def test_a_client_that_leaves_half_way_leaves_nothing_behind(
    make_gateway: MakeGateway, replica: ScriptedReplica, clean_servers: Servers
) -> None:
    gateway = await make_gateway(replica)
    budget = gateway.deferred._desk.budget
    whole = budget._free
    async with gateway.running.client() as client:
        head = b"POST /run HTTP/1.1\r\nHost: iris.default.localhost\r\nAuthorization: Bearer " + KEY.encode()
        await client.send(head + b"\r\nContent-Length: 1000000\r\n" + ASYNC + b"\r\n" + bytes(500_000))
        await eventually(lambda: budget._free < whole)
        client.leave()
        await eventually(lambda: budget._free == whole)
    records, data = await messages_kept(clean_servers)
    assert not data
    assert not [subject for subject in records if ".open." in subject]


async def test_what_can_never_run_fails_with_the_reason(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    gateway = await make_gateway(state="starting", deferred={"deferred_wait_s_max": 1})
    async with gateway.running.client() as client:
        said = await reaches(client, await start(client), "failed")
        assert said["code"] == "waited_too_long"
        path = await start(client)
        gateway.running.change_route(state="failed")
        said = await reaches(client, path, "failed")
        assert said["code"] == "not_running"
        refused = await client.request("POST", "/run", ASYNC)
        assert (refused.status, refused.json()["code"]) == (503, "not_running")


async def test_a_stopped_endpoint_keeps_what_waits_until_it_runs_again(
    make_gateway: MakeGateway, replica: ScriptedReplica
) -> None:
    gateway = await make_gateway(state="starting")
    async with gateway.running.client() as client:
        path = await start(client)
        await eventually(lambda: len(gateway.running.endpoint.queue) == 1)
        gateway.running.change_route(state="stopped")
        await eventually(lambda: len(gateway.running.endpoint.queue) == 0)
        assert (await status(client, path))["state"] == "queued"
        gateway.running.change_route(state="running", replicas=ready(replica))
        assert (await result(client, path)).status == 200


async def test_one_that_runs_too_long_is_cut_off(make_gateway: MakeGateway, replica: ScriptedReplica) -> None:
    replica.handler = works_until_cancelled
    gateway = await make_gateway(replica, deferred={"deferred_run_s_max": 0.2})
    async with gateway.running.client() as client:
        said = await reaches(client, await start(client), "failed")
        assert said["code"] == "ran_too_long"
        await eventually(replica.connections[0].lost.is_set)


async def test_a_write_whose_acknowledgement_was_lost_is_not_a_conflict_with_itself(
    make_gateway: MakeGateway, clean_servers: Servers
) -> None:
    gateway = await make_gateway()
    keep = gateway.deferred._keep
    one = inference()
    revision = await keep.create(one)
    assert await keep.create(one) == revision
    running = lifecycle.running(one, "gw_1", one.created_at)
    changed = await keep.update(running, revision)
    assert await keep.update(running, revision) == changed
    with pytest.raises(Conflict):
        await keep.update(lifecycle.running(one, "gw_2", one.created_at), revision)
    with pytest.raises(Conflict):
        await keep.create(inference(method="GET"))
    assert await keep.end(running, changed) > changed
    assert await keep.find_open(one.endpoint_id, one.inference_id) is None


async def test_a_mark_that_was_written_but_not_acknowledged_costs_no_run(
    make_gateway: MakeGateway, replica: ScriptedReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was not sent, so it is neither lost nor sent twice."""
    written: list[int] = []
    update = Keep.update

    async def unacknowledged(keep: Keep, one: OpenInference, revision: int) -> int:
        changed = await update(keep, one, revision)
        if one.state == "running" and not written:
            written.append(changed)
            raise Unkept("no answer")
        return changed

    monkeypatch.setattr(Keep, "update", unacknowledged)
    gateway = await make_gateway(replica)
    async with gateway.running.client() as client:
        path = await start(client)
        assert (await result(client, path)).status == 200
    assert written
    assert len(replica.seen) == 1


async def test_an_inference_whose_endpoint_is_removed_fails(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(state="starting")
    async with gateway.running.client() as client:
        path = await start(client)
    gateway.running.plane.directory.remove_route(ENDPOINT_ID)
    await eventually(lambda: len(gateway.board) == 0)
    finished = await gateway.deferred._keep.find_finished(ENDPOINT_ID, path.rpartition("/")[2])
    assert finished is not None
    assert (finished.state, finished.code) == ("failed", "endpoint_gone")
