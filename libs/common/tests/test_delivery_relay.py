"""The relay and the outbox: nothing lost, nothing twice, nothing late, wherever one of them is interrupted."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from nats.js.errors import NoStreamResponseError

from penstock_common.contracts.events import EndpointStopRequested
from penstock_common.contracts.questions import Replay
from penstock_common.contracts.topology import replay_subject
from penstock_common.delivery import outbox, relay
from penstock_common.delivery.publish import Pipeline
from penstock_common.delivery.relay import Floor
from penstock_common.service import Service
from tests_support import Servers, eventually, running

from .delivering import Make, Notes, Recorder, api, notes, scheduler, send, stop_requested

PROMPT_S = relay.IDLE_CHECK_S / 2
"""Sooner than what a relay that was not woken finds by itself."""


async def on_marking(service: Service[Notes], then: str) -> None:
    """Have PostgreSQL do `then`, in PL/pgSQL, when a row is about to be noted as sent."""
    await service.pool.execute(
        f"create function marking() returns trigger language plpgsql as $$ begin {then}; return new; end $$"
    )
    await service.pool.execute(
        "create trigger marking before update of sent_at on outbox for each row execute function marking()"
    )


async def unsent(service: Service[Notes]) -> int:
    return int(await service.pool.fetchval("select count(*) from outbox where sent_at is null"))


@pytest.mark.connected
@pytest.mark.parametrize("count", [3, 40], ids=["one by one", "in an atomic batch"])
async def test_a_relay_that_dies_before_it_notes_what_it_published_loses_and_repeats_nothing(
    make_settings: Make, clean_servers: Servers, count: int
) -> None:
    recorder = Recorder()
    expected = [f"ep_{number}" for number in range(count)]
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await on_marking(sender, "perform pg_terminate_backend(pg_backend_pid())")
        await send(sender, *expected)
        await eventually(lambda: len(recorder.deliveries) == count)
        assert await unsent(sender) == count
        await sender.pool.execute("drop trigger marking on outbox")
        await send(sender, "ep_last")

        async def all_sent() -> bool:
            return await unsent(sender) == 0

        await eventually(all_sent, deadline_s=20)
        await eventually(lambda: ("ep_last", 1) in recorder.deliveries)
        assert await notes(receiver) == [*expected, "ep_last"]
        assert (await js.stream_info("EVENTS")).state.messages == count + 1
    await admin.close()


@pytest.mark.connected
async def test_a_stop_waits_until_what_was_published_is_noted(make_settings: Make, clean_servers: Servers) -> None:
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    holding = await asyncpg.connect(clean_servers.database_url)
    await holding.execute("select pg_advisory_lock(7)")
    async with running(api(make_settings)) as sender:
        await on_marking(sender, "perform pg_advisory_xact_lock(7)")
        await send(sender, "ep_1")

        async def published() -> int:
            return (await js.stream_info("EVENTS")).state.messages

        await eventually(published)
        loop = asyncio.get_running_loop()
        unlocking = loop.create_future()
        loop.call_later(0.5, lambda: unlocking.set_result(loop.create_task(_unlock(holding))))
    assert unlocking.done(), "it did not wait"
    await unlocking.result()
    assert await holding.fetchval("select count(*) from api.outbox where sent_at is null") == 0
    await holding.close()
    await admin.close()


async def _unlock(connection: "asyncpg.Connection[Any]") -> None:
    await connection.execute("select pg_advisory_unlock(7)")


@pytest.mark.connected
async def test_a_message_of_another_process_of_the_service_does_not_wait(make_settings: Make) -> None:
    recorder = Recorder()
    async with (
        running(scheduler(make_settings, recorder)),
        running(api(make_settings)) as first,
        running(api(make_settings)) as second,
    ):
        await eventually(lambda: first.relay.active)
        assert not second.relay.active
        await send(second, "ep_1")
        await eventually(lambda: recorder.deliveries, deadline_s=PROMPT_S)


@dataclass
class Losing:
    """A relay that stops being the active one as the transaction commits."""

    states: list[bool] = field(default_factory=lambda: [True, False])

    @property
    def active(self) -> bool:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def wake(self) -> None:
        raise AssertionError("it is another process that relays")


@pytest.mark.connected
async def test_a_process_that_no_longer_relays_at_the_commit_tells_the_one_that_does(make_settings: Make) -> None:
    heard: list[object] = []
    async with running(api(make_settings)) as service:
        listening = await asyncpg.connect(service.settings.database_url.get_secret_value())  # type: ignore[union-attr]
        await listening.add_listener("outbox_api", lambda *arguments: heard.append(arguments[-1]))
        async with outbox.transaction(service.pool, "api", Losing()) as (_, out):
            await out.emit(stop_requested("ep_1"))
        await eventually(lambda: heard == [outbox.NEW], deadline_s=PROMPT_S)
        await listening.close()


@pytest.mark.connected
async def test_a_row_committed_after_later_ones_were_sent_is_sent_too(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FLOOR_EVERY_S", 0.0)
    recorder = Recorder()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)):
        async with sender.transaction() as store:
            await store.outbox.emit(stop_requested("ep_slow"))
            await store.outbox.flush()
            for number in range(5):
                await send(sender, f"ep_{number}")
                await eventually(lambda: len(recorder.deliveries) == number + 1)  # noqa: B023
        await eventually(lambda: ("ep_slow", 1) in recorder.deliveries, deadline_s=PROMPT_S)


@pytest.mark.connected
async def test_a_replay_sends_what_the_relay_had_passed(
    make_settings: Make, clean_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FLOOR_EVERY_S", 0.0)
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    async with running(api(make_settings)) as sender:
        began = await sender.pool.fetchval("select now()")
        for number in range(5):
            await send(sender, f"ep_{number}")

            async def sent() -> bool:
                return await unsent(sender) == 0

            await eventually(sent)
        await js.purge_stream("EVENTS")
        # Outside the server's window for duplicates the purged messages would be taken again.
        await sender.pool.execute("update outbox set headers = replace(headers, 'Nats-Msg-Id', 'Was-Msg-Id')")
        await sender.ask(Replay(since=began), subject=replay_subject("api"))

        async def restored() -> bool:
            return (await js.stream_info("EVENTS")).state.messages == 5

        await eventually(restored, deadline_s=PROMPT_S)
    await admin.close()


@pytest.mark.connected
async def test_a_pipeline_says_of_each_message_whether_it_is_kept(clean_servers: Servers) -> None:
    admin = await clean_servers.admin_client()
    pipeline = Pipeline(lambda: admin)
    kept = relay._Row(1, EndpointStopRequested.message_type, {"Nats-Msg-Id": "1"}, b"{}")
    nowhere = relay._Row(2, "nowhere.at.all", {}, b"{}")
    for _ in range(2):
        answers = await pipeline.send([kept, nowhere, kept], timeout_s=5)
        assert answers[0] is None
        assert isinstance(answers[1], NoStreamResponseError)
        assert answers[2] is None
    assert (await admin.jetstream().stream_info("EVENTS")).state.messages == 1
    await admin.close()


def test_the_floor_rises_to_what_was_sent_when_the_transactions_of_that_time_are_over() -> None:
    floor = Floor()
    floor.sent(10)
    floor.rise(oldest=100, following=105)
    assert floor.id == 0, "a transaction from 100 to 104 may still write a row before 10"
    floor.sent(20)
    floor.rise(oldest=104, following=110)
    assert floor.id == 0
    floor.rise(oldest=105, following=111)
    assert floor.id == 10
    floor.rise(oldest=110, following=115)
    assert floor.id == 10, "what was sent meanwhile was marked at 111"
    floor.rise(oldest=111, following=116)
    assert floor.id == 20
