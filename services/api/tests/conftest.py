"""The API on real servers, with small stand-ins that answer for the other services."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from nats.aio.client import Client

from penstock_api.app import MIGRATIONS, Application, build
from penstock_api.bootstrap import bootstrap
from penstock_api.settings import ApiSettings
from penstock_common.contracts.base import Contract, Message, Question
from penstock_common.contracts.endpoint import PinnedSource
from penstock_common.contracts.events import LogBatch, LogLine
from penstock_common.contracts.questions import (
    AskCapacity,
    AskForecast,
    AskHosts,
    AskPrices,
    AskUsage,
    CapacityReply,
    ForecastReply,
    GpuCapacity,
    HostsReply,
    HostView,
    InspectSource,
    Price,
    PricesReply,
    SetPrice,
    SourceInspection,
    UsageReply,
    UsageRow,
)
from penstock_common.contracts.topology import log_subject
from penstock_common.delivery.publish import publish_message
from penstock_common.ids import EVENT, new_id
from penstock_common.rpc import Answering
from tests_support import Servers, running

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMMIT = "8f14e45fceea167a5a36dedd4bea2543e1c2a7b0"


def price(gpu_type: str, micros: int) -> Price:
    return Price(gpu_type=gpu_type, micros_per_hour=micros, currency="USD", valid_from=AT)


@dataclass
class Others:
    """Answers for scheduler, provisioner and billing on the real NATS; a test changes what they say."""

    client: Client
    answers: dict[type[Question], Any] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    _answering: dict[type[Question], Answering] = field(default_factory=dict)

    async def answer(self, question: type[Question], reply: Any) -> None:
        """From now on this is the answer: a contract, or an exception to refuse with."""
        self.answers[question] = reply
        if question not in self._answering:

            async def respond(asked: Question) -> Contract:
                self.asked.append(asked)
                given = self.answers[question]
                if callable(given):
                    given = await given(asked)
                if isinstance(given, Exception):
                    raise given
                assert isinstance(given, Contract)
                return given

            self._answering[question] = Answering(self.client, question, respond, subject=question.rpc)
            await self._answering[question].start()
            await self.client.flush()

    async def go_away(self, question: type[Question]) -> None:
        """Nobody answers this any longer."""
        await self._answering.pop(question).stop()
        await self.client.flush()

    async def publish(self, message: Message, *, subject: str | None = None, message_id: str | None = None) -> str:
        """Publish a fact as its owner would; returns its id."""
        identifier = message_id or new_id(EVENT)
        await publish_message(
            self.client.jetstream(),
            subject or message.message_type,
            message,
            message_id=identifier,
            source="test",
        )
        return identifier

    async def publish_lines(self, endpoint_id: str, replica_id: str, texts: list[str], *, offset: int = 0) -> None:
        lines = tuple(LogLine(offset=offset + place, at=AT, text=text) for place, text in enumerate(texts))
        batch = LogBatch(host_id="host-1", endpoint_id=endpoint_id, replica_id=replica_id, lines=lines)
        await self.publish(batch, subject=log_subject("host-1"))


@pytest.fixture
async def admin_nats(clean_servers: Servers) -> AsyncIterator[Client]:
    client = await clean_servers.admin_client()
    yield client
    await client.close()


@pytest.fixture
async def others(admin_nats: Client) -> Others:
    """Every other service is there: one RTX 4090 is free, prices are set, any source is fine."""
    found = Others(admin_nats)
    gpu = GpuCapacity(type="RTX 4090", memory_gb=24, total=4, free=3, startable_counts=(1, 2, 3))
    cpu = GpuCapacity(type="CPU", memory_gb=0, total=8, free=0, startable_counts=())
    host = HostView(
        host_id="host-1",
        state="up",
        last_seen_at=AT,
        cpu_cores=8,
        memory_gb=32,
        disk_gb=100,
        gpus={"RTX 4090": 4},
        gpus_used=1,
        replicas=1,
        driver="process",
        simulated=True,
    )
    row = UsageRow(
        endpoint_id="ep_1",
        day="2026-03-01",
        gpu_type="CPU",
        replica_us=1_500_001,
        gpu_us=0,
        cost_micros=7,
        currency="USD",
    )

    async def inspect(question: InspectSource) -> SourceInspection:
        source = question.source
        return SourceInspection(
            source=PinnedSource(uri=source.uri, ref=source.ref, commit=COMMIT, requirements="pydantic==2.11.0\n")
        )

    replies: dict[type[Question], Any] = {
        AskCapacity: CapacityReply(gpus=(gpu,), cpu=cpu, hosts=1),
        AskForecast: ForecastReply(starts_now=True, reason="A host has room."),
        AskHosts: HostsReply(hosts=(host,)),
        AskPrices: PricesReply(prices=(price("*", 450_000), price("CPU", 20_000))),
        SetPrice: PricesReply(prices=(price("*", 450_000),)),
        AskUsage: UsageReply(rows=(row,), total_cost_micros=7, currency="USD", as_of=AT, running_replicas=1),
        InspectSource: inspect,
    }
    for question, reply in replies.items():
        await found.answer(question, reply)
    return found


@pytest.fixture
def settings(make_settings: Callable[..., ApiSettings]) -> ApiSettings:
    return make_settings("api", ApiSettings, api_port=0)


@pytest.fixture
async def key(settings: ApiSettings, tmp_path: Path) -> str:
    """The key of the organization that runs the platform."""
    assert settings.database_url is not None
    path = tmp_path / "key"
    await bootstrap(settings.database_url.get_secret_value(), MIGRATIONS, "Operator", path)
    return path.read_text().strip()


@pytest.fixture
async def application(settings: ApiSettings, key: str, others: Others) -> AsyncIterator[Application]:
    """The API without its HTTP server, connected to the real servers."""
    application = build(settings)
    async with running(application.service):
        yield application


MakeClient = Callable[[str | None], httpx.AsyncClient]


@pytest.fixture
async def client_with(application: Application) -> AsyncIterator[MakeClient]:
    """Makes a client with a key."""
    async with AsyncExitStack() as stack:

        def make(text: str | None) -> httpx.AsyncClient:
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(application.http, raise_app_exceptions=False),
                base_url="http://api",
                headers={"Authorization": f"Bearer {text}"} if text else {},
                timeout=30,
            )
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def client(client_with: MakeClient, key: str) -> httpx.AsyncClient:
    """A client that may do everything."""
    return client_with(key)


@pytest.fixture
def body() -> dict[str, Any]:
    """A good body for a new endpoint."""
    return {
        "name": "My Model",
        "source": {"uri": "https://github.com/acme/iris.git", "ref": "main"},
        "routes": [
            {"path": "/predict", "file": "predict", "function": "predict", "body": [{"name": "x", "type": "list"}]}
        ],
        "gpu": {"type": "RTX 4090", "count": 2},
    }


@pytest.fixture
async def endpoint(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """An endpoint that was just created."""
    answer = await client.post("/v1/endpoints", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
async def database(settings: ApiSettings) -> AsyncIterator[Any]:
    """A connection with the API's role, to look behind its answers."""
    assert settings.database_url is not None
    connection = await asyncpg.connect(settings.database_url.get_secret_value(), server_settings={"search_path": "api"})
    yield connection
    await connection.close()
