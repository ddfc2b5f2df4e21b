"""The queue as timelines, and its promises for any sequence of events."""

from collections.abc import Iterable

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.queueing import EndpointQueue, ReplicaSlots

Queue = EndpointQueue[str, ReplicaSlots]


def queue(*replica_ids: str, concurrency: int = 1, limit: int = 100, timeout_s: float = 10) -> Queue:
    made: Queue = EndpointQueue(ReplicaSlots, eject_s_min=1, eject_s_max=4)
    configure(made, replica_ids, concurrency=concurrency, limit=limit, timeout_s=timeout_s)
    return made


def configure(
    made: Queue, replica_ids: Iterable[str], *, concurrency: int = 1, limit: int = 100, timeout_s: float = 10
) -> list[tuple[str, str]]:
    replicas = [RouteReplica(replica_id=name, address=f"{name}:1") for name in replica_ids]
    starts, _ = made.configure(replicas, concurrency=concurrency, limit=limit, timeout_s=timeout_s)
    return [(item, replica.replica_id) for item, replica in starts]


def take(made: Queue) -> ReplicaSlots:
    replica = made.take()
    assert replica is not None
    return replica


def test_a_free_replica_is_taken_at_once_and_a_busy_one_never() -> None:
    line = queue("a", "b")
    assert {take(line).replica_id, take(line).replica_id} == {"a", "b"}
    assert line.take() is None


def test_whoever_waited_longest_gets_the_slot_that_frees() -> None:
    line = queue("a")
    replica = take(line)
    assert line.wait("first", 0)
    assert line.wait("second", 1)
    assert line.release(replica, None) == "first"
    assert replica.in_flight == 1
    assert line.release(replica, None) == "second"
    assert line.release(replica, None) is None
    assert take(line) is replica


def test_a_full_queue_takes_nobody() -> None:
    line = queue("a", limit=1)
    take(line)
    assert line.wait("first", 0)
    assert not line.wait("second", 0)
    assert len(line) == 1


def test_one_who_left_is_passed_over() -> None:
    line = queue("a")
    replica = take(line)
    line.wait("gone", 0)
    line.wait("here", 0)
    line.leave("gone")
    line.leave("never there")
    assert line.release(replica, None) == "here"


def test_slots_of_one_replica_are_filled_after_those_of_idler_ones() -> None:
    line = queue("a", "b", concurrency=2)
    first, second = take(line), take(line)
    assert first is not second
    line.release(first, None)
    assert take(line) is first
    assert [take(line).in_flight, take(line).in_flight] == [2, 2]
    assert line.take() is None


def test_waiting_ends_after_the_timeout_oldest_first() -> None:
    line = queue(timeout_s=10)
    line.wait("early", 0)
    line.wait("late", 5)
    assert line.next_event_s() == 10
    assert line.expire(9.9) == []
    assert line.expire(10) == ["early"]
    assert line.next_event_s() == 15
    assert line.expire(100) == ["late"]
    assert line.next_event_s() is None


def test_a_shorter_timeout_holds_for_those_already_waiting() -> None:
    line = queue(timeout_s=10)
    line.wait("one", 0)
    configure(line, [], timeout_s=3)
    assert line.next_event_s() == 3


def test_replicas_that_become_ready_start_what_waits_spread_evenly() -> None:
    line = queue(concurrency=2)
    for name in ("1", "2", "3"):
        line.wait(name, 0)
    starts = configure(line, ["a", "b"], concurrency=2)
    assert [item for item, _ in starts] == ["1", "2", "3"]
    assert sorted(replica for _, replica in starts) in (["a", "a", "b"], ["a", "b", "b"])
    assert len(line) == 0


def test_a_replica_that_left_gets_nothing_more_and_may_finish() -> None:
    line = queue("a")
    leaving = take(line)
    line.wait("next", 0)
    assert configure(line, []) == []
    assert leaving.draining
    assert line.release(leaving, None) is None
    assert len(line) == 1
    assert line.take() is None


def test_a_replica_that_moved_to_another_address_is_another_replica() -> None:
    line = queue("a")
    old = take(line)
    moved = [RouteReplica(replica_id="a", address="elsewhere:1")]
    _, gone = line.configure(moved, concurrency=1, limit=1, timeout_s=1)
    assert gone == [old]
    assert take(line).address == "elsewhere:1"


def test_a_lower_concurrency_is_kept_as_requests_finish() -> None:
    line = queue("a", concurrency=3)
    replica = take(line)
    take(line)
    take(line)
    line.wait("next", 0)
    configure(line, ["a"], concurrency=1)
    assert line.release(replica, None) is None
    assert line.release(replica, None) is None
    assert line.release(replica, None) == "next"


def test_a_higher_concurrency_starts_what_waits() -> None:
    line = queue("a")
    take(line)
    line.wait("next", 0)
    assert configure(line, ["a"], concurrency=2) == [("next", "a")]


