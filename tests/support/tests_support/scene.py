"""A running platform, somebody who uses it, and what must hold whatever happened to it."""

from dataclasses import dataclass

from nats.aio.client import Client

from penstock import AsyncPenstock
from penstock.async_client import AsyncEndpoint
from tests_support.oracle import Witness, billed_spans, expected_cost_micros, facts
from tests_support.platform import Platform
from tests_support.waiting import eventually

NOTICE_S = 3.0
"""How much later than a process starts or ends its bill may begin or end: reports, a restart of whoever
handles them, and how often we look."""


@dataclass
class Scene:
    """A running platform with somebody who uses it, somebody who sees all messages, and a witness."""

    platform: Platform
    client: AsyncPenstock
    admin: Client
    witness: Witness

    async def create(self, name: str) -> AsyncEndpoint:
        """An endpoint that answers as slowly as a request says."""
        example = "slow-echo"
        return await self.client.endpoints.create(
            name=name, git_uri=self.platform.repository(example), routes=self.platform.routes(example)
        )

    async def answers(self, endpoint: AsyncEndpoint) -> None:
        """It runs, answers at its URL, and exactly one model server runs for it."""
        await endpoint.wait(timeout_s=60)
        answer = await endpoint.predict("/echo", message="hello", seconds=0.0)
        assert answer["message"] == "hello"
        live = {replica.id for replica in endpoint.replicas}
        running = self.platform.replicas_running()
        assert [pids for replica, pids in running.items() if replica in live and len(pids) != 1] == []

    async def ends_clean(self, endpoint: AsyncEndpoint) -> None:
        """Stopped as asked: nothing runs, no GPU is held, and the bill is what really ran."""
        await endpoint.stop()
        await endpoint.wait("stopped", timeout_s=60)
        told = await facts(self.admin)
        spans = billed_spans(told, endpoint.id)
        assert spans, "it ran, so something must have been billed"
        await eventually(lambda: not set(self.platform.replicas_running()) & set(spans))
        assert not self.witness.doubled
        for replica, (begin, end) in spans.items():
            first, last = self.witness.lives[replica]
            assert first - NOTICE_S <= begin
            assert end <= last + NOTICE_S

        async def billed_right() -> bool:
            usage = await endpoint.usage()
            assert usage.running_replicas == 0
            assert usage.total_cost_micros == expected_cost_micros(told, endpoint.id)
            return True

        await eventually(billed_right, deadline_s=30)
        await endpoint.terminate()
        await endpoint.wait("terminated", timeout_s=60)
        gpus = await self.client.gpus.list()
        assert all(gpu.free == gpu.total for gpu in gpus.gpus)
