"""Tells the scheduler how replicas are: each report once, soon, and the last of every replica with each heartbeat."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from penstock_common.contracts.events import ReplicaReported
from penstock_common.contracts.heartbeat import Heartbeat, Inventory
from penstock_provisioner import metrics

log = logging.getLogger(__name__)

_UNSENT_MAX = 10_000
_RETRY_S_FIRST = 0.2
_RETRY_S_MAX = 5.0
_HEARTBEAT_BYTES_MAX = 512 * 1024
"""A NATS message holds 1 MB by default."""

EAGER_S = 5.0
EAGER_INTERVAL_S = 0.25

Publish = Callable[[ReplicaReported, str | None], Awaitable[None]]
"""Sends a report with its traceparent; raises when it was not accepted."""


class Reporter:
    """Sends reports in order, for as long as it takes. Nobody waits for it. `clock` is monotonic, in seconds."""

    def __init__(self, publish: Publish, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._publish = publish
        self._clock = clock
        self._made_s: dict[str, tuple[int, float]] = {}
        """Replica → number of its last report, and when it was made (or first known, after a restart)."""
        # Bounded: heartbeats repeat the last report of each replica, so the oldest can be spared.
        self._unsent: deque[tuple[ReplicaReported, str | None]] = deque(maxlen=_UNSENT_MAX)
        self._wake = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    def report(self, report: ReplicaReported, traceparent: str | None) -> None:
        """Have it sent."""
        log.info("replica %s is %s", report.replica_id, report.phase, extra=_fields(report))
        self._age_s(report)
        self._unsent.append((report, traceparent))
        self._all_sent.clear()
        self._wake.set()
        metrics.reports_unsent.set(len(self._unsent))

    async def run(self) -> None:
        """Send for ever."""
        retry_s = _RETRY_S_FIRST
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._unsent:
                report, traceparent = self._unsent[0]
                try:
                    await self._publish(self._aged(report), traceparent)
                except Exception as error:
                    log.warning("a report could not be sent; trying again", extra={"error": repr(error)})
                    await asyncio.sleep(retry_s)
                    retry_s = min(retry_s * 2, _RETRY_S_MAX)
                    continue
                retry_s = _RETRY_S_FIRST
                if self._unsent and self._unsent[0][0] is report:
                    self._unsent.popleft()
                metrics.reports_unsent.set(len(self._unsent))
            self._all_sent.set()

    def repeated(self, reports: Sequence[ReplicaReported]) -> list[ReplicaReported]:
        """The same reports, each with its age, for a heartbeat. What is not among them is forgotten."""
        found = [self._aged(report) for report in reports]
        self._made_s = {report.replica_id: self._made_s[report.replica_id] for report in reports}
        return found

    def _aged(self, report: ReplicaReported) -> ReplicaReported:
        return report.model_copy(update={"age_s": self._age_s(report)})

    def _age_s(self, report: ReplicaReported) -> float:
        now_s = self._clock()
        sequence, made_s = self._made_s.get(report.replica_id, (0, now_s))
        if report.sequence > sequence:
            made_s = now_s
            self._made_s[report.replica_id] = (report.sequence, made_s)
        return round(now_s - made_s, 3)

    async def drained(self) -> None:
        """Wait until everything is sent."""
        await self._all_sent.wait()


def heartbeat_wait_s(connected_s: float, interval_s: float) -> float:
    """From one heartbeat to the next, when NATS was reached `connected_s` ago and one is wanted every `interval_s`.

    The first ones may be lost, as neither this connection nor whoever listens may have been heard of by
    every server: they come fast, so that a host counts from when it is there.
    """
    return min(EAGER_INTERVAL_S, interval_s) if connected_s < EAGER_S else interval_s


def heartbeat(
    *,
    host_id: str,
    boot_id: str,
    driver: str,
    inventory: Inventory,
    reports: Sequence[ReplicaReported],
    leaving: bool,
) -> bytes:
    """A heartbeat as it is sent. Should it grow too large, it leaves out the ends of logs, which were reported."""

    def made(of: Sequence[ReplicaReported]) -> bytes:
        beat = Heartbeat(
            host_id=host_id, boot_id=boot_id, driver=driver, inventory=inventory, reports=tuple(of), leaving=leaving
        )
        return beat.model_dump_json().encode()

    whole = made(reports)
    if len(whole) <= _HEARTBEAT_BYTES_MAX:
        return whole
    return made([report.model_copy(update={"log_tail": ""}) for report in reports])


def _fields(report: ReplicaReported) -> dict[str, object]:
    fields = report.model_dump(mode="json", exclude={"log_tail", "host_id"}, exclude_none=True)
    return {name: value for name, value in fields.items() if value != ""}
