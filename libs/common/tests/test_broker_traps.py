"""What the broker and its library do if nobody takes care, each shown harmless on a real server."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from nats.js.api import ConsumerConfig

from penstock_common.contracts.events import EndpointStopRequested
from penstock_common.contracts.topology import SCHEDULER_REQUESTS
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.outbox import Connection, Outbox
from penstock_common.service import Service
from penstock_common.settings import ServiceSettings
from tests_support import Servers, eventually, running

pytestmark = pytest.mark.connected

Make = Callable[..., ServiceSettings]


@dataclasses.dataclass
class NoTables:
    connection: Connection
    outbox: Outbox


async def send(service: Service[NoTables], *endpoints: str) -> None:
    async with service.transaction() as store:
        for endpoint in endpoints:
            await store.outbox.emit(EndpointStopRequested(endpoint_id=endpoint, organization_id="org", version=1))


def api(make: Make) -> Service[NoTables]:
    return Service("api", make("api"), make_store=NoTables)


async def test_a_row_sent_again_after_a_lost_answer_is_one_message(make_settings: Make, clean_servers: Servers) -> None:
    admin = await clean_servers.admin_client()
    async with running(api(make_settings)) as sender:
        await send(sender, "ep_1", "ep_2", "ep_3")

        async def sent() -> bool:
            return bool(await sender.pool.fetchval("select count(*) = 3 from outbox where sent_at is not null"))

        await eventually(sent)
        # As after a crash between JetStream's answer and our own note of it; one row is new, so the
        # atomic batch is refused whole and the rest must still get through.
        await sender.pool.execute("update outbox set sent_at = null")
        await send(sender, "ep_4")

        async def all_sent() -> bool:
            return bool(await sender.pool.fetchval("select count(*) = 4 from outbox where sent_at is not null"))

        await eventually(all_sent)
        assert (await admin.jetstream().stream_info("EVENTS")).state.messages == 4
    await admin.close()


async def test_more_messages_than_may_be_unacknowledged_do_not_stall(make_settings: Make) -> None:
    handled: list[str] = []

    async def handle(received: Received[Any], store: NoTables) -> None:
        handled.append(received.message.endpoint_id)

    count = SCHEDULER_REQUESTS.max_ack_pending + 500
    receiver: Service[NoTables] = Service("scheduler", make_settings("scheduler"), make_store=NoTables)
    receiver.subscribe(SCHEDULER_REQUESTS, {EndpointStopRequested: handle})
    async with running(api(make_settings)) as sender:
        await send(sender, *[f"ep_{number}" for number in range(count)])
        async with running(receiver):
            await eventually(lambda: len(handled) == count, deadline_s=30)
            assert handled == [f"ep_{number}" for number in range(count)]


async def test_a_handler_longer_than_the_deadline_is_not_given_the_message_again(
    make_settings: Make, clean_servers: Servers
) -> None:
    brief = dataclasses.replace(SCHEDULER_REQUESTS, ack_wait_s=1)
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    config = ConsumerConfig(
        durable_name=brief.durable,
        filter_subjects=list(brief.filters),
        ack_wait=1,
        max_deliver=-1,
        max_ack_pending=1000,
    )
    await js.add_consumer(brief.stream, config)
    release = asyncio.Event()
    deliveries: list[int] = []

    async def handle(received: Received[Any], store: NoTables) -> None:
        deliveries.append(received.delivery)
        await release.wait()

    receiver: Service[NoTables] = Service("scheduler", make_settings("scheduler"), make_store=NoTables)
    receiver.subscribe(brief, {EndpointStopRequested: handle})
    async with running(api(make_settings)) as sender, running(receiver):
        await send(sender, "ep_slow")
        await eventually(lambda: deliveries)
        asyncio.get_running_loop().call_later(2.5, release.set)

        async def settled() -> bool:
            info = await js.consumer_info(brief.stream, brief.durable)
            return bool(info.ack_floor is not None and info.ack_floor.stream_seq == 1)

        await eventually(settled)
        assert deliveries == [1]
    await admin.close()


async def test_a_stop_finishes_what_is_in_hand(make_settings: Make, clean_servers: Servers) -> None:
    begun = asyncio.Event()
    release = asyncio.Event()
    finished: list[str] = []

    async def handle(received: Received[Any], store: NoTables) -> None:
        begun.set()
        await release.wait()
        finished.append(received.message.endpoint_id)

    receiver: Service[NoTables] = Service("scheduler", make_settings("scheduler"), make_store=NoTables)
    receiver.subscribe(SCHEDULER_REQUESTS, {EndpointStopRequested: handle})
    admin = await clean_servers.admin_client()
    async with running(api(make_settings)) as sender:
        await receiver.start()
        await send(sender, "ep_1")
        await asyncio.wait_for(begun.wait(), 10)
        stopping = asyncio.create_task(receiver.stop())
        asyncio.get_running_loop().call_later(0.2, release.set)
        await stopping
        assert finished == ["ep_1"]
        info = await admin.jetstream().consumer_info("EVENTS", SCHEDULER_REQUESTS.durable)
        assert info.num_ack_pending == 0
    await admin.close()
