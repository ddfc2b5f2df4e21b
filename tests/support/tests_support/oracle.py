"""What really happened, found out without asking the platform: its facts, and its processes."""

import json
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from nats.aio.client import Client

from tests_support.platform import Platform

CPU_MICROS_PER_HOUR = 50_000
"""The price of one CPU core that a fresh platform has."""
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Fact:
    id: str
    kind: str
    data: dict[str, object]


async def facts(admin: Client) -> list[Fact]:
    """Every fact on the stream, oldest first, each once."""
    js = admin.jetstream()
    state = (await js.stream_info("EVENTS")).state
    found: dict[str, Fact] = {}
    for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
        message = await js.get_msg("EVENTS", seq=sequence)
        headers = message.headers or {}
        event_id = headers["ce-id"]
        found.setdefault(event_id, Fact(event_id, headers["ce-type"], json.loads(message.data or b"{}")))
    return list(found.values())


def expected_cost_micros(told: list[Fact], endpoint_id: str) -> int:
    """The bill of an endpoint without GPUs and with one core, worked out from its facts alone."""
    started: dict[str, datetime] = {}
    ended: dict[str, datetime] = {}
    for fact in told:
        if fact.data.get("endpoint_id") != endpoint_id:
            continue
        if fact.kind == "events.scheduler.replica.started.v1":
            started[str(fact.data["replica_id"])] = _time(fact.data["at"])
        elif fact.kind == "events.scheduler.replica.ended.v1":
            ended[str(fact.data["replica_id"])] = _time(fact.data["at"])
    assert set(started) <= set(ended), "a replica that was billed never ended"
    total = 0
    for replica, begin in started.items():
        length_us = Fraction((max(ended[replica], begin) - begin) // timedelta(microseconds=1))
        total += int(length_us * CPU_MICROS_PER_HOUR / 3_600_000_000)
    return total


def billed_spans(told: list[Fact], endpoint_id: str) -> dict[str, tuple[float, float]]:
    """Replica → when its bill began and ended, in Unix seconds."""
    spans: dict[str, list[float]] = {}
    for kind in ("started", "ended"):
        for fact in told:
            mine = fact.data.get("endpoint_id") == endpoint_id
            if mine and fact.kind == f"events.scheduler.replica.{kind}.v1":
                spans.setdefault(str(fact.data["replica_id"]), []).append(_time(fact.data["at"]).timestamp())
    return {replica: (span[0], span[1]) for replica, span in spans.items() if len(span) == 2}


def _time(text: object) -> datetime:
    return datetime.fromisoformat(str(text))


class Witness:
    """Watches the process table: which replica's model server ran from when to when."""

    def __init__(self, platform: Platform) -> None:
        self.lives: dict[str, tuple[float, float]] = {}
        self.doubled: set[str] = set()
        self._platform = platform
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            now = time.time()
            for replica, pids in self._platform.replicas_running().items():
                first, _ = self.lives.get(replica, (now, now))
                self.lives[replica] = (first, now)
                if len(pids) > 1:
                    self.doubled.add(replica)
