"""Turns: one organization's further work waits for its own, and nobody else's."""

import asyncio

import pytest

from penstock_api.domain.problems import Problem
from penstock_api.handlers.turns import Turns
from tests_support import eventually


async def test_of_one_organization_so_many_go_on_and_others_are_not_held_up() -> None:
    turns, going, let_go = Turns(2), list[str](), asyncio.Event()

    async def work(organization: str) -> None:
        async with turns.of(organization):
            going.append(organization)
            await let_go.wait()

    tasks = [asyncio.create_task(work("a")) for _ in range(5)]
    await eventually(lambda: len(going) == 2)
    tasks.append(asyncio.create_task(work("b")))
    await eventually(lambda: going == ["a", "a", "b"])

    tasks[4].cancel()
    let_go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(going) == ["a"] * 4 + ["b"]
    assert (turns._users, turns._semaphores) == ({}, {})


async def test_a_turn_that_does_not_come_is_a_problem_with_its_mend() -> None:
    turns = Turns(1, wait_s_max=0.01)

    async with turns.of("a"):
        with pytest.raises(Problem, match="1 sources of your organization") as refused:
            async with turns.of("a"):
                pass

    assert (refused.value.kind.status, refused.value.retry_after_s) == (503, 5)
    async with turns.of("a"):
        pass
