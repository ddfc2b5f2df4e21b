"""The queue as timelines."""

from collections.abc import Iterable

from penstock_common.contracts.records import RouteReplica
from penstock_gateway.fairness import Place, Priority
from penstock_gateway.queueing import EndpointQueue, ReplicaSlots

Queue = EndpointQueue[str, ReplicaSlots]
HERE = Place("key_1")


def queue(*replica_ids: str, concurrency: int = 1, limit: int = 100, timeout_s: float = 10) -> Queue:
    made: Queue = EndpointQueue(ReplicaSlots, eject_s_min=1, eject_s_max=4, start_timeout_s=100)
    configure(made, replica_ids, concurrency=concurrency, limit=limit, timeout_s=timeout_s)
    return made


def configure(
    made: Queue,
    replica_ids: Iterable[str],
    *,
    draining: Iterable[str] = (),
    concurrency: int = 1,
    limit: int = 100,
    timeout_s: float = 10,
    now_s: float = 0,
) -> list[tuple[str, str]]:
    """Ids of what starts, and where."""
    replicas = [said(name) for name in replica_ids] + [said(name, draining=True) for name in draining]
    starts, _ = made.configure(replicas, concurrency=concurrency, limit=limit, timeout_s=timeout_s, now_s=now_s)
    return [(item, replica.replica_id) for item, replica in starts]


def said(name: str, *, draining: bool = False) -> RouteReplica:
    return RouteReplica(replica_id=name, address=f"{name}:1", draining=draining)


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
    assert line.wait("first", HERE, 0)
    assert line.wait("second", HERE, 1)
    assert line.release(replica, None) == "first"
    assert replica.in_flight == 1
    assert line.release(replica, None) == "second"
    assert line.release(replica, None) is None
    assert take(line) is replica


def test_a_full_queue_takes_nobody() -> None:
    line = queue("a", limit=1)
    take(line)
    assert line.wait("first", HERE, 0)
    assert not line.wait("second", HERE, 0)
    assert len(line) == 1


def test_one_who_left_is_passed_over() -> None:
    line = queue("a")
    replica = take(line)
    line.wait("gone", HERE, 0)
    line.wait("here", HERE, 0)
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
    line = queue("a", timeout_s=10)
    take(line)
    line.wait("early", HERE, 0)
    line.wait("late", HERE, 5)
    assert line.next_event_s() == 10
    assert line.expire(9.9) == []
    assert line.expire(10) == ["early"]
    assert line.next_event_s() == 15
    assert line.expire(100) == ["late"]
    assert line.next_event_s() is None


def test_a_shorter_timeout_holds_for_those_already_waiting() -> None:
    line = queue("a", timeout_s=10)
    take(line)
    line.wait("one", HERE, 0)
    configure(line, ["a"], timeout_s=3)
    assert line.next_event_s() == 3


def test_the_timeout_begins_with_the_first_ready_replica_and_a_start_may_take_longer() -> None:
    line = queue(timeout_s=10)
    line.wait("early", HERE, 0)
    line.wait("late", HERE, 40)
    assert line.expire(50) == []
    assert line.next_event_s() == 100
    assert configure(line, ["a"], now_s=60) == [("early", "a")]
    assert line.next_event_s() == 70
    line.wait("later", HERE, 65)
    assert line.expire(70) == ["late"]
    assert line.next_event_s() == 75


def test_a_second_replica_does_not_begin_the_timeout_anew() -> None:
    line = queue("a", timeout_s=10)
    take(line)
    line.wait("one", HERE, 0)
    configure(line, ["a", "b"], concurrency=1, now_s=5)
    line.wait("two", HERE, 5)
    assert line.next_event_s() == 15


def test_a_start_that_takes_too_long_ends_the_wait_too() -> None:
    line = queue(timeout_s=10)
    line.wait("early", HERE, 0)
    line.wait("late", HERE, 40)
    assert line.expire(99) == []
    assert line.expire(100) == ["early"]
    assert line.next_event_s() == 140


def test_a_replica_that_is_lost_leaves_those_who_wait_the_time_of_a_start() -> None:
    line = queue("a", timeout_s=300)
    take(line)
    line.wait("one", HERE, 0)
    configure(line, [], timeout_s=300, now_s=200)
    assert line.expire(299) == []
    assert line.expire(300) == ["one"]


