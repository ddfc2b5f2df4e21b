"""What a host knows of its replicas, and how that changes. Pure."""

from dataclasses import dataclass, replace
from typing import Literal

from penstock_common.contracts.events import EndCause, ReplicaPhase, ReplicaReported
from penstock_common.contracts.records import Assignment

FINAL_PHASES = frozenset({"failed", "stopped"})


@dataclass(frozen=True, slots=True)
class Instance:
    """A replica that was started: what its driver finds it by, and where it listens (`host:port`)."""

    id: str
    address: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a replica's process ended.

    `code` is as a shell gives it (128 + n for signal n), or None when nobody saw it end.
    `out_of_memory` says whether the kernel killed for lack of memory since the replica started;
    None where the kernel does not tell.
    """

    code: int | None
    out_of_memory: bool | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a replica ends, decided before it is cleaned up, so that a restart in between knows it."""

    phase: Literal["failed", "stopped"]
    cause: EndCause
    detail: str = ""
    exit_code: int | None = None
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica on this host. Everything here is on disk before anything is done because of it."""

    assignment: Assignment
    report: ReplicaReported | None = None
    """The last report; None before the first."""
    instance: Instance | None = None
    ending: Ending | None = None

    @property
    def id(self) -> str:
        return self.assignment.replica_id

    @property
    def phase(self) -> ReplicaPhase | None:
        return self.report.phase if self.report else None

    @property
    def is_final(self) -> bool:
        """Whether nothing of it runs any more, and that has been reported."""
        return self.phase in FINAL_PHASES

    def reported(self, phase: ReplicaPhase, detail: str = "", *, address: str | None = None) -> "Replica":
        """The replica one report later."""
        return replace(self, report=self._next_report(phase, detail).model_copy(update={"address": address}))

    def started(self, instance: Instance) -> "Replica":
        return replace(self, instance=instance)

    def ending_as(self, ending: Ending) -> "Replica":
        return replace(self, ending=ending)

    def ended(self, ending: Ending) -> "Replica":
        """The replica after its last report."""
        report = self._next_report(ending.phase, ending.detail).model_copy(
            update={"cause": ending.cause, "exit_code": ending.exit_code, "log_tail": ending.log_tail}
        )
        return replace(self, report=report, ending=ending, instance=None)

    def _next_report(self, phase: ReplicaPhase, detail: str) -> ReplicaReported:
        return ReplicaReported(
            host_id=self.assignment.host_id,
            replica_id=self.assignment.replica_id,
            endpoint_id=self.assignment.endpoint_id,
            generation=self.assignment.generation,
            sequence=self.report.sequence + 1 if self.report else 1,
            phase=phase,
            detail=detail,
        )
