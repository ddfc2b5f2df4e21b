"""The queue of one endpoint and the slots of its replicas: plain data, no I/O, time as an argument.

A request is bound to a replica only when that replica has a free slot (late binding). While anything
waits, no slot of a usable replica is free: whoever frees one gets the next request to start in return.

While no replica is ready, requests wait for a start; the time they may wait in the queue begins with the
first ready replica.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.domain import QueueView
from penstock_gateway.fairness import FairLine, Place

SERVICE_WEIGHT = 1 / 16
"""Weight of the newest request in the mean service time."""
BACKOFF_DOUBLINGS_MAX = 16


class ReplicaSlots:
    """One replica's slots. `failures` counts failures in a row; a replica that failed and comes back
    is tried with one request before it gets more. One that is `draining` gets nothing more, and finishes
    what it has."""

    __slots__ = ("address", "draining", "ejected_until_s", "failures", "in_flight", "limit", "listed", "replica_id")

    def __init__(self, replica_id: str, address: str, limit: int) -> None:
        self.replica_id = replica_id
        self.address = address
        self.limit = limit
        self.in_flight = 0
        self.failures = 0
        self.ejected_until_s = 0.0
        self.draining = False
        self.listed = False

    @property
    def capacity(self) -> int:
        return min(1, self.limit) if self.failures else self.limit


R = TypeVar("R", bound=ReplicaSlots)
T = TypeVar("T")


class EndpointQueue(Generic[T, R]):
    """`T` is what waits (compared by identity), `R` the kind of replica. Who is next: see FairLine.

    Methods that free capacity return the pairs of request and replica to start, with slots already taken.
    """

    __slots__ = (
        "_concurrency",
        "_eject_s_max",
        "_eject_s_min",
        "_ejected",
        "_free",
        "_lent",
        "_line",
        "_make_replica",
        "_turned_s",
        "_waiting",
        "limit",
        "ready",
        "replicas",
        "service_s",
        "start_timeout_s",
        "timeout_s",
    )

    def __init__(
        self,
        make_replica: Callable[[str, str, int], R],
        *,
        eject_s_min: float = 0.25,
        eject_s_max: float = 10.0,
        start_timeout_s: float = 900.0,
    ) -> None:
        self.replicas: dict[str, R] = {}
        self.limit = 0
        self.timeout_s = 0.0
        self.start_timeout_s = start_timeout_s
        self.ready = False
        """Whether the route has a replica that takes requests."""
        self._turned_s = 0.0
        """Since when that has been so."""
        self.service_s: float | None = None
        self._make_replica = make_replica
        self._concurrency = 0
        self._lent: Mapping[str, int] | None = {}
        self._eject_s_min = eject_s_min
        self._eject_s_max = eject_s_max
        self._free: deque[R] = deque()
        self._ejected: list[R] = []
        self._line: FairLine[T] = FairLine()
        # Its own dict at hand: whether anything waits is asked at every request.
        self._waiting = self._line.waiting

    # --- requests -------------------------------------------------------------------------

    def take(self) -> R | None:
        """A slot of the least busy usable replica, or None when there is none free."""
        free = self._free
        if not free:
            return None
        replica = free[0]
        if replica.in_flight and len(free) > 1:
            replica = min(free, key=_in_flight)
        replica.in_flight = in_flight = replica.in_flight + 1
        if in_flight >= (1 if replica.failures else replica.limit):
            self._unlist(replica)
        elif len(free) > 1 and replica is free[0]:
            free.rotate(-1)
        return replica

    def wait(self, item: T, place: Place, now_s: float) -> bool:
        """Join the queue; False when it is full. While no replica is ready there is room for one at least:
        otherwise a queue of no length could never be what wakes its endpoint."""
        if len(self._waiting) >= self.limit and (self._waiting or self.ready):
            return False
        self._line.join(item, place, now_s)
        return True

    def wait_first(self, item: T, place: Place, since_s: float) -> None:
        """Join the front again, after a connection that never opened; the wait counts from `since_s`."""
        self._line.join_first(item, place, since_s)

    def displace(self, item: T, place: Place, now_s: float) -> T | None:
        """Join a full queue in the place of another, who is returned; None when nobody gives way."""
        other = self._line.gives_way(place)
        if other is not None:
            self._line.leave(other)
            self._line.join(item, place, now_s)
        return other

    def leave(self, item: T) -> None:
        """Stop waiting: the client left. Unknown items are ignored."""
        self._line.leave(item)

    def release(self, replica: R, service_s: float | None) -> T | None:
        """Give a slot back; returns the request that starts on this replica now, its slot taken.

        `service_s` is how long the request took, or None when that says nothing of the service rate.
        """
        if service_s is not None:
            mean = self.service_s
            self.service_s = service_s if mean is None else mean + (service_s - mean) * SERVICE_WEIGHT
        replica.in_flight = in_flight = replica.in_flight - 1
        if replica.listed or replica.draining or replica.ejected_until_s:
            return None
        # The same as replica.capacity, without a call: this runs once for every request.
        if in_flight >= (min(1, replica.limit) if replica.failures else replica.limit):
            return None
        if self._waiting:
            replica.in_flight = in_flight + 1
            return self._line.pop()
        self._free.append(replica)
        replica.listed = True
        return None

    # --- time -----------------------------------------------------------------------------

    def expire(self, now_s: float) -> list[T]:
        """Take out those that waited too long, oldest first."""
        found: list[T] = []
        while self._waiting:
            item = next(iter(self._waiting))
            if self._due_s(item) > now_s:
                break
            self._line.leave(item)
            found.append(item)
        return found

    def readmit(self, now_s: float) -> list[tuple[T, R]]:
        """Let replicas whose ejection is over have requests again."""
        back = [replica for replica in self._ejected if replica.ejected_until_s <= now_s]
        for replica in back:
            self._ejected.remove(replica)
            replica.ejected_until_s = 0.0
            self._list(replica)
        return self._starts()

    def next_event_s(self) -> float | None:
        """When `expire` or `readmit` next has something to do."""
        times = [replica.ejected_until_s for replica in self._ejected]
        if self._waiting:
            times.append(self._due_s(next(iter(self._waiting))))
        return min(times, default=None)

    # --- replicas -------------------------------------------------------------------------

    def eject(self, replica: R, now_s: float) -> None:
        """Give a replica that failed no requests for a while; longer after each failure in a row."""
        if replica.draining or replica.ejected_until_s:
            return
        doublings = min(replica.failures, BACKOFF_DOUBLINGS_MAX)
        replica.failures += 1
        replica.ejected_until_s = now_s + min(self._eject_s_min * 2**doublings, self._eject_s_max)
        self._ejected.append(replica)
        self._unlist(replica)

    def recover(self, replica: R) -> list[tuple[T, R]]:
        """A replica that had failed has answered: it gets all its slots again."""
        replica.failures = 0
        self._list(replica)
        return self._starts()

    def configure(
        self, replicas: Iterable[RouteReplica], *, concurrency: int, limit: int, timeout_s: float, now_s: float
    ) -> tuple[list[tuple[T, R]], list[R]]:
        """Take over what the route says now; returns what starts, and the replicas that get nothing more.

        A replica that left or drains gets nothing more; what it works on is finished and released as ever.
        """
        self.limit = limit
        self.timeout_s = timeout_s
        self._concurrency = concurrency
        wanted = {replica.replica_id: replica for replica in replicas}
        retired = [
            r for r in self.replicas.values() if r.replica_id not in wanted or wanted[r.replica_id].address != r.address
        ]
        for replica in retired:
            self._drop(replica)
        for replica_id, said in wanted.items():
            known = self.replicas.get(replica_id)
            if known is None:
                known = self.replicas[replica_id] = self._make_replica(replica_id, said.address, concurrency)
            known.limit = self._own_slots(replica_id)
            if said.draining:
                if not known.draining:
                    self._retire(known)
                    retired.append(known)
                continue
            known.draining = False
            if known.in_flight >= known.capacity:
                self._unlist(known)
            self._list(known)
        ready = any(not said.draining for said in wanted.values())
        if ready is not self.ready:
            self.ready = ready
            self._turned_s = now_s
        return self._starts(), retired

    def lend(self, lent: Mapping[str, int] | None) -> list[tuple[T, R]]:
        """How many slots of each replica others use, by id: these are not ours to fill. None for all of them.
        What is already under way on them is finished and released as ever."""
        self._lent = lent
        for replica in self.replicas.values():
            replica.limit = self._own_slots(replica.replica_id)
            if replica.in_flight >= replica.capacity:
                self._unlist(replica)
            self._list(replica)
        return self._starts()

    def hand_over(self) -> list[T]:
        """Everybody who waits, in the order in which they joined; nobody waits here any more."""
        return self._line.clear()

    def close(self) -> tuple[list[T], list[R]]:
        """The endpoint takes no more requests; returns those that waited, and all replicas."""
        waited = self._line.clear()
        gone = list(self.replicas.values())
        for replica in gone:
            self._drop(replica)
        self.ready = False
        return waited, gone

    # --- looking --------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Requests that replicas of the route work on, draining ones included; those of replicas that left
        are not counted."""
        return sum(replica.in_flight for replica in self.replicas.values())

    def view(self) -> QueueView:
        """What a refused caller is told, and Retry-After is worked out from. Draining replicas are no capacity."""
        usable = [replica.limit for replica in self.replicas.values() if not replica.draining]
        return QueueView(
            waiting=len(self._waiting),
            limit=self.limit,
            timeout_s=self.timeout_s,
            replicas=len(usable),
            slots=sum(usable),
            ejected=len(self._ejected),
            service_s=self.service_s,
        )

    # --- parts ----------------------------------------------------------------------------

    def _starts(self) -> list[tuple[T, R]]:
        """Start those who wait, as far as free slots go."""
        starts: list[tuple[T, R]] = []
        while self._waiting:
            replica = self.take()
            if replica is None:
                break
            starts.append((self._line.pop(), replica))
        return starts

    def _due_s(self, item: T) -> float:
        """When an item has waited too long. Replicas that come and go cannot put it off without end."""
        since_s, _ = self._waiting[item]
        allowed_s = self.timeout_s if self.ready else self.start_timeout_s
        return min(max(since_s, self._turned_s) + allowed_s, since_s + self.start_timeout_s + self.timeout_s)

    def _own_slots(self, replica_id: str) -> int:
        return 0 if self._lent is None else max(0, self._concurrency - self._lent.get(replica_id, 0))

    def _list(self, replica: R) -> None:
        usable = not (replica.draining or replica.listed or replica.ejected_until_s)
        if usable and replica.in_flight < replica.capacity:
            self._free.append(replica)
            replica.listed = True

    def _unlist(self, replica: R) -> None:
        if replica.listed:
            self._free.remove(replica)
            replica.listed = False

    def _retire(self, replica: R) -> None:
        replica.draining = True
        self._unlist(replica)
        if replica in self._ejected:
            self._ejected.remove(replica)
            replica.ejected_until_s = 0.0

    def _drop(self, replica: R) -> None:
        self._retire(replica)
        del self.replicas[replica.replica_id]


def _in_flight(replica: ReplicaSlots) -> int:
    return replica.in_flight
