"""What is told once a second: only what is new, and nothing twice."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from penstock_common.contracts.statistics import EndpointStatistics, bucket_of
from penstock_gateway.statistics import Statistics
from penstock_gateway.stats import EndpointStats

from .plane import route

AT = datetime(2026, 3, 1, tzinfo=UTC)


class Queue:
    def __init__(self) -> None:
        self.replicas: dict[str, Any] = {}
        self.waiting = 0

    def __len__(self) -> int:
        return self.waiting


class Scene:
    def __init__(self) -> None:
        self.messages: list[EndpointStatistics] = []
        self.owned = True
        self.statistics = Statistics("gw_1", self._publish, owns=lambda _: self.owned)
        self.endpoint: Any = SimpleNamespace(
            route=route(desired_replicas=1), queue=Queue(), stats=EndpointStats(), in_flight=0
        )
        self.endpoint.queue.replicas["rep_1"] = SimpleNamespace(draining=False)
        self.now = AT

    async def _publish(self, message: EndpointStatistics) -> None:
        self.messages.append(message)

    async def second(self) -> list[EndpointStatistics]:
        self.now += timedelta(seconds=1)
        self.messages.clear()
        await self.statistics.tell([self.endpoint], self.now, 1.0)
        return list(self.messages)


async def test_each_request_is_told_of_once() -> None:
    scene = Scene()
    scene.endpoint.stats.answered(200, 0, 5, 900)
    scene.endpoint.stats.ended(503)
    [message] = await scene.second()
    assert message.statuses == {200: 1, 503: 1}
    assert message.latency == {bucket_of(900): 1}
    assert message.queue_wait == {0: 1}
    assert (message.replicas, message.desired_replicas) == (1, 1)
    scene.endpoint.stats.answered(200, 0, 5, 900)
    [message] = await scene.second()
    assert (message.statuses, message.latency) == ({200: 1}, {bucket_of(900): 1})


async def test_an_endpoint_at_rest_is_told_of_every_ten_seconds() -> None:
    scene = Scene()
    assert [len(await scene.second()) for _ in range(21)] == [1, *[0] * 9, 1, *[0] * 9, 1]


async def test_the_last_replica_that_goes_is_told_of_and_then_nothing_more() -> None:
    scene = Scene()
    await scene.second()
    scene.endpoint.queue.replicas.clear()
    scene.endpoint.route = route(desired_replicas=0)
    [message] = await scene.second()
    assert (message.replicas, message.desired_replicas) == (0, 0)
    assert [await scene.second() for _ in range(20)] == [[]] * 20


async def test_while_anything_is_under_way_every_second_is_told() -> None:
    scene = Scene()
    scene.endpoint.in_flight = 2
    assert [[m.in_flight for m in await scene.second()] for _ in range(3)] == [[2]] * 3


async def test_replicas_are_told_of_by_the_owner_only_and_requests_by_who_counted_them() -> None:
    scene = Scene()
    scene.owned = False
    assert await scene.second() == []
    scene.endpoint.stats.answered(200, 0, 5, 900)
    [message] = await scene.second()
    assert (message.statuses, message.replicas, message.desired_replicas) == ({200: 1}, 0, 0)


async def test_an_endpoint_that_is_removed_is_forgotten_and_may_come_back() -> None:
    scene = Scene()
    scene.endpoint.stats.answered(200, 0, 5, 900)
    await scene.second()
    await scene.statistics.tell([], scene.now, 1.0)
    [message] = await scene.second()
    assert message.statuses == {200: 1}