def test_replicas_that_come_and_go_do_not_put_the_end_of_a_wait_off_for_ever() -> None:
    line = queue(timeout_s=10)
    line.wait("first", HERE, 0)
    line.wait("second", HERE, 0)
    for now_s in range(0, 108, 2):
        # Each replica is gone before the first request could be sent to it.
        for item, _ in configure(line, [f"a{now_s}"], now_s=now_s):
            line.wait_first(item, HERE, 0)
        configure(line, [], now_s=now_s + 1)
        assert line.expire(now_s) == []
    assert line.next_event_s() == 110
    assert line.expire(110) == ["first", "second"]


def test_a_queue_of_no_length_holds_one_request_until_a_replica_is_ready() -> None:
    line = queue(limit=0)
    assert line.wait("first", HERE, 0)
    assert not line.wait("second", HERE, 0)
    assert configure(line, ["a"], limit=0) == [("first", "a")]
    assert not line.wait("third", HERE, 0)


def test_replicas_that_become_ready_start_what_waits_spread_evenly() -> None:
    line = queue(concurrency=2)
    for name in ("1", "2", "3"):
        line.wait(name, HERE, 0)
    starts = configure(line, ["a", "b"], concurrency=2)
    assert [item for item, _ in starts] == ["1", "2", "3"]
    assert sorted(replica for _, replica in starts) in (["a", "a", "b"], ["a", "b", "b"])
    assert len(line) == 0


def test_a_replica_that_left_gets_nothing_more_and_may_finish() -> None:
    line = queue("a")
    leaving = take(line)
    line.wait("next", HERE, 0)
    assert configure(line, []) == []
    assert leaving.draining
    assert line.release(leaving, None) is None
    assert len(line) == 1
    assert line.take() is None


def test_a_replica_that_moved_to_another_address_is_another_replica() -> None:
    line = queue("a")
    old = take(line)
    moved = [RouteReplica(replica_id="a", address="elsewhere:1")]
    _, gone = line.configure(moved, concurrency=1, limit=1, timeout_s=1, now_s=0)
    assert gone == [old]
    assert take(line).address == "elsewhere:1"


def test_a_draining_replica_gets_nothing_more_finishes_what_it_has_and_still_counts() -> None:
    line = queue("a", "b")
    draining, other = sorted((take(line), take(line)), key=lambda replica: replica.replica_id)
    line.wait("next", HERE, 0)
    _, retired = line.configure([said("a", draining=True), said("b")], concurrency=1, limit=100, timeout_s=10, now_s=0)
    assert retired == [draining]
    assert line.in_flight == 2
    assert (line.view().replicas, line.view().slots) == (1, 1)
    assert line.release(draining, None) is None
    assert (draining.in_flight, line.in_flight) == (0, 1)
    assert line.release(other, None) == "next"
    assert configure(line, ["b"], draining=["a"]) == []
    assert set(line.replicas) == {"a", "b"}
    assert line.take() is None


def test_a_replica_is_known_to_drain_from_the_first_record_on() -> None:
    line = queue()
    line.wait("one", HERE, 0)
    assert configure(line, [], draining=["a"], now_s=50) == []
    assert line.next_event_s() == 100
    assert line.take() is None


def test_a_replica_that_drains_no_longer_is_used_again_even_if_it_was_ejected() -> None:
    line = queue("a")
    replica = take(line)
    line.eject(replica, 0)
    configure(line, [], draining=["a"])
    line.release(replica, None)
    line.eject(replica, 0)
    assert line.next_event_s() is None
    assert line.readmit(100) == []
    line.wait("next", HERE, 0)
    assert configure(line, ["a"]) == [("next", "a")]


def test_a_lower_concurrency_is_kept_as_requests_finish() -> None:
    line = queue("a", concurrency=3)
    replica = take(line)
    take(line)
    take(line)
    line.wait("next", HERE, 0)
    configure(line, ["a"], concurrency=1)
    assert line.release(replica, None) is None
    assert line.release(replica, None) is None
    assert line.release(replica, None) == "next"


