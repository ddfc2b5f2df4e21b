"""What hosts say of their replicas, turned into transitions.

When a replica ended, with no trust in its host's clock:

1. When its host saw it: now, less the time that the report waited for somebody to handle it, less its age
   when it was sent; but no earlier than the host last said that the replica runs.
2. But if its host had been silent for `SILENT_AFTER` by then, though this scheduler ran all the time, then
   NATS or the host was away and the report itself came late: when the host last said that the replica
   runs. So, too, if it vanished, or if a heartbeat tells it after silence: nobody keeps heartbeats.
3. Never before the replica was ready, and never later than now.

Where only two moments are known and the end lies between, the earlier counts: a user pays for the time.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from penstock_common.contracts.events import (
    EndCause,
    ReplicaPhase,
    ReplicaProgressed,
    ReplicaReported,
    ReplicaStarted,
)
from penstock_scheduler.domain import WANTED_STATES, Deployment, Evidence, Outcome, Phase, Policy, Replica
from penstock_scheduler.lifecycle.ends import end_replica, show_running
from penstock_scheduler.lifecycle.story import Story

SILENT_AFTER = timedelta(seconds=6)
"""Three heartbeats that did not come."""

_STEPS: dict[ReplicaPhase, Phase] = {"fetching": "fetching", "installing": "installing", "starting": "starting"}


def report(before: Deployment, said: ReplicaReported, evidence: Evidence, now: datetime, policy: Policy) -> Outcome:
    """Apply a report. One that is not newer than the last, from another host or attempt, or about a
    replica that has ended, changes nothing.

    `evidence` is what is known of when it ended, if the report says that it did.
    """
    replica = before.replica(said.replica_id)
    if replica is None or not _is_about(replica, said) or said.sequence <= replica.sequence:
        return Outcome(before)
    story = Story(before, now, policy)
    heard = replace(replica, sequence=said.sequence)
    story.keep(heard)
    if said.phase in ("failed", "stopped"):
        _ended(story, heard, said, evidence)
    elif said.phase == "ready":
        _ready(story, heard, said)
    elif replica.phase != "ready":
        _progressed(story, heard, said)
    return story.outcome()


def _is_about(replica: Replica, said: ReplicaReported) -> bool:
    return replica.host_id == said.host_id and replica.generation == said.generation


def _ended(story: Story, replica: Replica, said: ReplicaReported, evidence: Evidence) -> None:
    if said.cause is not None:
        cause = said.cause
    elif said.phase == "stopped":
        cause = "stopped"
    else:
        cause = "crashed" if replica.ready_at is not None else "start_failed"
    at = _ended_at(replica, cause, evidence, story.now)
    end_replica(story, replica, cause, at, detail=said.detail, exit_code=said.exit_code, log_tail=said.log_tail)


def _ended_at(replica: Replica, cause: EndCause, evidence: Evidence, now: datetime) -> datetime:
    at = evidence.told_at
    silent = evidence.silence_counts and at - evidence.last_alive_at > SILENT_AFTER
    if silent or cause == "vanished":
        at = min(at, evidence.last_alive_at)
    return min(now, max(at, replica.ready_at or replica.scheduled_at))


def _ready(story: Story, replica: Replica, said: ReplicaReported) -> None:
    if replica.ready_at is not None:
        # A provisioner that started again may have found its replica elsewhere; it never stopped.
        story.keep(replace(replica, address=said.address or replica.address))
        return
    if replica.leaving or story.endpoint.state not in WANTED_STATES:
        return  # it became ready too late to be used, so it is neither routed to nor billed
    ready = replace(replica, phase="ready", detail=said.detail, address=said.address, ready_at=story.now)
    story.keep(ready)
    story.tell(
        ReplicaStarted,
        ready,
        story.now,
        gpu_type=ready.demand.gpu_type,
        gpu_count=ready.demand.gpu_count,
        cpu_cores=ready.demand.cpu_cores,
    )
    show_running(story)


def _progressed(story: Story, replica: Replica, said: ReplicaReported) -> None:
    if (replica.phase, replica.detail) == (said.phase, said.detail):
        return
    story.keep(replace(replica, phase=_STEPS[said.phase], detail=said.detail))
    if not replica.leaving:
        story.tell(ReplicaProgressed, replica, story.now, phase=said.phase, detail=said.detail)
