"""The wait before a stop, on real servers."""

import asyncio

import asyncpg
import pytest

from penstock_common.bootstrap import DATABASE_SERVICES, service_database_url
from penstock_common.contracts.events import EndpointRequested
from penstock_common.contracts.topology import SCHEDULER_REQUESTS
from penstock_common.postgres import create_pool, migrate
from penstock_launcher import administration
from penstock_launcher.administration import Task, drain
from tests_support.servers import Servers

pytestmark = pytest.mark.connected


@pytest.fixture
async def task(clean_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The servers as services leave them after their first start."""
    monkeypatch.setattr(administration, "DRAIN_MAX_S", 0.5)
    passwords = clean_servers.passwords
    for service in DATABASE_SERVICES:
        url = service_database_url(clean_servers.database_url, service, passwords[service])
        pool = await create_pool(url, service, size=2)
        await migrate(pool, service, None)
        await pool.close()
    return Task(clean_servers.database_url, clean_servers.nats.url, passwords)


async def test_idle_servers_are_drained_at_once(task: Task) -> None:
    assert await drain(task)


async def test_a_message_that_nobody_handled_yet_is_waited_for(task: Task, clean_servers: Servers) -> None:
    client = await clean_servers.admin_client()
    try:
        js = client.jetstream()
        await js.publish(EndpointRequested.message_type, b"{}")
        assert not await drain(task)
        subscription = await js.pull_subscribe_bind(SCHEDULER_REQUESTS.durable, SCHEDULER_REQUESTS.stream)
        message = (await subscription.fetch(1))[0]
        assert not await drain(task)
        await message.ack_sync()
        assert await drain(task)
    finally:
        await client.close()


@pytest.mark.parametrize("service", DATABASE_SERVICES)
async def test_an_outbox_row_that_is_not_sent_yet_is_waited_for(task: Task, service: str) -> None:
    connection = await asyncpg.connect(task.database_url)
    await connection.execute(
        f"insert into {service}.outbox (message_id, subject, headers, payload) values ('evt', 'x', '{{}}', '')"
    )
    assert not await drain(task)
    await connection.execute(f"update {service}.outbox set sent_at = now()")
    assert await drain(task)
    await connection.close()


async def test_a_set_up_is_safe_to_run_again(clean_servers: Servers) -> None:
    # set_up runs in a process of its own, and so begins its own event loop.
    task = Task(clean_servers.database_url, clean_servers.nats.url, clean_servers.passwords)
    first = await asyncio.to_thread(administration.set_up, task)
    assert await asyncio.to_thread(administration.set_up, task) == first
    assert set(first) == set(DATABASE_SERVICES)
    for service, url in first.items():
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("select current_user") == f"penstock_{service}"
        await connection.close()
