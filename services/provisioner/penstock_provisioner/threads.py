"""Blocking work on files, in a thread that is always waited for."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread. Cancelled, it still waits for the thread, which cannot be stopped: whoever
    cleans up after us must not meet it at work."""
    working = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        with contextlib.suppress(asyncio.CancelledError):
            await settled(working)
        raise


async def settled(working: "asyncio.Future[Any]") -> None:
    """Wait for its end, however often we are cancelled meanwhile; whether it failed is not our concern."""
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError as again:
            cancelled = again
    if not working.cancelled():
        working.exception()
    if cancelled is not None:
        raise cancelled