def test_a_higher_concurrency_starts_what_waits() -> None:
    line = queue("a")
    take(line)
    line.wait("next", HERE, 0)
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
        line.wait(name, HERE, 0)
    assert [item for item, _ in line.readmit(1)] == ["1"]
    assert [item for item, _ in line.recover(replica)] == ["2", "3"]
    assert line.release(replica, None) == "4"


def test_a_request_whose_connection_never_opened_is_first_in_line_again() -> None:
    line = queue("a", timeout_s=10)
    replica = take(line)
    line.wait("second", HERE, 5)
    line.eject(replica, 6)
    assert line.release(replica, None) is None
    line.wait_first("first", HERE, 0)
    assert line.expire(10) == ["first"]
    assert [item for item, _ in line.readmit(7)] == ["second"]


def test_a_closed_endpoint_hands_back_everybody_who_waits() -> None:
    line = queue("a")
    busy = take(line)
    line.wait("1", HERE, 0)
    line.wait("2", HERE, 0)
    waited, gone = line.close()
    assert waited == ["1", "2"]
    assert gone == [busy]
    assert line.release(busy, None) is None
    assert line.take() is None


def test_keys_take_turns_when_a_slot_frees() -> None:
    line = queue("a")
    replica = take(line)
    for number in range(3):
        line.wait(f"many {number}", Place("many"), 0)
    line.wait("few", Place("few"), 1)
    assert [line.release(replica, None) for _ in range(4)] == ["many 0", "few", "many 1", "many 2"]


def test_who_fills_a_full_queue_gives_way_to_others() -> None:
    line = queue("a", limit=3)
    take(line)
    for number in range(3):
        line.wait(f"many {number}", Place("many"), 0)
    assert not line.wait("few", Place("few"), 1)
    assert line.displace("more", Place("many"), 1) is None
    assert line.displace("few", Place("few"), 1) == "many 2"
    assert line.displace("urgent", Place("many", Priority.HIGH), 1) == "many 1"
    assert len(line) == 3


def test_the_service_time_follows_what_requests_take() -> None:
    line = queue("a")
    line.release(take(line), 2.0)
    assert line.view().service_s == 2.0
    for _ in range(100):
        line.release(take(line), 1.0)
    assert line.service_s is not None
    assert abs(line.service_s - 1.0) < 0.01


# --- slots that others use --------------------------------------------------------------------


def test_slots_that_others_use_are_not_filled_until_they_are_given_back() -> None:
    line = queue("a", "b", concurrency=2)
    assert line.lend({"a": 1, "b": 2, "gone": 3}) == []
    assert (take(line).replica_id, line.take()) == ("a", None)
    assert line.view().slots == 1
    for item in ("first", "second", "third"):
        line.wait(item, HERE, 0)
    assert {(item, replica.replica_id) for item, replica in line.lend({"b": 1})} == {("first", "b"), ("second", "a")}
    # It holds for routes that come later, too.
    assert configure(line, ["a", "b"], concurrency=2) == []
    assert [(item, replica.replica_id) for item, replica in line.lend({})] == [("third", "b")]


def test_with_all_slots_lent_nothing_starts_and_what_is_under_way_ends() -> None:
    line = queue("a", "b")
    working = take(line)
    line.eject(line.replicas["b"], 0)
    line.wait("waiting", HERE, 0)
    assert line.lend(None) == []
    assert line.readmit(1) == []
    assert configure(line, ["a", "b", "c"]) == []
    assert line.release(working, 1.0) is None
    assert line.recover(line.replicas["b"]) == []
    assert (line.in_flight, line.take(), len(line)) == (0, None, 1)
    assert [item for item, _ in line.lend({})] == ["waiting"]


def test_a_replica_that_failed_gets_no_trial_request_while_its_slots_are_lent() -> None:
    line = queue("a", concurrency=2)
    first, second = take(line), take(line)
    line.eject(first, 0)
    line.readmit(1)
    line.lend({"a": 2})
    line.wait("waiting", HERE, 1)
    assert line.release(second, None) is None
    assert line.release(first, None) is None
    assert [item for item, _ in line.lend({"a": 1})] == ["waiting"]


def test_who_waits_can_be_handed_over_in_order() -> None:
    line = queue("a")
    replica = take(line)
    for item in ("first", "second"):
        line.wait(item, HERE, 0)
    assert line.hand_over() == ["first", "second"]
    assert (len(line), line.release(replica, None)) == (0, None)
