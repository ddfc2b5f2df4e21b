"""Listening to what transactions notify: events and log lines that streams wait for."""

import asyncio
from collections.abc import Callable

import asyncpg

from penstock_api.store.endpoints import STREAMS_CHANNEL

CHECK_S = 15.0
CONNECT_TIMEOUT_S = 10.0


async def listen(database_url: str, on_topic: Callable[[str], None], on_connected: Callable[[], None]) -> None:
    """Call `on_topic` for each notification, on a connection of its own, until that breaks.

    `on_connected` is called once it listens: what was notified before it did not hear. Raises what
    broke the connection.
    """
    connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S)
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(STREAMS_CHANNEL, lambda *arguments: on_topic(str(arguments[3])))
        on_connected()
        while not lost.is_set():
            try:
                async with asyncio.timeout(CHECK_S):
                    await lost.wait()
            except TimeoutError:
                await connection.fetchval("select 1", timeout=CHECK_S)
        raise ConnectionError("the connection that listens was lost")
    finally:
        # A graceful close would wait on a server that may be gone.
        connection.terminate()
