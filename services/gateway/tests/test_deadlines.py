"""Deadlines on one timer."""

import asyncio
from time import monotonic

import pytest

from penstock_gateway.proxy.deadlines import NEVER_S, Deadlines
from tests_support import eventually

STEP_S = 0.01


class Item:
    def __init__(self) -> None:
        self.looked_at_s = NEVER_S
        self.at_s = NEVER_S
        self.fired: list[float] = []

    def on_deadline(self, now_s: float) -> float:
        if now_s < self.at_s:
            return self.at_s
        self.fired.append(now_s)
        return NEVER_S


class FakeLoop:
    """Keeps the timers that are asked for, and no time."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def call_later(self, delay_s: float, callback: object) -> "FakeTimer":
        timer = FakeTimer()
        self.timers.append(timer)
        return timer

    @property
    def open(self) -> int:
        return sum(not timer.cancelled for timer in self.timers)


class FakeTimer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def test_nothing_to_watch_takes_no_timer_and_much_to_watch_takes_one() -> None:
    loop = FakeLoop()
    deadlines = Deadlines(loop)  # type: ignore[arg-type]
    assert loop.open == 0
    for seconds in (30, 20, 40, 10, 10.5):
        deadlines.watch(Item(), monotonic() + seconds)
    assert loop.open == 1
    deadlines.stop()
    assert loop.open == 0


def test_a_later_time_changes_nothing_and_never_is_not_watched() -> None:
    loop = FakeLoop()
    deadlines = Deadlines(loop)  # type: ignore[arg-type]
    item = Item()
    deadlines.watch(item, NEVER_S)
    assert item.looked_at_s == NEVER_S
    deadlines.watch(item, 100)
    before = item.looked_at_s
    deadlines.watch(item, 200)
    assert item.looked_at_s == before
    deadlines.watch(item, 50)
    assert 50 < item.looked_at_s <= 51


async def test_each_item_is_called_after_its_time_and_not_before() -> None:
    deadlines = Deadlines(asyncio.get_running_loop(), step_s=STEP_S)
    items = []
    for index in range(20):
        item = Item()
        item.at_s = monotonic() + index * STEP_S / 2
        deadlines.watch(item, item.at_s)
        items.append(item)
    await eventually(lambda: all(item.fired for item in items))
    assert all(item.fired[0] >= item.at_s for item in items)
    deadlines.stop()


async def test_a_deadline_that_moved_on_is_looked_at_again() -> None:
    deadlines = Deadlines(asyncio.get_running_loop(), step_s=STEP_S)
    item = Item()
    item.at_s = monotonic() + 10 * STEP_S
    deadlines.watch(item, monotonic() + STEP_S)
    await eventually(lambda: item.fired)
    assert item.fired[0] >= item.at_s
    deadlines.stop()


async def test_a_forgotten_item_is_never_called() -> None:
    deadlines = Deadlines(asyncio.get_running_loop(), step_s=STEP_S)
    gone, here = Item(), Item()
    for item in (gone, here):
        item.at_s = monotonic() + STEP_S
        deadlines.watch(item, item.at_s)
    deadlines.forget(gone)
    await eventually(lambda: here.fired)
    assert gone.fired == []
    assert gone.looked_at_s == NEVER_S


@pytest.mark.parametrize("first", [True, False])
async def test_an_item_forgotten_by_another_in_the_same_moment_is_left_alone(first: bool) -> None:
    deadlines = Deadlines(asyncio.get_running_loop(), step_s=STEP_S)
    one, other = Item(), Item()

    class Forgetting(Item):
        def on_deadline(self, now_s: float) -> float:
            deadlines.forget(one)
            deadlines.forget(other)
            return super().on_deadline(now_s)

    forgetting = Forgetting()
    at_s = monotonic() + STEP_S
    forgetting.at_s = at_s
    for item in (forgetting, one, other) if first else (one, other, forgetting):
        deadlines.watch(item, at_s)
    await eventually(lambda: forgetting.fired)
    assert len(one.fired) + len(other.fired) == 0
    deadlines.stop()
