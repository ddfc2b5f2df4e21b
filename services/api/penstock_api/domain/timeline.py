"""The history that users read: one entry for each request and each fact, in their words."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from penstock_api.domain.lifecycle import Action, state_said_by
from penstock_common.contracts import events as facts
from penstock_common.contracts.endpoint import EndpointState

Phase = Literal[
    "queued",
    "scheduled",
    "fetching source",
    "installing",
    "starting",
    "running",
    "idle",
    "stopping",
    "stopped",
    "failed",
    "terminating",
    "terminated",
]
_REPLICA_PHASES: dict[facts.ReplicaPhase, Phase] = {"fetching": "fetching source", "installing": "installing"}
_CAUSES: dict[facts.EndCause, str] = {
    "stopped": "was stopped",
    "crashed": "crashed",
    "start_failed": "could not start",
    "start_timeout": "took too long to start",
    "unresponsive": "no longer answered its health check",
    "out_of_memory": "ran out of memory",
    "source_unavailable": "could not fetch its source",
    "install_failed": "could not install its requirements",
    "vanished": "vanished from its host",
    "host_lost": "was lost with its host",
    "host_left": "ended because its host left",
}
_REQUESTS: dict[Action, tuple[str, Phase, str]] = {
    "stop": ("endpoint.stop_requested", "stopping", "Stop"),
    "restart": ("endpoint.restart_requested", "queued", "Restart"),
    "terminate": ("endpoint.terminate_requested", "terminating", "Termination"),
}
_ENDPOINT_WORDS: dict[EndpointState, str] = {
    "queued": "Waiting for room.",
    "starting": "A host has room; its replicas start.",
    "idle": "Scaled to zero: the next request starts a replica.",
    "stopping": "Its replicas finish what they have in hand and stop.",
    "stopped": "Stopped; it costs nothing until it is restarted.",
    "failed": "It cannot run.",
    "terminating": "Its replicas stop for good.",
    "terminated": "Terminated; its URL no longer exists.",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an endpoint's history."""

    at: datetime
    type: str
    phase: Phase
    message: str
    replica_id: str | None = None


def created(at: datetime, by: str) -> Entry:
    return Entry(at, "endpoint.requested", "queued", f"Creation requested by {by}.")


def requested(action: Action, at: datetime, by: str) -> Entry:
    kind, phase, word = _REQUESTS[action]
    return Entry(at, kind, phase, f"{word} requested by {by}.")


def of_endpoint_fact(fact: facts.EndpointFact, before: EndpointState) -> Entry:
    """`before` is the state that the endpoint was in."""
    state = state_said_by(fact) or before
    # A host was found only when it comes from where it had none; after a crash it may wait without one.
    found_room = state == "starting" and before in ("queued", "idle")
    return Entry(fact.at, _type_of(fact), "scheduled" if found_room else state, _endpoint_message(fact, state))


def of_replica_fact(fact: facts.ReplicaFact, state: EndpointState, others_ready: int) -> Entry:
    """`state` is the endpoint's: one that runs goes on running while further replicas come and go.

    `others_ready` counts its other replicas that are ready.
    """
    phase, message = _replica_words(fact, state)
    if state == "running":
        last_one_lost = isinstance(fact, facts.ReplicaEnded) and fact.cause != "stopped" and not others_ready
        phase = "starting" if last_one_lost else "running"
    return Entry(fact.at, _type_of(fact), phase, message, fact.replica_id)


def _endpoint_message(fact: facts.EndpointFact, state: EndpointState) -> str:
    match fact:
        case facts.EndpointQueued():
            return f"{fact.reason or _ENDPOINT_WORDS['queued']} (position {fact.position} in the queue)"
        case facts.EndpointRunning():
            replicas = "1 replica is" if fact.ready_replicas == 1 else f"{fact.ready_replicas} replicas are"
            return fact.reason or f"{replicas} ready for requests."
        case facts.EndpointScaled():
            wanted = "1 replica" if fact.desired_replicas == 1 else f"{fact.desired_replicas} replicas"
            return f"{wanted} wanted, {fact.ready_replicas} ready{f': {fact.reason}' if fact.reason else ''}."
        case _:
            return fact.reason or _ENDPOINT_WORDS[state]


def _replica_words(fact: facts.ReplicaFact, state: EndpointState) -> tuple[Phase, str]:
    match fact:
        case facts.ReplicaScheduled():
            on = f" with {len(fact.gpu_uuids)} × {fact.gpu_type}" if fact.gpu_uuids else ""
            return "scheduled", f"Replica {fact.generation} goes to host {fact.host_id}{on}."
        case facts.ReplicaProgressed():
            phase = _REPLICA_PHASES.get(fact.phase, "starting")
            return phase, fact.detail or f"Replica {fact.generation}: {phase}."
        case facts.ReplicaStarted():
            # "running" is said by the endpoint's own fact: from then on its URL answers.
            return "starting", f"Replica {fact.generation} is ready."
        case facts.ReplicaEnded():
            code = "" if fact.exit_code is None else f" (exit code {fact.exit_code})"
            detail = f": {fact.detail}" if fact.detail else "."
            return state, f"Replica {fact.generation} {_CAUSES[fact.cause]}{code}{detail}"
        case _:
            return state, ""


def _type_of(fact: facts.EndpointFact | facts.ReplicaFact) -> str:
    """`endpoint.queued` from `events.scheduler.endpoint.queued.v1`."""
    _, _, entity, name, _ = fact.message_type.split(".")
    return f"{entity}.{name}"