def test_a_replica_that_refuses_is_left_alone_for_longer_each_time() -> None:
    line = queue("a")
    waits = []
    now_s = 0.0
    for _ in range(4):
        replica = take(line)
        line.eject(replica, now_s)
        line.release(replica, None)
        assert line.take() is None
        until_s = line.next_event_s()
        assert until_s is not None
        waits.append(until_s - now_s)
        now_s = until_s
        assert line.readmit(now_s) == []
    assert waits == [1, 2, 4, 4]


def test_failures_of_requests_that_ran_together_count_once() -> None:
    line = queue("a", concurrency=3)
    replica = take(line)
    take(line)
    for _ in range(2):
        line.eject(replica, 0)
        line.release(replica, None)
    assert replica.failures == 1
    assert line.next_event_s() == 1


def test_a_replica_that_comes_back_is_tried_with_one_request_first() -> None:
    line = queue("a", concurrency=3)
    replica = take(line)
    line.eject(replica, 0)
    line.release(replica, None)
    for name in ("1", "2", "3", "4"):
        line.wait(name, 0)
    assert [item for item, _ in line.readmit(1)] == ["1"]
    assert [item for item, _ in line.recover(replica)] == ["2", "3"]
    assert line.release(replica, None) == "4"


def test_a_request_whose_connection_never_opened_is_first_in_line_again() -> None:
    line = queue("a", timeout_s=10)
    replica = take(line)
    line.wait("second", 5)
    line.eject(replica, 6)
    assert line.release(replica, None) is None
    line.wait_first("first", 0)
    assert line.expire(10) == ["first"]
    assert [item for item, _ in line.readmit(7)] == ["second"]


def test_a_closed_endpoint_hands_back_everybody_who_waits() -> None:
    line = queue("a")
    busy = take(line)
    line.wait("1", 0)
    line.wait("2", 0)
    waited, gone = line.close()
    assert waited == ["1", "2"]
    assert gone == [busy]
    assert line.release(busy, None) is None
    assert line.take() is None


def test_the_service_time_follows_what_requests_take() -> None:
    line = queue("a")
    line.release(take(line), 2.0)
    assert line.view().service_s == 2.0
    for _ in range(100):
        line.release(take(line), 1.0)
    assert line.service_s is not None
    assert abs(line.service_s - 1.0) < 0.01


class Traffic(RuleBasedStateMachine):
    """Any sequence of events: concurrency is exact, nobody is lost or overtaken, nothing idles while
    something waits."""

    def __init__(self) -> None:
        super().__init__()
        self.line: Queue = EndpointQueue(ReplicaSlots, eject_s_min=1, eject_s_max=4)
        self.now_s = 0.0
        self.concurrency = 1
        self.names: list[str] = []
        self.running: list[tuple[str, ReplicaSlots]] = []
        self.order: list[str] = []
        self.count = 0

    def start(self, item: str, replica: ReplicaSlots) -> None:
        if item in self.order:
            assert item == self.order.pop(0)
        assert replica.in_flight <= replica.limit
        assert not replica.draining
        assert not replica.ejected_until_s
        self.running.append((item, replica))

    @rule(names=st.sets(st.sampled_from("abc")), concurrency=st.integers(1, 3), limit=st.integers(0, 5))
    def configure(self, names: set[str], concurrency: int, limit: int) -> None:
        replicas = [RouteReplica(replica_id=name, address=f"{name}:1") for name in sorted(names)]
        starts, _ = self.line.configure(replicas, concurrency=concurrency, limit=limit, timeout_s=10)
        self.concurrency = concurrency
        for item, replica in starts:
            self.start(item, replica)

    @rule()
    def arrive(self) -> None:
        self.count += 1
        item = f"request {self.count}"
        replica = self.line.take()
        if replica is not None:
            self.start(item, replica)
        elif self.line.wait(item, self.now_s):
            self.order.append(item)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answered=st.booleans())
    def finish(self, data: st.DataObject, answered: bool) -> None:
        _, replica = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
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
            self.line.wait_first(item, self.now_s)
            self.order.insert(0, item)

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = self.order.pop(data.draw(st.integers(0, len(self.order) - 1)))
        self.line.leave(item)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        for item, replica in self.line.readmit(self.now_s):
            self.start(item, replica)
        for item in self.line.expire(self.now_s):
            self.order.remove(item)

    @invariant()
    def everybody_is_accounted_for(self) -> None:
        assert len(self.line) == len(self.order)
        held = sum(1 for _, replica in self.running if not replica.draining)
        assert self.line.in_flight == held

    @invariant()
    def nothing_idles_while_something_waits(self) -> None:
        if self.order:
            for replica in self.line.replicas.values():
                assert replica.ejected_until_s or replica.in_flight >= replica.capacity


Traffic.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase
