"""The routes and keys on disk: what a gateway starts with while NATS is away.

The file holds hashes of keys and no key, yet it says who may call what: only its owner may read it.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from penstock_common.contracts.base import Contract
from penstock_common.contracts.records import ApiKeyRecord, Route

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0


class Snapshot(Contract):
    """Everything the gateway needs to serve."""

    routes: tuple[Route, ...] = ()
    api_keys: tuple[ApiKeyRecord, ...] = ()


def load(path: Path) -> Snapshot | None:
    """What was saved, or None when there is nothing that can be read."""
    try:
        return Snapshot.model_validate_json(path.read_bytes(), extra="ignore")
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("the saved snapshot cannot be read", extra={"path": str(path), "error": repr(error)})
        return None


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the file in one step, readable by its owner only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(snapshot.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class SnapshotKeeper:
    """Saves after a change, at most once a second, away from the event loop."""

    def __init__(self, path: Path, collect: Callable[[], Snapshot]) -> None:
        self._path = path
        self._collect = collect
        self._changed = asyncio.Event()

    def mark(self) -> None:
        """Something changed."""
        self._changed.set()

    async def run(self) -> None:
        """Save for ever."""
        while True:
            await self._changed.wait()
            await self.flush()
            await asyncio.sleep(WRITE_EVERY_S)

    async def flush(self) -> None:
        """Save now, if anything changed. A disk that fails is logged: serving goes on without it."""
        if not self._changed.is_set():
            return
        self._changed.clear()
        try:
            await asyncio.to_thread(save, self._path, self._collect())
        except OSError as error:
            log.error("the snapshot cannot be saved", extra={"path": str(self._path), "error": repr(error)})
