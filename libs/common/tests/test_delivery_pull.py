"""Pulling and handling in batches: what is in hand is bounded, what comes together is handled together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from penstock_common.contracts.events import EndpointStopRequested
from penstock_common.contracts.topology import SCHEDULER_REQUESTS, ConsumerSpec
from penstock_common.delivery import consumer, pull
from penstock_common.delivery.consumer import Delivery
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.pull import Pull
from tests_support import Servers, eventually, running

from .delivering import Make, Notes, api, scheduler, send, stop_requested


async def _consumer(js: JetStreamContext) -> ConsumerInfo:
    info: ConsumerInfo = await js.consumer_info(SCHEDULER_REQUESTS.stream, SCHEDULER_REQUESTS.durable)
    return info


@pytest.mark.connected
async def test_a_slow_handler_holds_two_batches_and_the_rest_stays_on_the_server(
    make_settings: Make, clean_servers: Servers
) -> None:
    release = asyncio.Event()
    handled: list[str] = []

    async def handle(received: Received[Any], store: Notes) -> None:
        await release.wait()
        handled.append(received.message.endpoint_id)

    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    batch = SCHEDULER_REQUESTS.batch
    expected = [f"ep_{number}" for number in range(5 * batch)]
    async with running(api(make_settings)) as sender, running(scheduler(make_settings, handle)):
        await send(sender, *expected)

        async def held() -> bool:
            info = await _consumer(js)
            return (info.num_ack_pending, info.num_pending) == (2 * batch, 3 * batch)

        await eventually(held)
        release.set()
        await eventually(lambda: len(handled) == len(expected))
        assert handled == expected
    await admin.close()


@pytest.mark.connected
async def test_a_stop_leaves_no_message_that_comes_again_only_after_its_deadline(
    make_settings: Make, clean_servers: Servers
) -> None:
    async def handle(received: Received[Any], store: Notes) -> None: ...

    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    async with running(api(make_settings)) as sender:
        for _ in range(3):
            async with running(scheduler(make_settings, handle)):
                await send(sender, *[f"ep_{number}" for number in range(300)])
            assert (await _consumer(js)).num_ack_pending == 0
    await admin.close()


@pytest.mark.connected
async def test_a_request_that_the_server_forgot_is_made_again(
    clean_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(pull, "SILENCE_S_MAX", 0.5)
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    taken: list[Msg] = []
    task = asyncio.create_task(Pull(SCHEDULER_REQUESTS, lambda: admin, taken.append).run())

    async def asked() -> bool:
        try:
            return (await _consumer(js)).num_waiting == 1
        except nats.errors.Error:
            return False

    await eventually(asked)
    # Killed, it says nothing to whom it leaves waiting.
    process = clean_servers.nats.process
    assert process is not None
    process.kill()
    process.wait()
    await eventually(lambda: not admin.is_connected)
    clean_servers.nats.start()
    await eventually(lambda: admin.is_connected, deadline_s=20)
    await eventually(asked)
    await eventually(lambda: _publish_one(js))
    await eventually(lambda: taken)
    task.cancel()
    await asyncio.wait({task})
    await admin.close()


async def _publish_one(js: JetStreamContext) -> bool:
    await js.publish(EndpointStopRequested.message_type, b"{}")
    return True


@dataclass
class FakeClient:
    """Notes what is published: acknowledgements."""

    published: list[str] = field(default_factory=list)

    async def publish(self, subject: str, payload: bytes = b"", **_: object) -> None:
        self.published.append(subject)


def message(client: FakeClient, sequence: int) -> Msg:
    event = stop_requested(f"ep_{sequence}")
    headers = {
        "ce-id": f"evt_{sequence}",
        "ce-type": event.message_type,
        "ce-time": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
    }
    return Msg(
        _client=cast("Client", client),
        subject=event.message_type,
        reply=f"$JS.ACK.EVENTS.scheduler-api-endpoint.1.{sequence}.{sequence}.1767225600000000000.0",
        data=event.model_dump_json().encode(),
        headers=headers,
    )


@dataclass
class Batches:
    """Transactions that note which events each of them claims."""

    claimed: list[list[str]] = field(default_factory=list)

    @asynccontextmanager
    async def __call__(self, spec: ConsumerSpec, ids: list[str]) -> AsyncIterator[tuple[None, set[str]]]:
        self.claimed.append(ids)
        yield None, set(ids)


@asynccontextmanager
async def delivering(batches: Batches, spec: ConsumerSpec = SCHEDULER_REQUESTS) -> AsyncIterator[Callable[[int], None]]:
    """A delivery that is handed messages by their sequence."""

    async def handle(received: Received[Any], store: None) -> None: ...

    def unused() -> Any:
        raise AssertionError("nothing is pulled here")

    client = FakeClient()
    delivery: Delivery[None] = Delivery(spec, {EndpointStopRequested: handle}, batches, unused, unused)
    task = asyncio.create_task(delivery.run())
    yield lambda sequence: delivery._take(message(client, sequence))
    await delivery.empty()
    task.cancel()
    await asyncio.wait({task})


async def test_what_arrives_within_the_pace_is_handled_together_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "PACE_S", 0.3)
    batches = Batches()
    async with delivering(batches) as take:
        take(1)
        await eventually(lambda: batches.claimed == [["evt_1"]])
        for sequence in (4, 2, 3):
            take(sequence)
            await asyncio.sleep(0)
    assert batches.claimed == [["evt_1"], ["evt_2", "evt_3", "evt_4"]]


async def test_a_whole_batch_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "PACE_S", 3600.0)
    batches = Batches()
    spec = SCHEDULER_REQUESTS
    async with delivering(batches) as take:
        take(0)
        await eventually(lambda: len(batches.claimed) == 1)
        for sequence in range(1, spec.batch + 1):
            take(sequence)
        await eventually(lambda: len(batches.claimed) == 2)
    assert [len(ids) for ids in batches.claimed] == [1, spec.batch]
