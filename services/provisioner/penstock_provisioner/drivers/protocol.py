"""What the reconciler asks of a driver, whatever a replica is made of."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

from penstock_common.contracts.events import EndCause
from penstock_common.contracts.records import Assignment
from penstock_provisioner.domain import Exit, Instance

Progress = Callable[[Literal["fetching", "installing"], str], Awaitable[None]]
"""Told when a phase of preparing begins, with a detail for people; waited for before it begins."""


class PrepareFailed(Exception):
    """What a replica needs cannot be had. The message names the reason and the mend."""

    def __init__(self, cause: EndCause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


class StartFailed(Exception):
    """The machine refused to start it. The message names the reason."""


class Driver(Protocol):
    """Runs replicas. Every method may be called again after a crash of the provisioner in its middle.

    A driver keeps no state in memory that it could not find again: what it needs to know about a
    replica that runs is in the `Instance` that `start` returned, or on the replica itself.
    """

    name: str

    async def prepare(self, assignment: Assignment, progress: Progress) -> None:
        """Bring everything the replica needs onto this host. Raises PrepareFailed."""

    async def start(self, assignment: Assignment) -> Instance:
        """Start it, after `prepare`; it may not be ready yet. Raises StartFailed."""

    async def inspect(self, replica_id: str, instance: Instance) -> Exit | None:
        """How it ended, or None while it runs."""

    async def wait(self, replica_id: str, instance: Instance) -> Exit:
        """How it ended, once it has."""

    async def stop(self, replica_id: str, instance: Instance | None, grace_s: float) -> bool:
        """End whatever runs of it, asking first unless `grace_s` is 0, and remove all but its output.

        Without an instance, all that bears its id is ended. Returns whether force was needed; when it
        returns, nothing of the replica runs. Doing so again changes nothing.
        """

    def logs(self, replica_id: str) -> Path:
        """The file that its output is appended to; there may be none yet."""

    async def list(self) -> Mapping[str, Instance]:
        """Everything of this host that runs now, by replica id, whether or not anybody knows of it."""
