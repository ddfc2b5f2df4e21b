"""The delivery layer alone: commit → handled, between two processes, on real servers.

Latency is measured at 1,000 events a second, one a transaction; throughput with 20 events a
transaction, as fast as they are handled. JetStream syncs every write (`sync_interval: always`).
Beside the time stands the processor time that each process spent on one event: it hardly depends on
what else the machine does meanwhile.
"""

import asyncio
import json
import multiprocessing
import os
import secrets
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from penstock_common import telemetry
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
SENDERS = 8

Cpu = Callable[[], dict[str, float]]
"""Processor seconds spent until now, by process."""


class Measured(Event):
    """1 KB that says when it was sent."""

    message_type: ClassVar[str] = "events.api.endpoint.measured.v1"
    number: int
    padding: str


@dataclass
class NoTables:
    connection: Connection
    outbox: Outbox


@dataclass
class Servers:
    """Where the sender and the receiver find the servers, and the servers' processes."""

    api: dict[str, Any]
    scheduler: dict[str, Any]
    nats: int
    postgres: int


@dataclass(frozen=True)
class Load:
    """What is sent: so many events, as fast as they are handled or at `rate_per_s`."""

    events: int
    per_transaction: int
    rate_per_s: int | None


@dataclass(frozen=True)
class Run:
    """Times of commit and of handling by event number, and processor time for one event by process."""

    sent: dict[int, float]
    handled: dict[int, float]
    cpu_us: dict[str, float]


@contextmanager
def servers() -> Iterator[Servers]:
    """Fresh servers, as the launcher starts them."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    folder.chmod(0o755)
    passwords = {user: secrets.token_hex(8) for user in (*SERVICES, ADMIN)}
    nats = NatsServer(folder / "nats", port=_free_port(), passwords=passwords)
    postgres = PostgresServer(folder / "postgres", port=_free_port())
    try:
        nats_pid = nats.start().pid
        postgres_pid = postgres.start().pid
        asyncio.run(bootstrap_postgres(postgres.url, {name: passwords[name] for name in DATABASE_SERVICES}))
        asyncio.run(bootstrap_nats(nats.url, ADMIN, passwords[ADMIN]))
        settings = {
            name: {
                "nats_url": nats.url,
                "nats_user": name,
                "nats_password": passwords[name],
                "database_url": service_database_url(postgres.url, name, passwords[name]),
            }
            for name in ("api", "scheduler")
        }
        yield Servers(**settings, nats=nats_pid, postgres=postgres_pid)
    finally:
        nats.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(pid: int) -> float:
    """Processor seconds of a process, of its children now alive and of those it has waited for."""
    folder = Path(f"/proc/{pid}")
    try:
        # utime, stime, cutime and cstime of proc(5), counted from after the name, which may hold anything.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except FileNotFoundError:
        return 0.0  # it ended meanwhile
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_s(int(child)) for child in children)


def receive(settings: dict[str, Any], count: int, results: Any) -> None:
    """Process: handle `count` events, and tell the time at which each one's transaction committed."""

    async def main() -> None:
        telemetry.configure("scheduler", log_level="WARNING", otlp_endpoint=None)
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


async def send(settings: dict[str, Any], results: Any, load: Load, cpu: Cpu) -> Run:
    """Emit the events; when each was committed, and handled by the other process."""
    telemetry.configure("api", log_level="WARNING", otlp_endpoint=None)
    service: Service[NoTables] = Service("api", ServiceSettings(**settings), make_store=NoTables)
    await service.start()
    padding = "x" * (PAYLOAD_BYTES - 40)
    sent: dict[int, float] = {}
    numbers = iter(range(0, load.events, load.per_transaction))
    before = cpu()
    began = time.perf_counter()

    async def worker() -> None:
        for start in numbers:
            if load.rate_per_s is not None:
                await asyncio.sleep(max(0.0, began + start / load.rate_per_s - time.perf_counter()))
            async with service.transaction() as store:
                for number in range(start, start + load.per_transaction):
                    await store.outbox.emit(Measured(number=number, padding=padding))
            now = time.time()
            for number in range(start, start + load.per_transaction):
                sent[number] = now

    await asyncio.gather(*(worker() for _ in range(SENDERS)))
    handled = await asyncio.to_thread(results.get, timeout=300)
    after = cpu()
    await service.stop()
    return Run(sent, handled, {name: (after[name] - before[name]) * 1e6 / load.events for name in after})


def run(load: Load) -> Run:
    """One run on fresh servers."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with servers() as on:
        process = context.Process(target=receive, args=(on.scheduler, load.events, results))
        process.start()

        def cpu() -> dict[str, float]:
            return {
                "sender": time.process_time(),
                "receiver": cpu_s(process.pid or 0),
                "nats": cpu_s(on.nats),
                "postgres": cpu_s(on.postgres),
            }

        results.get(timeout=60)
        done = uvloop.run(send(on.api, results, load, cpu))
        process.join(30)
    return done


def measure() -> dict[str, Any]:
    """`delivery_p99_ms_at_1000_per_s` and `delivery_per_s_sync_always`, with their samples."""
    steady = run(Load(RATE_PER_S * LATENCY_S, per_transaction=1, rate_per_s=RATE_PER_S))
    latencies = sorted(max(0.0, steady.handled[number] - steady.sent[number]) * 1000 for number in steady.sent)
    cuts = statistics.quantiles(latencies, n=1000)
    achieved = len(steady.sent) / (max(steady.sent.values()) - min(steady.sent.values()))
    full = run(Load(THROUGHPUT_EVENTS, per_transaction=EVENTS_PER_TRANSACTION, rate_per_s=None))
    took_s = max(full.handled.values()) - min(full.sent.values())
    return {
        "delivery_p99_ms_at_1000_per_s": round(cuts[989], 2),
        "delivery_per_s_sync_always": round(len(full.handled) / took_s),
        "samples": {
            "delivery_latency_ms": {
                "p50": round(cuts[499], 2),
                "p90": round(cuts[899], 2),
                "p99": round(cuts[989], 2),
                "max": round(latencies[-1], 2),
                "events": len(latencies),
                "achieved_per_s": round(achieved, 1),
                "cpu_us_per_event": _rounded(steady.cpu_us),
            },
            "delivery_throughput": {
                "events": len(full.handled),
                "seconds": round(took_s, 2),
                "cpu_us_per_event": _rounded(full.cpu_us),
            },
        },
    }


def _rounded(cpu_us: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in {**cpu_us, "all": sum(cpu_us.values())}.items()}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
