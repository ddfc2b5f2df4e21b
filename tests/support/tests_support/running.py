"""A service inside a test: the real one, without signals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from penstock_common.service import Service

S = TypeVar("S")


@asynccontextmanager
async def running(service: Service[S]) -> AsyncIterator[Service[S]]:
    """Start it, and stop it at the end of the block whatever happens."""
    try:
        await service.start()
        yield service
    finally:
        await service.stop()
