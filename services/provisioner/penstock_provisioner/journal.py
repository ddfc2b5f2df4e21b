"""What a host knows of its replicas, on disk: one `replica.json` in each replica's directory."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from penstock_provisioner.domain import Replica
from penstock_provisioner.files import remove_tree, write_atomically

log = logging.getLogger(__name__)

_REPLICA = TypeAdapter(Replica)
_FILE = "replica.json"


class DirectoryInUse(Exception):
    """Another provisioner works in this directory."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process alone; the lock ends with the process, however it ends.

    Nobody else may look into it: it holds customers' sources and logs.

    Raises DirectoryInUse when another has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DirectoryInUse(
                f"another provisioner (pid {holder}) works in {directory}: stop it, "
                "or give this one directories of its own with PENSTOCK_HOST_DIR and PENSTOCK_CACHE_DIR"
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Journal:
    """The replicas under `directory`, each in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def directory(self, replica_id: str) -> Path:
        """Where everything of this replica is kept; a driver puts its files there too."""
        return self._directory / replica_id

    def save(self, replica: Replica) -> None:
        """Write it down before acting on it."""
        directory = self.directory(replica.id)
        directory.mkdir(mode=0o700, exist_ok=True)
        write_atomically(directory / _FILE, _REPLICA.dump_json(replica))

    def load(self) -> tuple[list[Replica], list[str]]:
        """Every replica written down, and the ids of directories without a readable one."""
        replicas: list[Replica] = []
        unreadable: list[str] = []
        for directory in sorted(path for path in self._directory.iterdir() if path.is_dir()):
            try:
                replicas.append(_REPLICA.validate_json((directory / _FILE).read_bytes()))
            except (OSError, ValidationError, json.JSONDecodeError) as error:
                log.warning("a replica's state cannot be read", extra={"path": str(directory), "error": str(error)})
                unreadable.append(directory.name)
        return replicas, unreadable

    def forget(self, replica_id: str) -> None:
        """Remove the replica's directory and all in it."""
        remove_tree(self.directory(replica_id))
