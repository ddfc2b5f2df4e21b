"""Waiting for something to become true, with a deadline instead of a sleep."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

_INTERVAL_S = 0.02


async def eventually(probe: Callable[[], object], deadline_s: float = 10) -> Any:
    """What `probe` returns once it is truthy. An AssertionError in it counts as not yet.

    Raises the last AssertionError, or one that names the probe, when the deadline passes.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        failure: AssertionError | None = None
        try:
            outcome = probe()
            value = await outcome if inspect.isawaitable(outcome) else outcome
            if value:
                return value
        except AssertionError as error:
            failure = error
        if loop.time() > end:
            raise failure or AssertionError(f"not within {deadline_s:g} s: {inspect.getsource(probe).strip()}")
        await asyncio.sleep(_INTERVAL_S)
