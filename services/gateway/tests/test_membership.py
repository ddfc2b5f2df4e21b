"""Who owns an endpoint, and how long that is certain."""

import random
from collections import Counter, deque
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_common.contracts.gateways import GatewayHeartbeat
from penstock_gateway.proxy.sharing.membership import ASK_S, JOIN_S, LIVE_S, STALL_S, Membership, owner_of

ENDPOINTS = [f"ep_{number}" for number in range(300)]
IDS = st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=1, max_size=8)


# --- ownership --------------------------------------------------------------------------------


@given(IDS, st.randoms(use_true_random=False))
def test_all_who_know_of_the_same_gateways_agree(gateways: set[str], shuffling: random.Random) -> None:
    shuffled = list(gateways)
    shuffling.shuffle(shuffled)
    for endpoint_id in ENDPOINTS[:20]:
        assert owner_of(endpoint_id, shuffled) == owner_of(endpoint_id, sorted(gateways))


@given(IDS, st.text("abcdef0123456789", min_size=9, max_size=9))
def test_a_gateway_that_comes_moves_only_what_it_gains(gateways: set[str], newcomer: str) -> None:
    for endpoint_id in ENDPOINTS[:50]:
        before, after = owner_of(endpoint_id, gateways), owner_of(endpoint_id, gateways | {newcomer})
        assert after in {before, newcomer}


def test_endpoints_are_spread_evenly_and_nobody_owns_what_there_is_nobody_for() -> None:
    owners = Counter(owner_of(endpoint_id, ("a", "b", "c")) for endpoint_id in ENDPOINTS)
    assert min(owners.values()) > 70
    assert owner_of("ep_1", ()) is None


# --- timelines --------------------------------------------------------------------------------


def say(one: Membership, now_s: float, busy: dict[str, dict[str, int]] | None = None) -> GatewayHeartbeat:
    return GatewayHeartbeat(
        gateway_id=one.gateway_id,
        address="127.0.0.1:1",
        proof="",
        sequence=one.beat(now_s),
        heard=one.heard(now_s),
        members=tuple(one.members(now_s)),
        busy=busy or {},
        joining=one.joining(now_s),
        leaving=one.leaving,
    )


def talk(now_s: float, *all_of_them: Membership) -> None:
    """Everybody looks, and tells everybody."""
    for one in all_of_them:
        one.look(now_s)
        said = say(one, now_s)
        for other in all_of_them:
            other.hear(said, now_s)


def acquainted(*names: str) -> list[Membership]:
    """Gateways that all know of each other, at second 0."""
    found = [Membership(name, -10) for name in names]
    at_s = -10.0
    while at_s <= 0:
        talk(at_s, *found)
        at_s += 0.5
    return found


def test_alone_a_gateway_owns_everything_once_it_has_listened() -> None:
    alone = Membership("a", 0)
    for step in range(int(JOIN_S * 10) + 1):
        alone.look(step / 10)
    assert (alone.members(JOIN_S - 0.1), alone.lease_until_s(JOIN_S - 0.1) < 0) == (frozenset(), True)
    assert alone.members(JOIN_S) == {"a"}
    assert alone.lease_until_s(JOIN_S) == float("inf")


def test_a_newcomer_takes_part_once_it_has_listened_and_the_others_never_stop() -> None:
    one, two = acquainted("a", "b")
    third = Membership("c", 0)
    for step in range(1, 40):
        now_s = step / 10
        talk(now_s, one, two, third)
        assert one.lease_until_s(now_s) > now_s
        assert two.lease_until_s(now_s) > now_s
        # By the second round after it listened, all agree.
        if now_s < JOIN_S:
            assert one.members(now_s) == {"a", "b"}
        if now_s > JOIN_S + 0.2:
            assert one.members(now_s) == two.members(now_s) == third.members(now_s) == {"a", "b", "c"}
            assert third.lease_until_s(now_s) > now_s


def test_a_silent_gateway_is_asked_then_taken_for_dead_and_the_last_one_owns_all() -> None:
    one, two = acquainted("a", "b")
    for step in range(int(LIVE_S * 10) + 2):
        one.look(step / 10)
        say(one, step / 10)
    assert one.to_ask(ASK_S - 0.01) == {}
    assert one.to_ask(ASK_S) == {"b": "127.0.0.1:1"}
    assert one.members(LIVE_S - 0.01) == {"a", "b"}
    assert one.members(LIVE_S) == {"a"}
    assert one.lease_until_s(LIVE_S) == float("inf")
    assert two.gateway_id == "b"


def test_who_refuses_connections_is_dead_at_once() -> None:
    one, _ = acquainted("a", "b")
    one.lost("b")
    assert one.members(0) == {"a"}


def test_a_lease_ends_before_the_follower_begins() -> None:
    one, two = acquainted("a", "b")
    # From here on nothing of `one` arrives; it hears `two` as ever.
    for step in range(1, 60):
        now_s = step / 20
        one.look(now_s)
        two.look(now_s)
        say(one, now_s)
        one.hear(say(two, now_s), now_s)
        if two.members(now_s) == {"b"}:
            assert one.lease_until_s(now_s) <= now_s
    assert two.members(now_s) == {"b"}
    # It hears that it is not counted, and owns nothing until it is.
    assert one.lease_until_s(now_s) < 0


def test_one_that_stood_still_joins_again() -> None:
    one, two = acquainted("a", "b")
    wakes_s = STALL_S + 5
    one.look(wakes_s)
    assert one.joining(wakes_s)
    assert one.lease_until_s(wakes_s) < 0
    two.look(wakes_s)
    two.join(-10)
    said = say(one, wakes_s)
    two.hear(said, wakes_s)
    assert "a" not in two.members(wakes_s)


def test_one_that_leaves_owns_nothing_unless_there_is_nobody_else() -> None:
    one, two = acquainted("a", "b")
    one.leaving = True
    assert one.members(0) == {"b"}
    talk(0.1, one, two)
    assert two.members(0.1) == {"b"}
    assert two.lease_until_s(0.1) == float("inf")
    one.lost("b")
    assert one.members(0.1) == {"a"}


def test_what_is_busy_elsewhere_is_added_up_while_its_gateway_lives() -> None:
    one, two, three = acquainted("a", "b", "c")
    one.hear(say(two, 0.1, {"ep_1": {"r": 1, "s": 2}}), 0.1)
    one.hear(say(three, 0.2, {"ep_1": {"r": 1}, "ep_2": {"t": 1}}), 0.2)
    assert one.busy(0.2) == {"ep_1": {"r": 2, "s": 2}, "ep_2": {"t": 1}}
    assert one.busy(0.1 + LIVE_S) == {"ep_1": {"r": 1}, "ep_2": {"t": 1}}


def test_an_older_heartbeat_that_arrives_late_is_not_heard() -> None:
    one, two = acquainted("a", "b")
    early, late = say(two, 0.1, {"ep_1": {"r": 1}}), say(two, 0.2)
    one.hear(late, 0.3)
    one.hear(early, 0.4)
    assert one.busy(0.4) == {}


# --- any history ------------------------------------------------------------------------------

STEP_S = 0.05


class World:
    """Gateways that come, stand still and die, and messages that take up to 0.3 s, or are lost now and then: never
    two in a row, and none that a newcomer has to hear."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now_s = 0.0
        self.all: dict[str, Membership] = {}
        self.still_until_s: dict[str, float] = {}
        self.on_the_way: deque[tuple[float, str, GatewayHeartbeat]] = deque()
        self.made = 0
        self.lost: set[tuple[str, str]] = set()

    def come(self) -> None:
        self.made += 1
        self.all[f"gw-{self.made}"] = Membership(f"gw-{self.made}", self.now_s)

    def awake(self) -> list[Membership]:
        return [one for name, one in self.all.items() if self.still_until_s.get(name, 0) <= self.now_s]

    def step(self, beat: bool) -> None:
        self.now_s += STEP_S
        awake = {one.gateway_id for one in self.awake()}
        for name in awake:
            self.all[name].look(self.now_s)
        waiting: deque[tuple[float, str, GatewayHeartbeat]] = deque()
        for due_s, name, said in self.on_the_way:
            if name in awake and due_s <= self.now_s:
                self.all[name].hear(said, self.now_s)
            elif name in self.all:
                waiting.append((due_s, name, said))
        self.on_the_way = waiting
        if beat:
            for name in awake:
                said = say(self.all[name], self.now_s)
                for other in self.all.keys() - {name}:
                    if not self.loses(name, other):
                        self.on_the_way.append((self.now_s + self.chance.uniform(0, 0.3), other, said))

    def loses(self, name: str, other: str) -> bool:
        if (name, other) in self.lost or any(one.joining(self.now_s) for one in self.all.values()):
            self.lost.discard((name, other))
            return False
        if self.chance.random() < 0.05:
            self.lost.add((name, other))
        return (name, other) in self.lost

    def may_start(self, endpoint_id: str) -> list[str]:
        """Who would start a request of the endpoint now, with what it knew when it last looked."""
        return [
            one.gateway_id
            for one in self.awake()
            if self.now_s < one.lease_until_s(self.now_s)
            and owner_of(endpoint_id, one.members(self.now_s)) == one.gateway_id
        ]


@pytest.mark.parametrize("seed", range(30))
def test_no_two_gateways_ever_start_requests_of_one_endpoint(seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance)
    world.come()
    started = 0
    for step in range(600):
        what = chance.random()
        if what < 0.008 and len(world.all) < 4:
            world.come()
        elif what < 0.014 and len(world.all) > 1:
            name = chance.choice(sorted(world.all))
            world.still_until_s[name] = world.now_s + chance.uniform(0.1, 6)
        elif what < 0.018 and len(world.all) > 1:
            del world.all[chance.choice(sorted(world.all))]
        world.step(step % 10 == 0)
        for endpoint_id in ENDPOINTS[:6]:
            able = world.may_start(endpoint_id)
            assert len(able) <= 1, (world.now_s, able)
            started += len(able)
    assert started > 0


@pytest.mark.parametrize("count", [2, 3])
def test_while_all_is_well_each_endpoint_always_has_exactly_one_owner(count: int) -> None:
    found = acquainted(*"abc"[:count])
    for step in range(1, 100):
        now_s = step / 10
        if step % 5 == 0:
            talk(now_s, *found)
        else:
            for one in found:
                one.look(now_s)
        for one, other in combinations(found, 2):
            assert one.members(now_s) == other.members(now_s)
        assert all(one.lease_until_s(now_s) > now_s for one in found)
