"""Waiting for the kernel without a thread and without asking again and again."""

import asyncio
import os


async def readable(descriptor: int) -> None:
    """Return once `descriptor` can be read; of a process's descriptor (pidfd), once the process has ended."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)


async def child_ended(pid: int) -> None:
    """Return once our child has ended. It is not reaped, so its number stays its own."""
    descriptor = os.pidfd_open(pid)
    try:
        await readable(descriptor)
    finally:
        os.close(descriptor)
