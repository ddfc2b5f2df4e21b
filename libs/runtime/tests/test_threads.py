"""Slots bound the work on the model, and threads do it."""

import asyncio
import threading

import pytest

from penstock_runtime import threads
from penstock_runtime.problems import Problem
from penstock_runtime.threads import Slots, Threads
from tests_support import eventually


async def test_who_comes_later_waits_and_is_served_in_order() -> None:
    slots = Slots(1)
    first = await slots.take()
    served: list[str] = []

    async def take(name: str) -> None:
        slot = await slots.take()
        served.append(name)
        slot.release()

    waiting = [asyncio.create_task(take(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert served == []
    first.release()
    await asyncio.gather(*waiting)
    assert served == ["a", "b", "c"]


async def test_a_slot_is_free_only_when_all_its_holders_have_let_go() -> None:
    slots = Slots(1)
    slot = await slots.take()
    slot.hold()
    slot.release()
    assert slots.take_now() is None
    slot.release()
    assert slots.take_now() is not None


async def test_who_leaves_the_line_gives_its_place_to_the_next() -> None:
    slots = Slots(1)
    first = await slots.take()
    leaver, stayer = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    first.release()
    assert await stayer
    assert leaver.cancelled()


async def test_a_slot_that_comes_in_the_moment_of_leaving_goes_to_the_next() -> None:
    slots = Slots(1)
    first = await slots.take()
    leaver = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    first.release()
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert slots.take_now() is not None


async def test_a_line_that_is_full_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITING_MAX", 1)
    slots = Slots(1)
    first = await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    with pytest.raises(Problem) as caught:
        await slots.take()
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert caught.value.headers == (("retry-after", "1"),)
    first.release()
    assert await waiting


async def test_threads_are_started_when_needed_and_used_again() -> None:
    pool = Threads()
    names: list[str] = []
    release = threading.Event()

    def job() -> None:
        names.append(threading.current_thread().name)
        release.wait(10)

    pool.run(job)
    pool.run(job)
    await eventually(lambda: len(names) == 2)
    release.set()
    pool.finished()
    pool.run(job)
    await eventually(lambda: len(names) == 3)
    assert len(set(names)) == 2
