"""What hosts last said, kept in memory; and since when this process could have heard them.

Most heartbeats say nothing new: they cost no transaction. Times named `_s` are seconds of the
process's own clock, given by the caller; they become times of PostgreSQL's clock as ages.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from penstock_common.contracts.heartbeat import Heartbeat, Inventory
from penstock_scheduler.domain import Host, Replica, Snapshot

SETTLED_AFTER = timedelta(seconds=2.5)
"""More than one heartbeat: one sent so long after an assignment ended was sent knowing it."""
LEAVING_FOR_S = 5.0
"""A replica stopped because its host leaves announces the heartbeat that says so."""
DEAF_AFTER_S = 3.0
"""A process that could not even look at its clock for so long heard nobody either."""
STALE_FOR_S = 1.0
"""Heartbeats that come so soon after a gap may have been sent, and held up, during it."""

_FINAL = ("failed", "stopped")


_Content = tuple[str, str, Inventory, bool, frozenset[tuple[str, int]]]


def _content(heartbeat: Heartbeat) -> _Content:
    """What tells one heartbeat from the next. A report never changes under its sequence."""
    reports = frozenset((report.replica_id, report.sequence) for report in heartbeat.reports)
    return (heartbeat.boot_id, heartbeat.driver, heartbeat.inventory, heartbeat.leaving, reports)


@dataclass(frozen=True, slots=True)
class _Heard:
    at_s: float
    since_s: float
    """The start of the time in which they came without a gap."""
    mentioned: frozenset[str]


class Heartbeats:
    """The latest heartbeat of every host."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._alive_s: dict[str, float] = {}
        self._seen_before: dict[str, datetime] | None = None
        self._handled: dict[str, _Content] = {}
        self._news: dict[str, Heartbeat] = {}
        self._unsaved: set[str] = set()
        self._leaving: dict[str, float] = {}
        self._awake_since_s: float | None = None
        self._awake_at_s = 0.0

    def stay_awake(self, now_s: float) -> None:
        """Called about once a second, whatever else this process waits for."""
        if self._awake_since_s is None or now_s - self._awake_at_s > DEAF_AFTER_S:
            self._awake_since_s = now_s
        self._awake_at_s = now_s

    def awake_s(self, now_s: float) -> float:
        """How long this process has run without standing still, in seconds."""
        if self._awake_since_s is None or now_s - self._awake_at_s > DEAF_AFTER_S:
            return 0.0
        return now_s - self._awake_since_s

    def hear(self, heartbeat: Heartbeat, at_s: float) -> bool:
        """Note a heartbeat; whether it says something new, to be handled in a transaction."""
        host_id = heartbeat.host_id
        last = self._heard.get(host_id)
        since_s = last.since_s if last is not None and at_s - last.at_s <= DEAF_AFTER_S else at_s
        if last is None or at_s - since_s >= STALE_FOR_S:
            running = [report.replica_id for report in heartbeat.reports if report.phase not in _FINAL]
            self._alive_s.update(dict.fromkeys(running, at_s))
        self._heard[host_id] = _Heard(at_s, since_s, frozenset(report.replica_id for report in heartbeat.reports))
        self._unsaved.add(host_id)
        if self._handled.get(host_id) == _content(heartbeat):
            self._news.pop(host_id, None)
            return False
        self._news[host_id] = heartbeat
        return True

    def news(self) -> list[Heartbeat]:
        """Heartbeats to be handled, the latest of each host."""
        return list(self._news.values())

    def handled(self, heartbeat: Heartbeat) -> None:
        """What this heartbeat says is in the tables now."""
        self._handled[heartbeat.host_id] = _content(heartbeat)
        if self._news.get(heartbeat.host_id) is heartbeat:
            del self._news[heartbeat.host_id]

    def expect(self, hosts: tuple[Host, ...]) -> None:
        """Handle the next heartbeat of a host that counts as gone, whatever it says: it is back."""
        for host in hosts:
            if host.state != "up":
                self._handled.pop(host.host_id, None)

    def take_unsaved(self, now_s: float) -> dict[str, float]:
        """Hosts heard since the last call → how long ago, in seconds."""
        unsaved, self._unsaved = self._unsaved, set()
        return {host_id: now_s - self._heard[host_id].at_s for host_id in unsaved}

    def remember(self, hosts: Iterable[Host]) -> None:
        """When hosts were last seen before this process heard any. Only the first call counts."""
        if self._seen_before is None:
            self._seen_before = {host.host_id: host.last_seen_at for host in hosts}

    def last_alive_at(self, replica: Replica, now: datetime, now_s: float) -> datetime | None:
        """When the replica's host last said that it runs, or, if it did not since this process
        started, when the host was last seen before; None if neither is known."""
        at_s = self._alive_s.get(replica.replica_id)
        if at_s is not None:
            return now - timedelta(seconds=now_s - at_s)
        return (self._seen_before or {}).get(replica.host_id)

    def announce_leaving(self, host_id: str, now_s: float) -> None:
        """The host stops its replicas because it leaves: nothing should go there meanwhile."""
        self._leaving[host_id] = now_s

    def freshen(self, snapshot: Snapshot, now: datetime, now_s: float) -> Snapshot:
        """The snapshot with what was heard since the tables were written."""
        self._leaving = {host: at_s for host, at_s in self._leaving.items() if now_s - at_s < LEAVING_FOR_S}
        live = {replica.replica_id: replica for replica in snapshot.replicas}
        self._alive_s = {replica_id: at_s for replica_id, at_s in self._alive_s.items() if replica_id in live}
        alive_at = {replica_id: self.last_alive_at(replica, now, now_s) for replica_id, replica in live.items()}
        return replace(
            snapshot,
            hosts=tuple(self._fresh(host, now, now_s) for host in snapshot.hosts),
            alive_at={replica_id: moment for replica_id, moment in alive_at.items() if moment is not None},
            unmentioned=frozenset(
                replica.replica_id for replica in snapshot.replicas if self._is_unmentioned(replica, now, now_s)
            ),
        )

    def _fresh(self, host: Host, now: datetime, now_s: float) -> Host:
        heard = self._heard.get(host.host_id)
        seen_at = now - timedelta(seconds=now_s - heard.at_s) if heard is not None else host.last_seen_at
        return replace(
            host,
            last_seen_at=max(host.last_seen_at, seen_at),
            fenced=host.fenced or host.host_id in self._leaving,
        )

    def _is_unmentioned(self, replica: Replica, now: datetime, now_s: float) -> bool:
        heard = self._heard.get(replica.host_id)
        if replica.unassigned_at is None or heard is None or replica.replica_id in heard.mentioned:
            return False
        heard_at = now - timedelta(seconds=now_s - heard.at_s)
        return heard_at - replica.unassigned_at >= SETTLED_AFTER


class Hearing:
    """Since when this process can hear hosts. Silence from before then is its own deafness."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._tick_s = now_s

    def tick(self, now_s: float, connected: bool) -> None:
        """Called about once a second: whether NATS just answered."""
        if not connected or now_s - self._tick_s > DEAF_AFTER_S:
            self._since_s = now_s
        self._tick_s = now_s

    def since_s(self, now_s: float) -> float:
        """The start of the time without a gap in which it could hear."""
        return now_s if now_s - self._tick_s > DEAF_AFTER_S else self._since_s
