"""What to do so that the host runs exactly what it was assigned. Pure: no clock, no I/O.

An assignment must be gone for a moment before its replica is stopped: the snapshot after a
reconnection replaces all that was known, and one that came in pieces would end everything at once.
Forgetting is counted in heartbeats that were sent: a final report is repeated in a few of them, so
that the scheduler has surely heard of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock_common.contracts.records import Assignment
from penstock_provisioner.domain import Replica

STOP_AFTER_ABSENT_S = 0.25
FORGET_AFTER_BEATS = 5


@dataclass(frozen=True, slots=True)
class Known:
    """A replica of this host as the reconciler has it."""

    replica: Replica
    stopping: bool = False
    """Whether its stop is under way."""
    absent_s: float = 0.0
    """For how long its assignment has been gone."""
    beats: int = 0
    """Heartbeats sent since it was final and its assignment gone."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Run this assignment."""

    assignment: Assignment
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End this replica and clean up after it."""

    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop what is still kept about this replica."""

    replica_id: str
    reason: str


Action = Begin | Stop | Forget


def plan(host_id: str, wanted: Iterable[Assignment] | None, known: Mapping[str, Known]) -> tuple[Action, ...]:
    """The actions that lead from what is known to what is wanted.

    `wanted` is None while there is no whole snapshot of the assignments: then nothing is done, as
    not knowing what is wanted is no reason to stop anything.
    """
    if wanted is None:
        return ()
    assigned = {assignment.replica_id: assignment for assignment in wanted if assignment.host_id == host_id}
    begins: list[Action] = [
        Begin(assignment, "assigned to this host")
        for replica_id, assignment in assigned.items()
        if replica_id not in known
    ]
    gone = [(replica_id, known[replica_id]) for replica_id in known if replica_id not in assigned]
    return (*(action for replica_id, one in gone for action in _on_gone(replica_id, one)), *begins)


def is_waiting_to_be_forgotten(assigned: bool, one: Known) -> bool:
    """Whether heartbeats count towards forgetting this replica."""
    return not assigned and one.replica.is_final


def _on_gone(replica_id: str, one: Known) -> tuple[Action, ...]:
    if one.replica.is_final:
        if one.beats >= FORGET_AFTER_BEATS:
            return (Forget(replica_id, f"its end was in {one.beats} heartbeats"),)
        return ()
    if one.stopping or one.absent_s < STOP_AFTER_ABSENT_S:
        return ()
    return (Stop(replica_id, "no longer assigned to this host"),)
