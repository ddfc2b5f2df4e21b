"""Replicas that follow the load: more when requests wait, fewer afterwards, none while nobody calls."""

import asyncio

import pytest

from penstock import AsyncPenstock
from penstock.async_client import AsyncEndpoint
from tests_support.oracle import billed_spans, facts
from tests_support.people import nothing_runs
from tests_support.platform import Platform
from tests_support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


async def create(client: AsyncPenstock, platform: Platform, name: str, **scaling: int) -> AsyncEndpoint:
    endpoint = await client.endpoints.create(
        name=name,
        git_uri=platform.repository("slow-echo"),
        routes=platform.routes("slow-echo"),
        gpu_type="RTX 4090",
        **scaling,  # type: ignore[arg-type]
    )
    await endpoint.wait(timeout_s=60, or_idle=True)
    return endpoint


async def becomes(endpoint: AsyncEndpoint, state: str, deadline_s: float = 30) -> None:
    async def is_so() -> bool:
        return (await endpoint.refresh()).state == state

    await eventually(is_so, deadline_s)


async def scheduled(endpoint: AsyncEndpoint) -> int:
    """How many replicas have been started for it so far."""
    return len([event async for event in endpoint.events() if event.type == "replica.scheduled"])


async def test_an_endpoint_nobody_calls_sleeps_and_many_requests_wake_it_once(
    client: AsyncPenstock, running_platform: Platform
) -> None:
    endpoint = await create(
        client, running_platform, "Sleeper", min_replicas=0, idle_timeout_s=1, target_concurrency=32, queue_limit=500
    )
    await becomes(endpoint, "idle")
    await eventually(lambda: nothing_runs(client, running_platform))
    admin = await running_platform.nats_admin()

    async def bill_closed() -> bool:
        return len(billed_spans(await facts(admin), endpoint.id)) == 1

    await eventually(bill_closed)
    await admin.close()
    answers = await asyncio.gather(*(endpoint.predict("/echo", message=str(n), seconds=0.0) for n in range(100)))
    assert [answer["message"] for answer in answers] == [str(n) for n in range(100)]
    assert await scheduled(endpoint) == 2
    await becomes(endpoint, "idle")
    await endpoint.terminate()


async def test_replicas_follow_the_load_up_and_down_and_no_request_fails(
    client: AsyncPenstock, running_platform: Platform
) -> None:
    endpoint = await create(
        client, running_platform, "Elastic", min_replicas=1, max_replicas=2, scale_down_delay_s=1, target_concurrency=4
    )
    calm = asyncio.Event()

    async def caller(name: str) -> int:
        answered = 0
        while not calm.is_set():
            answer = await endpoint.predict("/echo", message=name, seconds=0.3)
            assert answer["message"] == name
            answered += 1
        return answered

    # More than one replica has slots for, and less than twice as many: that would be a panic, which lasts a minute.
    callers = [asyncio.create_task(caller(f"caller {n}")) for n in range(6)]

    async def has(replicas: int) -> bool:
        return (await endpoint.refresh()).ready_replicas == replicas

    try:
        await eventually(lambda: has(2), deadline_s=30)
    finally:
        calm.set()
    assert all(answered > 0 for answered in await asyncio.gather(*callers))
    await eventually(lambda: has(1), deadline_s=60)
    reasons = [event.message async for event in endpoint.events() if event.type == "endpoint.scaled"]
    assert any("wait" in reason for reason in reasons), reasons

    async def counted() -> bool:
        metrics = await endpoint.metrics()
        return sum(point.requests for point in metrics.points) >= 4

    await eventually(counted, deadline_s=30)
    await endpoint.terminate()


async def test_a_sleeping_endpoint_refuses_what_its_model_would_refuse_and_sleeps_on(
    client: AsyncPenstock, running_platform: Platform
) -> None:
    endpoint = await create(client, running_platform, "Light Sleeper", min_replicas=0, idle_timeout_s=1)
    await becomes(endpoint, "idle")
    with pytest.raises(Exception, match="message") as refused:
        await endpoint.predict("/echo", message=["not", "text"], seconds=0.0)
    assert getattr(refused.value, "status", None) == 422
    assert (await endpoint.refresh()).state == "idle"
    assert await scheduled(endpoint) == 1
    await endpoint.terminate()
