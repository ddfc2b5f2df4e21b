"""What the queue promises for any sequence of events."""

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.fairness import Place, Priority
from penstock_gateway.queueing import EndpointQueue, ReplicaSlots

PLACES = [Place(key_id, priority) for key_id in ("one", "two") for priority in Priority]


class Traffic(RuleBasedStateMachine):
    """Any sequence of events: concurrency is exact, nobody is lost or answered twice, nobody is overtaken by
    another of the same key and priority, nothing idles while something waits, and no wait is without end."""

    def __init__(self) -> None:
        super().__init__()
        self.line: EndpointQueue[str, ReplicaSlots] = EndpointQueue(
            ReplicaSlots, eject_s_min=1, eject_s_max=4, start_timeout_s=20
        )
        self.now_s = 0.0
        self.running: list[tuple[str, ReplicaSlots]] = []
        self.order: dict[Place, list[str]] = {place: [] for place in PLACES}
        self.places: dict[str, Place] = {}
        self.since_s: dict[str, float] = {}
        self.ends: dict[str, int] = {}

    @property
    def waiting(self) -> list[str]:
        return [item for order in self.order.values() for item in order]

    def start(self, item: str, replica: ReplicaSlots) -> None:
        order = self.order[self.places[item]]
        if item in order:
            assert item == order.pop(0)
        assert replica.in_flight <= replica.limit
        assert not replica.draining
        assert not replica.ejected_until_s
        self.running.append((item, replica))

    def end(self, item: str) -> None:
        self.ends[item] = self.ends.get(item, 0) + 1

    @rule(
        names=st.dictionaries(st.sampled_from("abc"), st.booleans()),
        concurrency=st.integers(1, 3),
        limit=st.integers(0, 5),
    )
    def configure(self, names: dict[str, bool], concurrency: int, limit: int) -> None:
        replicas = [
            RouteReplica(replica_id=name, address=f"{name}:1", draining=draining)
            for name, draining in sorted(names.items())
        ]
        starts, _ = self.line.configure(replicas, concurrency=concurrency, limit=limit, timeout_s=10, now_s=self.now_s)
        for item, replica in starts:
            self.start(item, replica)

    @rule(place=st.sampled_from(PLACES))
    def arrive(self, place: Place) -> None:
        item = f"request {len(self.places)}"
        self.places[item] = place
        self.since_s[item] = self.now_s
        replica = self.line.take()
        if replica is not None:
            self.start(item, replica)
        elif self.line.wait(item, place, self.now_s):
            self.order[place].append(item)
        else:
            displaced = self.line.displace(item, place, self.now_s)
            if displaced is None:
                self.end(item)
                return
            assert self.order[self.places[displaced]].pop() == displaced
            self.end(displaced)
            self.order[place].append(item)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answered=st.booleans())
    def finish(self, data: st.DataObject, answered: bool) -> None:
        done, replica = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.end(done)
        following = self.line.release(replica, 1.0 if answered else None)
        if answered and replica.failures:
            for next_item, next_replica in self.line.recover(replica):
                if following is not None:
                    self.start(following, replica)
                    following = None
                self.start(next_item, next_replica)
        if following is not None:
            self.start(following, replica)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse_connection(self, data: st.DataObject) -> None:
        item, replica = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.line.eject(replica, self.now_s)
        following = self.line.release(replica, None)
        assert following is None or not replica.ejected_until_s
        if following is not None:
            self.start(following, replica)
        other = self.line.take()
        if other is not None:
            self.start(item, other)
        else:
            self.line.wait_first(item, self.places[item], self.since_s[item])
            self.order[self.places[item]].insert(0, item)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        self.order[self.places[item]].remove(item)
        self.line.leave(item)
        self.end(item)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        for item, replica in self.line.readmit(self.now_s):
            self.start(item, replica)
        for item in self.line.expire(self.now_s):
            self.order[self.places[item]].remove(item)
            self.end(item)

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        assert len(self.line) == len(self.waiting)
        assert sorted([*self.waiting, *(item for item, _ in self.running), *self.ends]) == sorted(self.places)
        assert set(self.ends.values()) <= {1}
        replicas = self.line.replicas
        held = sum(1 for _, replica in self.running if replicas.get(replica.replica_id) is replica)
        assert self.line.in_flight == held

    @invariant()
    def nothing_idles_while_something_waits(self) -> None:
        if self.waiting:
            for replica in self.line.replicas.values():
                assert replica.draining or replica.ejected_until_s or replica.in_flight >= replica.capacity

    @invariant()
    def every_wait_has_an_end(self) -> None:
        if self.waiting:
            next_s = self.line.next_event_s()
            assert next_s is not None
            assert next_s <= max(self.since_s[item] for item in self.waiting) + 20 + 10


Traffic.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase
