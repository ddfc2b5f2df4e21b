"""Every message twice and in any order ends in the state that the newest request asks for."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from penstock_common.contracts.events import ReplicaEnded, ReplicaStarted
from penstock_scheduler import handlers
from penstock_scheduler.domain import RequestKind

from .builders import received, report, requested, spec
from .world import REQUESTS, World, go

KINDS: tuple[RequestKind, ...] = ("stop", "restart", "terminate")


def hear(world: World, version: int) -> None:
    """The creation is version 1, then come a stop, a restart and a termination."""
    if version == 1:
        message: Any = received(requested("ep_1", spec(1)))
        go(handlers.endpoint_requested(message, world.store, context=world.context))
    else:
        kind = KINDS[version - 2]
        message = received(REQUESTS[kind](endpoint_id="ep_1", organization_id="org_a", version=version))
        go(handlers.endpoint_request(message, world.store, kind=kind, context=world.context))
    world.plan()


@pytest.mark.parametrize(("last", "expected"), [(1, "running"), (2, "stopped"), (3, "running"), (4, "terminated")])
def test_requests_in_any_order_end_where_the_newest_wants(last: int, expected: str) -> None:
    for order in permutations(range(1, last + 1)):
        world = World()
        world.join("host-a")
        for version in (*order, *reversed(order)):
            hear(world, version)
            world.ready("ep_1")
            world.advance(1)
            world.obey()
        world.advance(5)
        world.ready("ep_1")
        assert world.state("ep_1") == expected, order
        assert world.record("ep_1").request_version == last
        assert not world.store.early
        assert len(world.store.assignments) == (1 if expected == "running" else 0)


def reports(order: Sequence[int], final: str) -> World:
    world = World()
    world.join("host-a")
    world.create("ep_1", spec(1))
    placed = world.only("ep_1")
    told = {
        1: report(placed, 1, "fetching"),
        2: report(placed, 2, "installing"),
        3: report(placed, 3, "ready"),
        4: report(placed, 4, "failed", cause="crashed") if final == "failed" else report(placed, 4, "ready"),
    }
    for sequence in (*order, *order):
        world.hear_report(told[sequence])
    return world


def test_reports_in_any_order_end_with_the_last() -> None:
    for order in permutations((1, 2, 3, 4)):
        world = reports(order, "ready")
        assert world.state("ep_1") == "running"
        assert len(world.facts(ReplicaStarted)) == 1
        world = reports(order, "failed")
        assert world.state("ep_1") == "starting"
        [ended] = world.facts(ReplicaEnded)
        assert ended.was_ready == (order.index(3) < order.index(4))
        assert world.record("ep_1").crash_streak == 1
