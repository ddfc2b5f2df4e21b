"""Kept requests on the data plane: through the same queue, and read no faster than the answer is taken."""

import asyncio
from collections.abc import Sequence

from penstock_common.contracts.inference import OpenInference
from penstock_gateway.deferred.backend import BACKLOG_BYTES_MAX, PlaneBackend
from penstock_gateway.deferred.lifecycle import Outcome
from penstock_gateway.deferred.ports import Loaded
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.exchange import Stage
from penstock_gateway.proxy.replica import Replica
from tests_support import eventually

from .plane import MakePlane, RunningPlane
from .replica import Connection, Gate, ScriptedReplica, Seen
from .test_deferred_lifecycle import inference


class SimpleJob:
    """Sends one request; notes the answer. `may_take` holds it up."""

    def __init__(self, *, begins: bool = True) -> None:
        self.inference: OpenInference = inference()
        self.begun = 0
        self.status = 0
        self.lines: list[bytes] = []
        self.taken = bytearray()
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        self._begins = begins

    async def begin(self) -> Loaded | None:
        self.begun += 1
        await self.may_begin.wait()
        return (
            Loaded(b"POST /run HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", [b"bo", b"dy"])
            if self._begins
            else None
        )

    async def head(self, status: int, lines: Sequence[bytes]) -> None:
        self.status, self.lines = status, list(lines)

    async def body(self, data: bytes) -> None:
        await self.may_take.wait()
        self.taken += data


def backend(plane: RunningPlane) -> PlaneBackend:
    return PlaneBackend(plane.plane.directory)


async def test_a_request_is_sent_and_its_answer_handed_over(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica)
    job = SimpleJob()
    assert await backend(plane).run(job) == Outcome()
    (seen,) = replica.seen
    assert (seen.line, seen.body) == ("POST /run HTTP/1.1", b"body")
    assert (job.status, b"Content-Type: text/plain" in job.lines) == (200, True)
    assert b'"body"' in job.taken
    assert plane.endpoint.in_flight == 0


async def test_an_answer_without_a_length_comes_without_its_coding(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def chunked(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        )

    replica.handler = chunked
    job = SimpleJob()
    assert await backend(await make_plane(replica)).run(job) == Outcome()
    assert job.taken == b"abcde"


async def test_a_replica_is_read_no_faster_than_its_answer_is_taken(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    size, sent = 32 * BACKLOG_BYTES_MAX, 0

    async def large(seen: Seen, connection: Connection) -> None:
        nonlocal sent
        await connection.body(seen)
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await connection.send(bytes(65_536))
            sent += 65_536

    replica.handler = large
    plane = await make_plane(replica)
    job = SimpleJob()
    job.may_take.clear()
    running = asyncio.ensure_future(backend(plane).run(job))
    seen_s: list[int] = []

    async def stands_still() -> bool:
        seen_s.append(sent)
        return len(seen_s) > 20 and seen_s[-1] == seen_s[-20] > 0

    await eventually(stands_still)
    assert sent < size / 2
    job.may_take.set()
    assert await running == Outcome()
    assert len(job.taken) == size


async def test_a_job_that_does_not_begin_frees_its_slot_and_sends_nothing(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica)
    await backend(plane).run(SimpleJob(begins=False))
    assert (plane.endpoint.in_flight, replica.seen) == (0, [])
    assert await backend(plane).run(SimpleJob()) == Outcome()


async def test_a_job_that_is_given_up_frees_its_place_or_its_slot(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    replica.handler = Gate()
    plane = await make_plane(replica)
    loading = SimpleJob()
    loading.may_begin.clear()
    jobs = [loading, SimpleJob(), SimpleJob()]
    tasks = [asyncio.ensure_future(backend(plane).run(job)) for job in jobs]
    await eventually(lambda: loading.begun == 1 and len(plane.endpoint.queue) == 2)
    tasks[2].cancel()
    await asyncio.gather(tasks[2], return_exceptions=True)
    assert len(plane.endpoint.queue) == 1
    tasks[0].cancel()
    await eventually(lambda: replica.working == 1)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (plane.endpoint.in_flight, len(plane.endpoint.queue)) == (0, 0)
    assert len(replica.seen) == 1


async def test_what_was_not_sent_is_told_from_what_may_have_run(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    async def lost(seen: Seen, connection: Connection) -> None:
        connection.abort()

    replica.handler = lost
    plane = await make_plane(replica)
    outcome = await backend(plane).run(SimpleJob())
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.reached) == ("replica_lost", True)
    plane.change_route(state="stopped")
    job = SimpleJob()
    outcome = await backend(plane).run(job)
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.reached, job.begun) == ("not_running", False, 0)
    plane.plane.directory.remove_route("ep_1")
    outcome = await backend(plane).run(SimpleJob())
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.reached) == ("endpoint_gone", False)


async def test_a_replica_that_does_not_accept_is_not_one_that_was_reached(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane(replica, queue_timeout_s=1)
    await replica.stop()
    job = SimpleJob()
    outcome = await backend(plane).run(job)
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.reached, job.begun) == ("overloaded", False, 1)


async def test_one_that_would_be_forwarded_to_another_gateway_is_left_to_it(
    make_plane: MakePlane, replica: ScriptedReplica
) -> None:
    plane = await make_plane()
    job = SimpleJob()
    running = asyncio.ensure_future(backend(plane).run(job))
    await eventually(lambda: len(plane.endpoint.queue) == 1)
    (exchange,) = plane.endpoint.queue._line.waiting
    plane.endpoint.queue.leave(exchange)
    # As an endpoint does that several gateways share: it passes the exchange on to the one that has the queue.
    exchange.stage = Stage.NEW
    exchange.endpoint = Endpoint(plane.plane.context, plane.route)
    exchange.start(Replica(plane.plane.context, "gateway", replica.address, 1), 0)
    outcome = await running
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.reached, job.begun) == ("moved", False, 0)
    assert replica.connections == []
