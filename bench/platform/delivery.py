"""The delivery layer alone: commit → handled, between two processes, on real servers.

Latency is measured at 1,000 events a second, one a transaction; throughput with 20 events a
transaction, as fast as they are handled. JetStream syncs every write (`sync_interval: always`).
"""

import asyncio
import json
import multiprocessing
import secrets
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from penstock_common.bootstrap import DATABASE_SERVICES, bootstrap_nats, bootstrap_postgres, service_database_url
from penstock_common.contracts.base import Event
from penstock_common.contracts.permissions import SERVICES
from penstock_common.contracts.topology import SCHEDULER_REQUESTS
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.outbox import Connection, Outbox
from penstock_common.service import Service
from penstock_common.settings import ServiceSettings
from penstock_launcher.nats import ADMIN, NatsServer
from penstock_launcher.postgres import PostgresServer

PAYLOAD_BYTES = 1024
RATE_PER_S = 1000
LATENCY_S = 15
THROUGHPUT_EVENTS = 60_000
EVENTS_PER_TRANSACTION = 20
SENDERS = 4


class Measured(Event):
    """1 KB that says when it was sent."""

    message_type: ClassVar[str] = "events.api.endpoint.measured.v1"
    number: int
    padding: str


@dataclass
class NoTables:
    connection: Connection
    outbox: Outbox


@contextmanager
def servers() -> Iterator[dict[str, dict[str, Any]]]:
    """Fresh servers; yields the settings of the sender and the receiver."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    folder.chmod(0o755)
    passwords = {user: secrets.token_hex(8) for user in (*SERVICES, ADMIN)}
    nats = NatsServer(folder / "nats", port=_free_port(), passwords=passwords)
    postgres = PostgresServer(folder / "postgres", port=_free_port())
    try:
        nats.start()
        postgres.start()
        asyncio.run(bootstrap_postgres(postgres.url, {name: passwords[name] for name in DATABASE_SERVICES}))
        asyncio.run(bootstrap_nats(nats.url, ADMIN, passwords[ADMIN]))
        yield {
            name: {
                "nats_url": nats.url,
                "nats_user": name,
                "nats_password": passwords[name],
                "database_url": service_database_url(postgres.url, name, passwords[name]),
            }
            for name in ("api", "scheduler")
        }
    finally:
        nats.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def receive(settings: dict[str, Any], count: int, results: Any) -> None:
    """Process: handle `count` events, and tell the time at which each one's transaction committed."""

    async def main() -> None:
        handled: dict[int, float] = {}
        pending: list[int] = []
        done = asyncio.Event()

        async def handle(received: Received[Any], store: NoTables) -> None:
            pending.append(received.message.number)

        def committed() -> None:
            now = time.time()
            for number in pending:
                handled[number] = now
            pending.clear()
            if len(handled) >= count:
                done.set()

        service: Service[NoTables] = Service("scheduler", ServiceSettings(**settings), make_store=NoTables)
        service.subscribe(SCHEDULER_REQUESTS, {Measured: handle}, after_commit=committed)
        await service.start()
        results.put("ready")
        await done.wait()
        results.put(handled)
        await service.stop()

    uvloop.run(main())


async def send(
    settings: dict[str, Any], results: Any, *, count: int, per_transaction: int, rate: int | None
) -> tuple[dict[int, float], dict[int, float]]:
    """Emit `count` events; the times at which each was committed, and handled by the other process."""
    service: Service[NoTables] = Service("api", ServiceSettings(**settings), make_store=NoTables)
    await service.start()
    padding = "x" * (PAYLOAD_BYTES - 40)
    sent: dict[int, float] = {}
    numbers = iter(range(0, count, per_transaction))
    began = time.perf_counter()

    async def worker() -> None:
        for start in numbers:
            if rate is not None:
                await asyncio.sleep(max(0.0, began + start / rate - time.perf_counter()))
            async with service.transaction() as store:
                for number in range(start, start + per_transaction):
                    await store.outbox.emit(Measured(number=number, padding=padding))
            now = time.time()
            for number in range(start, start + per_transaction):
                sent[number] = now

    await asyncio.gather(*(worker() for _ in range(SENDERS)))
    handled = await asyncio.to_thread(results.get, timeout=300)
    await service.stop()
    return sent, handled


def run(*, count: int, per_transaction: int, rate: int | None) -> tuple[dict[int, float], dict[int, float]]:
    """Times of commit and of handling, by event number."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with servers() as settings:
        process = context.Process(target=receive, args=(settings["scheduler"], count, results))
        process.start()
        results.get(timeout=60)
        sent, handled = uvloop.run(
            send(settings["api"], results, count=count, per_transaction=per_transaction, rate=rate)
        )
        process.join(30)
    return sent, handled


def measure() -> dict[str, Any]:
    """`delivery_p99_ms_at_1000_per_s` and `delivery_per_s_sync_always`, with their samples."""
    sent, handled = run(count=RATE_PER_S * LATENCY_S, per_transaction=1, rate=RATE_PER_S)
    latencies = sorted(max(0.0, handled[number] - sent[number]) * 1000 for number in sent)
    achieved = len(sent) / (max(sent.values()) - min(sent.values()))
    sent, handled = run(count=THROUGHPUT_EVENTS, per_transaction=EVENTS_PER_TRANSACTION, rate=None)
    took_s = max(handled.values()) - min(sent.values())
    cuts = statistics.quantiles(latencies, n=1000)
    return {
        "delivery_p99_ms_at_1000_per_s": round(cuts[989], 2),
        "delivery_per_s_sync_always": round(len(handled) / took_s),
        "samples": {
            "delivery_latency_ms": {
                "p50": round(cuts[499], 2),
                "p90": round(cuts[899], 2),
                "p99": round(cuts[989], 2),
                "max": round(latencies[-1], 2),
                "events": len(latencies),
                "achieved_per_s": round(achieved, 1),
            },
            "delivery_throughput": {"events": len(handled), "seconds": round(took_s, 2)},
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
