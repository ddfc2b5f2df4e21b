"""Waking a sleeping endpoint of the running platform: what the platform adds to starting the model.

Two parts, measured where the messages pass, by one clock: from sending a request until its replica's
start is ordered (the assignment is written), and from the replica's report that it is ready until the
first byte of the answer. Between them the model starts, which is the model's own time.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import nats
from bench.figures import percentile
from bench.platform import running
from nats.aio.msg import Msg

from penstock import AsyncPenstock
from penstock.async_client import AsyncEndpoint
from penstock_common.contracts.events import ReplicaReported
from penstock_common.contracts.topology import ASSIGNMENTS
from penstock_launcher.nats import ADMIN

WAKINGS = 20
AIM_MS = 150.0


def measure() -> dict[str, Any]:
    """p50 and p95 of both parts together, in ms, with every sample."""
    with running.folder() as made:
        environment = running.environment_of(made)
        running.penstock(environment, "up")
        try:
            samples = asyncio.run(_wakings(environment, made))
        finally:
            running.penstock(environment, "down")
    together = [sample["ordered_ms"] + sample["answered_ms"] for sample in samples]
    return {
        "wake_p50_ms": round(percentile(together, 50), 1),
        "wake_p95_ms": round(percentile(together, 95), 1),
        "aim_ms": AIM_MS,
        "samples": samples,
    }


class _Seen:
    """When each message last passed, by the monotonic clock."""

    def __init__(self) -> None:
        self.ordered_s = 0.0
        self.ready_s = 0.0

    async def assignment(self, message: Msg) -> None:
        # A deletion has no data.
        if message.data:
            self.ordered_s = time.monotonic()

    async def report(self, message: Msg) -> None:
        if json.loads(message.data)["phase"] == "ready":
            self.ready_s = time.monotonic()


async def _wakings(environment: dict[str, str], made: Path) -> list[dict[str, float]]:
    state = json.loads((Path(environment["PENSTOCK_HOME"]) / "state.json").read_text())
    client = await nats.connect(
        f"nats://127.0.0.1:{state['ports']['nats']}", user=ADMIN, password=state["passwords"][ADMIN]
    )
    seen = _Seen()
    await client.subscribe(ASSIGNMENTS.subject(">"), cb=seen.assignment)
    await client.subscribe(ReplicaReported.message_type, cb=seen.report)
    await client.flush()
    url, key = running.address_of(environment)
    try:
        async with AsyncPenstock(api_url=url, api_key=key) as penstock:
            endpoint = await penstock.endpoints.create(
                name="sleeper",
                git_uri=str(running.repository_of(made)),
                routes=running.routes(),
                min_replicas=0,
                idle_timeout_s=1,
            )
            return [await _waking(endpoint, seen) for _ in range(WAKINGS)]
    finally:
        await client.close()


async def _waking(endpoint: AsyncEndpoint, seen: _Seen) -> dict[str, float]:
    await endpoint.wait("idle", timeout_s=60)
    sent_s = time.monotonic()
    await endpoint.predict("/stats", text="one two three")
    answered_s = time.monotonic()
    return {
        "ordered_ms": round((seen.ordered_s - sent_s) * 1000, 1),
        "answered_ms": round((answered_s - seen.ready_s) * 1000, 1),
        "started_ms": round((seen.ready_s - seen.ordered_s) * 1000, 1),
    }
