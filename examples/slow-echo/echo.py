"""Sends back what it gets, after as long as the request says: a model of known speed."""

import asyncio
import time


def echo(message, seconds=0.1):
    """The message, after a pause in which this replica's thread is busy."""
    time.sleep(seconds)
    return {"message": message, "seconds": seconds}


async def echo_async(message, seconds=0.1):
    """The message, after a pause in which the event loop is free."""
    await asyncio.sleep(seconds)
    return {"message": message, "seconds": seconds}


def echo_stream(message, seconds=0.1, times=3):
    """The message several times, with a pause before each."""
    for number in range(1, times + 1):
        time.sleep(seconds)
        yield {"message": message, "number": number}
