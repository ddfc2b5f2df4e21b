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
_WITHOUT_REPLICAS: frozenset[EndpointState] = frozenset(STATES) - {"queued", "starting", "running"}
ENDPOINT_FACTS: tuple[type[facts.EndpointFact], ...] = (*_STATE_AFTER, facts.EndpointScaled)
REPLICA_FACTS: tuple[type[facts.ReplicaFact], ...] = (
    facts.ReplicaScheduled,
    facts.ReplicaProgressed,
    facts.ReplicaStarted,
    facts.ReplicaEnded,
)
SCALINGS_KEPT = 10
"""Decisions about the number of replicas that are shown."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """A decision about the number of replicas, with its reason."""

    at: datetime
    desired_replicas: int
    ready_replicas: int
    reason: str


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
    idle_since: datetime | None = None
    desired_replicas: int | None = None
    """None while the scheduler has not said: then it is the least that the state needs."""
    scaled_version: int = 0
    """Version of the last fact that said how many replicas are desired."""
    scalings: tuple[Scaling, ...] = ()
    """The last SCALINGS_KEPT decisions, oldest first."""


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
    if state == "running":
        raise conflict("The endpoint is running, so nothing was restarted: stop it first, and restart it once stopped.")
    if state == "stopping":
        raise conflict("The endpoint is still stopping: restart it once its state is stopped.")
    return state in ("stopped", "idle")


def after_request(action: Action, status: EndpointStatus) -> EndpointStatus:
    """What users see until the scheduler answers a request that it must be asked."""
    if action == "restart":
        return replace(
            status,
            state="queued",
            wanted="running",
            reason="Restart requested.",
            position=None,
            log_tail="",
            idle_since=None,
            desired_replicas=None,
        )
    if action == "stop":
        return _ending(replace(status, wanted="stopped"), "stopping", "Stop requested.")
    return _ending(replace(status, wanted="terminated"), "terminating", "Termination requested.")


def _ending(status: EndpointStatus, state: EndpointState, reason: str) -> EndpointStatus:
    return replace(
        status,
        state=state,
        reason=reason,
        position=None,
        estimated_start_at=None,
        idle_since=None,
        desired_replicas=None,
    )


def desired_replicas(status: EndpointStatus, min_replicas: int) -> int:
    """How many replicas the platform aims for now, as far as facts have told."""
    if status.desired_replicas is not None:
        return status.desired_replicas
    return 0 if status.state in _WITHOUT_REPLICAS else max(1, min_replicas)


def state_said_by(fact: facts.EndpointFact) -> EndpointState | None:
    """The state that a fact says the endpoint is in; None when it says nothing of that."""
    return _STATE_AFTER.get(type(fact))


def after_endpoint_fact(status: EndpointStatus, fact: facts.EndpointFact) -> EndpointStatus | None:
    """The status after `fact`, or None when something newer is known already."""
    if isinstance(fact, facts.EndpointScaled):
        return _after_scaling(status, fact)
    if fact.version <= status.version:
        return None
    state = _STATE_AFTER[type(fact)]
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
    seen = replace(seen, idle_since=(status.idle_since or fact.at) if state == "idle" else None)
    if state in _WITHOUT_REPLICAS and fact.version > status.scaled_version:
        seen = replace(seen, desired_replicas=None, scaled_version=fact.version)
    return _as_requested(seen)


def _after_scaling(status: EndpointStatus, fact: facts.EndpointScaled) -> EndpointStatus | None:
    """The state and its reason stay. `version` too: an older fact that comes late still tells the state."""
    if fact.version <= status.scaled_version:
        return None
    decision = Scaling(fact.at, fact.desired_replicas, fact.ready_replicas, fact.reason)
    return _as_requested(
        replace(
            status,
            desired_replicas=fact.desired_replicas,
            scaled_version=fact.version,
            scalings=(*status.scalings, decision)[-SCALINGS_KEPT:],
        )
    )


def _as_requested(status: EndpointStatus) -> EndpointStatus:
    """A fact from before the scheduler saw the last request must not look as if it was refused."""
    if status.wanted == "stopped" and status.state in _ALIVE:
        return _ending(status, "stopping", "Stop requested.")
    if status.wanted == "terminated" and status.state != "terminated":
        return _ending(status, "terminating", "Termination requested.")
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
