"""What users may ask of an endpoint, and how the scheduler's facts change what they see of it.

The scheduler owns the lifecycle. Here is a picture of it: facts carry a version, and one that is
older than what is known already changes nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from penstock_api.domain.problems import conflict
from penstock_common.contracts import events as facts
from penstock_common.contracts.endpoint import EndpointState

Action = Literal["stop", "restart", "terminate"]
Wanted = Literal["running", "stopped", "terminated"]
ReplicaStep = Literal["scheduled", "fetching", "installing", "starting", "ready", "ended"]
STATES: tuple[EndpointState, ...] = (
    "queued",
    "starting",
    "running",
    "idle",
    "stopping",
    "stopped",
    "failed",
    "terminating",
    "terminated",
)
_ALIVE: frozenset[EndpointState] = frozenset({"queued", "starting", "running", "idle"})
_STATE_AFTER: dict[type[facts.EndpointFact], EndpointState] = {
    facts.EndpointQueued: "queued",
    facts.EndpointStarting: "starting",
    facts.EndpointRunning: "running",
    facts.EndpointIdle: "idle",
    facts.EndpointStopping: "stopping",
    facts.EndpointStopped: "stopped",
    facts.EndpointFailed: "failed",
    facts.EndpointTerminating: "terminating",
    facts.EndpointTerminated: "terminated",
}
ENDPOINT_FACTS = tuple(_STATE_AFTER)
REPLICA_FACTS: tuple[type[facts.ReplicaFact], ...] = (
    facts.ReplicaScheduled,
    facts.ReplicaProgressed,
    facts.ReplicaStarted,
    facts.ReplicaEnded,
)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """What is known of an endpoint's life. `version` is that of the last fact applied."""

    state: EndpointState
    wanted: Wanted
    version: int = 0
    reason: str = ""
    position: int | None = None
    estimated_start_at: datetime | None = None
    started_at: datetime | None = None
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What is known of one replica. `version` is that of the last fact applied."""

    id: str
    endpoint_id: str
    host_id: str
    generation: int
    version: int
    phase: ReplicaStep
    detail: str = ""
    gpu_uuids: tuple[str, ...] = ()
    scheduled_at: datetime | None = None
    ready_at: datetime | None = None
    ended_at: datetime | None = None


def must_ask(action: Action, state: EndpointState, wanted: Wanted) -> bool:
    """Whether this request must be passed on; False when it was granted before.

    Raises Problem when the state forbids it, saying why and what to do instead.
    """
    if action == "terminate":
        return wanted != "terminated" and state not in ("terminating", "terminated")
    if state in ("terminating", "terminated") or wanted == "terminated":
        raise conflict(f"The endpoint is {state}, so it cannot {action}: create a new one from the same source.")
    if state == "failed":
        raise conflict(f"The endpoint has failed, so it cannot {action}: terminate it, then create it again.")
    if action == "stop":
        return wanted != "stopped" and state not in ("stopping", "stopped")
    if wanted == "running" and state not in ("stopping", "stopped"):
        return False
    if state != "stopped":
        raise conflict("The endpoint is still stopping: restart it once its state is stopped.")
    return True


def after_request(action: Action, status: EndpointStatus) -> EndpointStatus:
    """What users see until the scheduler answers a request that it must be asked."""
    if action == "restart":
        return replace(
            status, state="queued", wanted="running", reason="Restart requested.", position=None, log_tail=""
        )
    if action == "stop":
        return replace(status, state="stopping", wanted="stopped", reason="Stop requested.", position=None)
    return replace(status, state="terminating", wanted="terminated", reason="Termination requested.", position=None)


def state_said_by(fact: facts.EndpointFact) -> EndpointState:
    """The state that a fact says the endpoint is in."""
    return _STATE_AFTER[type(fact)]


def after_endpoint_fact(status: EndpointStatus, fact: facts.EndpointFact) -> EndpointStatus | None:
    """The status after `fact`, or None when something newer is known already."""
    if fact.version <= status.version:
        return None
    state = state_said_by(fact)
    seen = replace(
        status,
        version=fact.version,
        state=state,
        reason=fact.reason,
        position=None,
        estimated_start_at=None,
        log_tail=fact.log_tail if isinstance(fact, facts.EndpointFailed) else "",
    )
    if isinstance(fact, facts.EndpointQueued):
        seen = replace(seen, position=fact.position, estimated_start_at=fact.estimated_start_at)
    if state == "running" and status.state != "running":
        seen = replace(seen, started_at=fact.at)
    return _as_requested(seen)


def _as_requested(status: EndpointStatus) -> EndpointStatus:
    """A fact from before the scheduler saw the last request must not look as if it was refused."""
    if status.wanted == "stopped" and status.state in _ALIVE:
        return replace(status, state="stopping", reason="Stop requested.", position=None, estimated_start_at=None)
    if status.wanted == "terminated" and status.state != "terminated":
        return replace(status, state="terminating", reason="Termination requested.", position=None)
    return status


def after_replica_fact(known: ReplicaStatus | None, fact: facts.ReplicaFact) -> ReplicaStatus | None:
    """The replica after `fact`, or None when nothing about it changes."""
    if known is None:
        known = ReplicaStatus(
            id=fact.replica_id,
            endpoint_id=fact.endpoint_id,
            host_id=fact.host_id,
            generation=fact.generation,
            version=-1,
            phase="scheduled",
        )
    if fact.version <= known.version:
        return _with_late_schedule(known, fact)
    seen = replace(known, version=fact.version)
    match fact:
        case facts.ReplicaScheduled():
            return replace(seen, phase="scheduled", gpu_uuids=fact.gpu_uuids, scheduled_at=fact.at)
        case facts.ReplicaProgressed():
            return replace(seen, phase=_step(fact.phase), detail=fact.detail)
        case facts.ReplicaStarted():
            return replace(seen, phase="ready", detail="", ready_at=fact.at)
        case facts.ReplicaEnded():
            return replace(seen, phase="ended", detail=fact.detail or fact.cause, ended_at=fact.at)
        case _:
            return None


def _with_late_schedule(known: ReplicaStatus, fact: facts.ReplicaFact) -> ReplicaStatus | None:
    """Only the scheduling fact says which GPUs and since when; it counts however late it comes."""
    if isinstance(fact, facts.ReplicaScheduled) and known.scheduled_at is None:
        return replace(known, gpu_uuids=fact.gpu_uuids, scheduled_at=fact.at)
    return None


def _step(phase: facts.ReplicaPhase) -> ReplicaStep:
    if phase == "failed" or phase == "stopped":
        return "ended"
    return phase
