"""Who is next when several keys and priorities wait: timelines, and what holds for any sequence of events."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock_gateway.fairness import WEIGHTS, FairLine, Place, Priority

HIGH, NORMAL, LOW = Priority
STRIDES = {priority: 16 // WEIGHTS[priority] for priority in Priority}
KEYS = ("a", "b", "c")
PLACES = [Place(key_id, priority) for key_id in KEYS for priority in Priority]

Line = FairLine[str]


def join(line: Line, *places: Place) -> None:
    for place in places:
        line.join(f"{place.key_id}{place.priority}-{len(line.waiting)}", place, 0)


def pops(line: Line, count: int) -> list[str]:
    return [line.pop().partition("-")[0] for _ in range(count)]


def test_keys_take_turns_and_each_is_served_in_its_order() -> None:
    line = Line()
    for item, key_id in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")):
        line.join(item, Place(key_id), 0)
    assert [line.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_classes_that_all_wait_share_as_their_weights() -> None:
    line = Line()
    join(line, *([Place("a", LOW)] * 10 + [Place("a", NORMAL)] * 40 + [Place("a", HIGH)] * 160))
    assert Counter(pops(line, 105)) == {"a0": 80, "a1": 20, "a2": 5}


def test_high_goes_before_normal_and_normal_before_low_when_they_join_a_waiting_line() -> None:
    line = Line()
    join(line, Place("a", LOW), Place("b", NORMAL), Place("c", HIGH))
    assert pops(line, 3) == ["c0", "b1", "a2"]
    join(line, *[Place("a", NORMAL)] * 5)
    pops(line, 2)
    join(line, Place("b", LOW), Place("b", HIGH))
    assert pops(line, 5) == ["b0", "a1", "a1", "a1", "b2"]


def test_a_class_that_waited_for_nothing_saves_up_no_claim() -> None:
    line = Line()
    join(line, *[Place("a", NORMAL)] * 100)
    pops(line, 90)
    join(line, *[Place("a", LOW)] * 10)
    assert pops(line, 4) == ["a1"] * 4


def test_who_leaves_unserved_takes_no_turn_from_the_next_of_its_class() -> None:
    line = Line()
    join(line, *[Place("a", NORMAL)] * 10)
    for _ in range(20):
        join(line, Place("b", LOW))
        line.leave(next(reversed(line.waiting)))
    join(line, Place("b", LOW))
    assert pops(line, 5) == ["a1"] * 4 + ["b2"]


def test_a_start_that_came_to_nothing_is_first_again_and_costs_no_turn() -> None:
    line = Line()
    for item, key_id in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        line.join(item, Place(key_id), 5)
    failed = line.pop()
    line.join_first(failed, Place("a"), 1)
    assert next(iter(line.waiting)) == failed
    assert [line.pop() for _ in range(4)] == ["a1", "b1", "a2", "b2"]


def test_who_left_is_no_longer_there() -> None:
    line = Line()
    join(line, Place("a"), Place("b"))
    line.leave("a1-0")
    line.leave("never there")
    assert pops(line, 1) == ["b1"]
    assert line.clear() == []


def test_everybody_who_waited_is_handed_back_in_the_order_of_joining() -> None:
    line = Line()
    join(line, Place("b"), Place("a", LOW), Place("b", HIGH))
    assert line.clear() == ["b1-0", "a2-1", "b0-2"]
    assert not line.waiting
    join(line, Place("a"))
    assert pops(line, 1) == ["a1"]


# --- a full line ------------------------------------------------------------------------------


def test_urgent_requests_of_a_key_push_out_its_own_lesser_ones_first() -> None:
    line = Line()
    join(line, *[Place("a", LOW)] * 2, Place("a", NORMAL), *[Place("b", LOW)] * 9)
    assert line.gives_way(Place("a", HIGH)) == "a2-1"
    assert line.gives_way(Place("a", NORMAL)) == "a2-1"
    assert line.gives_way(Place("a", LOW)) == "b2-11"
    assert line.gives_way(Place("b", LOW)) is None


def test_nobody_gives_way_in_an_empty_line_nor_for_one_who_has_as_much() -> None:
    line = Line()
    assert line.gives_way(Place("a")) is None
    join(line, Place("a"), Place("b"))
    assert line.gives_way(Place("a")) is None
    assert line.gives_way(Place("c")) is None


@given(arrivals=st.lists(st.sampled_from(KEYS), max_size=60), limit=st.integers(1, 12))
def test_a_full_line_is_shared_by_those_who_want_it(arrivals: list[str], limit: int) -> None:
    line = Line()
    for number, key_id in enumerate(arrivals):
        if len(line.waiting) >= limit:
            evicted = line.gives_way(Place(key_id))
            if evicted is None:
                continue
            line.leave(evicted)
        line.join(f"{key_id}{number}", Place(key_id), number)
    assert len(line.waiting) == min(limit, len(arrivals))
    held = Counter(item[0] for item in line.waiting)
    for key_id in set(arrivals):
        fair = min(arrivals.count(key_id), limit // len(set(arrivals)))
        assert held[key_id] >= fair


# --- any sequence of events -------------------------------------------------------------------


class Rivals:
    """How far apart two that wait have come, in strides, since both began to wait."""

    def __init__(self) -> None:
        self.apart = self.low = self.high = 0

    def served(self, strides: int) -> None:
        self.apart += strides
        self.low, self.high = min(self.low, self.apart), max(self.high, self.apart)

    @property
    def spread(self) -> int:
        """The most by which one got more than the other in any interval."""
        return self.high - self.low


EVENTS = st.lists(
    st.tuples(st.just("join"), st.sampled_from(PLACES))
    | st.tuples(st.sampled_from(["pop", "leave"]), st.integers(0, 99)),
    max_size=150,
)


def play(events: Sequence[tuple[str, Place | int]]) -> tuple[dict[Place, list[str]], list[tuple[str, Place]]]:
    """Plays the events and checks every step; returns what still waits, and what was served."""
    line = Line()
    waiting: dict[Place, list[str]] = {place: [] for place in PLACES}
    served: list[tuple[str, Place]] = []
    classes = {pair: Rivals() for pair in combinations(Priority, 2)}
    keys = {pair: Rivals() for pair in combinations(PLACES, 2) if pair[0].priority == pair[1].priority}

    def of_class(priority: Priority) -> list[str]:
        return [item for place, items in waiting.items() if place.priority == priority for item in items]

    for number, (event, subject) in enumerate(events):
        everybody = [(item, place) for place, items in waiting.items() for item in items]
        if isinstance(subject, Place):
            line.join(str(number), subject, number)
            waiting[subject].append(str(number))
        elif everybody and event == "leave":
            item, place = everybody[subject % len(everybody)]
            line.leave(item)
            waiting[place].remove(item)
        elif everybody:
            rivals = [pair for pair in classes if of_class(pair[0]) and of_class(pair[1])]
            partners = [pair for pair in keys if waiting[pair[0]] and waiting[pair[1]]]
            item = line.pop()
            place = next(place for place, items in waiting.items() if item in items)
            assert waiting[place].pop(0) == item, "first in, first out within a key and priority"
            served.append((item, place))
            for pair in rivals:
                for sign, priority in zip((1, -1), pair, strict=True):
                    classes[pair].served(sign * STRIDES[priority] * (place.priority == priority))
                assert classes[pair].spread <= STRIDES[pair[0]] + STRIDES[pair[1]]
            for both in partners:
                keys[both].served((place == both[0]) - (place == both[1]))
                assert keys[both].spread <= 1
        classes |= {pair: Rivals() for pair in classes if not (of_class(pair[0]) and of_class(pair[1]))}
        keys |= {pair: Rivals() for pair in keys if not (waiting[pair[0]] and waiting[pair[1]])}
        assert list(line.waiting) == sorted((item for items in waiting.values() for item in items), key=int)
    return waiting, served


@given(events=EVENTS)
@hypothesis_settings(max_examples=300, deadline=None)
def test_shares_keep_to_the_weights_keys_take_turns_and_nobody_is_lost(
    events: list[tuple[str, Place | int]],
) -> None:
    play(events)


@given(backlog=st.lists(st.sampled_from(PLACES), min_size=1, max_size=60))
@hypothesis_settings(max_examples=200, deadline=None)
def test_all_of_a_backlog_is_served_and_the_lowest_priority_does_not_starve(backlog: list[Place]) -> None:
    waiting, served = play([("join", place) for place in backlog] + [("pop", 0)] * len(backlog))
    assert not any(waiting.values())
    assert sorted(served) == sorted((str(number), place) for number, place in enumerate(backlog))
    positions = [position for position, (_, place) in enumerate(served) if place.priority is LOW]
    for place_in_class, position in enumerate(positions):
        assert position < 21 * (place_in_class + 1)


@given(events=st.lists(st.sampled_from(["join", "pop"]), max_size=100))
def test_with_one_key_and_priority_it_is_first_in_first_out(events: list[str]) -> None:
    line = Line()
    plain: list[str] = []
    for number, event in enumerate(events):
        if event == "join":
            line.join(str(number), Place("a"), number)
            plain.append(str(number))
        elif plain:
            assert line.pop() == plain.pop(0)
    assert list(line.waiting) == plain
