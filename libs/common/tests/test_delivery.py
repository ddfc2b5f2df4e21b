"""The delivery layer on a real PostgreSQL and a real NATS: what its promises rest on."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from penstock_common.contracts.events import EndpointStopRequested
from penstock_common.contracts.questions import Replay
from penstock_common.contracts.topology import SCHEDULER_REQUESTS, replay_subject
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.errors import Permanent
from penstock_common.delivery.topology import declare
from penstock_common.service import Service
from tests_support import Servers, eventually, running

from .delivering import Make, Notes, Recorder, api, notes, scheduler, send, stop_requested

pytestmark = pytest.mark.connected


async def test_what_a_transaction_emits_arrives_in_order(make_settings: Make) -> None:
    recorder = Recorder()
    expected = [f"ep_{number}" for number in range(350)]
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await send(sender, *expected)
        await eventually(lambda: len(recorder.deliveries) >= len(expected))
        assert await notes(receiver) == expected


async def test_a_rolled_back_transaction_says_nothing(make_settings: Make) -> None:
    recorder = Recorder()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:

        async def fail_after_emitting() -> None:
            async with sender.transaction() as store:
                await store.outbox.emit(stop_requested("ep_never"))
                raise RuntimeError("changed our mind")

        with pytest.raises(RuntimeError):
            await fail_after_emitting()
        await send(sender, "ep_after")
        await eventually(lambda: recorder.deliveries)
        assert await notes(receiver) == ["ep_after"]


async def test_the_same_event_twice_is_handled_once(make_settings: Make, clean_servers: Servers) -> None:
    recorder = Recorder()
    admin = await clean_servers.admin_client()
    async with running(scheduler(make_settings, recorder)) as receiver:
        js = admin.jetstream()
        subject = EndpointStopRequested.message_type
        headers = {"ce-id": "evt_1", "ce-type": subject, "ce-time": datetime.now(UTC).isoformat()}
        body = stop_requested("ep_twice").model_dump_json().encode()
        # Two stream messages, as after the duplicate window or a replay: only the inbox can tell.
        for _ in range(2):
            await js.publish(subject, body, headers=headers)
        await js.publish(
            subject, stop_requested("ep_last").model_dump_json().encode(), headers={**headers, "ce-id": "evt_2"}
        )
        await eventually(lambda: ("ep_last", 1) in recorder.deliveries)
        assert await notes(receiver) == ["ep_twice", "ep_last"]
    await admin.close()


async def test_a_transient_error_is_retried_with_growing_waits_and_loses_nothing(make_settings: Make) -> None:
    times: list[float] = []

    def fail(received: Received[Any]) -> Exception | None:
        if received.message.endpoint_id != "ep_flaky":
            return None
        times.append(asyncio.get_running_loop().time())
        return ValueError("not yet") if received.delivery < 3 else None

    recorder = Recorder(fail)
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await send(sender, "ep_flaky", "ep_good")
        await eventually(lambda: ("ep_flaky", 3) in recorder.deliveries)
        await eventually(lambda: len(recorder.deliveries) >= 4)
        assert sorted(await notes(receiver)) == ["ep_flaky", "ep_good"]
        # The batch, then alone; then after 0.1 s; then after 0.5 s: the library alone would not wait.
        assert times[-1] - times[0] >= 0.6


async def test_a_handler_learns_how_long_its_message_waited(make_settings: Make) -> None:
    waited: dict[str, float] = {}

    async def note(received: Received[Any], store: Notes) -> None:
        waited[received.message.endpoint_id] = received.waited_s

    async with running(api(make_settings)) as sender:
        await send(sender, "ep_late")

        async def sent_for_2_s() -> bool:
            query = "select count(*) = 1 from outbox where sent_at < clock_timestamp() - interval '2 s'"
            return bool(await sender.pool.fetchval(query))

        await eventually(sent_for_2_s)
        async with running(scheduler(make_settings, note)):
            await eventually(lambda: "ep_late" in waited)
            await send(sender, "ep_prompt")
            await eventually(lambda: "ep_prompt" in waited)
    assert 2 <= waited["ep_late"] < 10
    assert waited["ep_prompt"] == 0


async def test_a_permanent_error_goes_to_dead_with_its_reason_and_others_pass(
    make_settings: Make, clean_servers: Servers
) -> None:
    recorder = Recorder(lambda r: Permanent("no such thing") if r.message.endpoint_id == "ep_bad" else None)
    admin = await clean_servers.admin_client()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await send(sender, "ep_bad", "ep_good")
        js = admin.jetstream()

        async def dead() -> int:
            return (await js.stream_info("DEAD")).state.messages

        await eventually(dead)
        message = await js.get_last_msg("DEAD", SCHEDULER_REQUESTS.dead_subject)
        assert message.headers is not None
        assert message.headers["Penstock-Dead-Error"] == "Permanent: no such thing"
        assert message.headers["Penstock-Dead-Consumer"] == "scheduler-api-endpoint"
        assert message.headers["Penstock-Dead-Subject"] == EndpointStopRequested.message_type
        assert message.data is not None
        assert json.loads(message.data)["endpoint_id"] == "ep_bad"
        await eventually(lambda: any(endpoint == "ep_good" for endpoint, _ in recorder.deliveries))
        assert await notes(receiver) == ["ep_good"]

        async def settled() -> bool:
            return bool((await js.consumer_info("EVENTS", SCHEDULER_REQUESTS.durable)).num_ack_pending == 0)

        await eventually(settled)
    await admin.close()


async def test_an_unreadable_body_goes_to_dead(make_settings: Make, clean_servers: Servers) -> None:
    recorder = Recorder()
    admin = await clean_servers.admin_client()
    async with running(scheduler(make_settings, recorder)):
        js = admin.jetstream()
        subject = EndpointStopRequested.message_type
        headers = {"ce-id": "evt_1", "ce-type": subject, "ce-time": datetime.now(UTC).isoformat()}
        await js.publish(subject, b'{"endpoint_id": 7}', headers=headers)

        async def dead() -> int:
            return (await js.stream_info("DEAD")).state.messages

        await eventually(dead)
        message = await js.get_last_msg("DEAD", SCHEDULER_REQUESTS.dead_subject)
        assert message.headers is not None
        assert "organization_id" in message.headers["Penstock-Dead-Error"]
    assert recorder.deliveries == []
    await admin.close()


async def test_a_type_nobody_handles_is_passed_over(make_settings: Make, clean_servers: Servers) -> None:
    recorder = Recorder()
    admin = await clean_servers.admin_client()
    async with running(scheduler(make_settings, recorder)):
        js = admin.jetstream()
        headers = {"ce-id": "evt_1", "ce-type": "events.api.endpoint.renamed.v1", "ce-time": "2026-01-01T00:00:00Z"}
        await js.publish("events.api.endpoint.renamed.v1", b"{}", headers=headers)

        async def settled() -> bool:
            info = await js.consumer_info("EVENTS", SCHEDULER_REQUESTS.durable)
            return bool(info.num_pending == 0 and info.num_ack_pending == 0)

        await eventually(settled)
        assert (await js.stream_info("DEAD")).state.messages == 0
    await admin.close()


async def test_a_lost_stream_is_restored_by_a_replay(make_settings: Make, clean_servers: Servers) -> None:
    recorder = Recorder()
    admin = await clean_servers.admin_client()
    began = datetime.now(UTC)
    async with running(api(make_settings)) as sender:
        await send(sender, "ep_a", "ep_b")

        async def all_sent() -> bool:
            return bool(await sender.pool.fetchval("select count(*) = 0 from outbox where sent_at is null"))

        await eventually(all_sent)
        js = admin.jetstream()
        await js.delete_stream("EVENTS")
        await declare(js)
        reply = await sender.ask(Replay(since=began), subject=replay_subject("api"))
        assert reply.events == 2
        async with running(scheduler(make_settings, recorder)) as receiver:
            await eventually(lambda: len(recorder.deliveries) >= 2)
            assert await notes(receiver) == ["ep_a", "ep_b"]
    await admin.close()


async def test_a_running_consumer_survives_the_loss_of_its_stream(make_settings: Make, clean_servers: Servers) -> None:
    recorder = Recorder()
    admin = await clean_servers.admin_client()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await send(sender, "ep_a")
        await eventually(lambda: len(recorder.deliveries) == 1)
        js = admin.jetstream()
        await js.delete_stream("EVENTS")
        await send(sender, "ep_b")
        await declare(js)
        await eventually(lambda: len(recorder.deliveries) == 2, deadline_s=20)
        assert await notes(receiver) == ["ep_a", "ep_b"]
    await admin.close()


async def test_a_second_relay_takes_over_when_the_first_is_gone(make_settings: Make) -> None:
    recorder = Recorder()
    async with running(scheduler(make_settings, recorder)), running(api(make_settings)) as standby:
        async with running(api(make_settings)) as first:
            await send(first, "ep_1")
            await eventually(lambda: len(recorder.deliveries) == 1)
        await send(standby, "ep_2")
        await eventually(lambda: len(recorder.deliveries) == 2)


async def test_postgres_going_away_uses_up_no_deliveries(make_settings: Make, platform_servers: Servers) -> None:
    recorder = Recorder()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await send(sender, "ep_before")
        await eventually(lambda: len(recorder.deliveries) == 1)
        platform_servers.postgres.stop()
        platform_servers.postgres.start()
        await eventually(lambda: _can_send(sender, "ep_after"))
        await eventually(lambda: ("ep_after", 1) in recorder.deliveries)
        assert (await notes(receiver))[0] == "ep_before"


async def _can_send(sender: Service[Notes], endpoint: str) -> bool:
    try:
        await send(sender, endpoint)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def test_nats_going_away_loses_nothing(make_settings: Make, platform_servers: Servers) -> None:
    recorder = Recorder()
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, recorder)) as receiver:
        await send(sender, "ep_1")
        await eventually(lambda: len(recorder.deliveries) == 1)
        platform_servers.nats.stop()
        await send(sender, "ep_2", "ep_3")
        platform_servers.nats.start()
        await eventually(lambda: len(recorder.deliveries) == 3, deadline_s=30)
        assert await notes(receiver) == ["ep_1", "ep_2", "ep_3"]
