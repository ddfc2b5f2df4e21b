"""What a plan decided, carried out. It chooses nothing: host, GPUs and generation are given."""

from dataclasses import replace
from datetime import datetime

from penstock_common.contracts.events import (
    EndpointQueued,
    EndpointStarting,
    EndpointTerminated,
    ReplicaScheduled,
)
from penstock_scheduler.domain import Deployment, Outcome, Place, Policy, Purge, Replica, Shortage, Unassign, Wait
from penstock_scheduler.lifecycle.ends import show_running
from penstock_scheduler.lifecycle.story import Story


def place(before: Deployment, placed: Place, replica_id: str, now: datetime, policy: Policy) -> Outcome:
    """A new replica, with its GPUs."""
    story = Story(before, now, policy)
    demand = before.endpoint.demand
    replica = Replica(
        replica_id=replica_id,
        endpoint_id=placed.endpoint_id,
        host_id=placed.host_id,
        generation=placed.generation,
        demand=demand,
        gpu_uuids=placed.gpu_uuids,
        phase="scheduled",
        scheduled_at=now,
    )
    story.keep(replica)
    story.note(generation=placed.generation, next_start_at=None)
    if not before.staying:
        attempt = before.endpoint.crash_streak + 1
        again = f", attempt {attempt} of {policy.crashes_until_failed}" if attempt > 1 else ""
        story.move(EndpointStarting, "starting", f"starting on {placed.host_id}{again}")
    story.tell(ReplicaScheduled, replica, now, gpu_type=demand.gpu_type, gpu_uuids=placed.gpu_uuids)
    return story.outcome()


def wait(before: Deployment, told: Wait, now: datetime, policy: Policy) -> Outcome:
    """The endpoint learns where it stands in the queue."""
    story = Story(before, now, policy)
    story.note(position=told.position, estimated_start_at=told.estimated_start_at, told_at=now, next_start_at=None)
    story.move(
        EndpointQueued,
        "queued",
        told.reason,
        position=told.position,
        estimated_start_at=told.estimated_start_at,
    )
    return story.outcome()


def unassign(before: Deployment, due: Unassign, now: datetime, policy: Policy) -> Outcome:
    """Its requests had time to finish: the host must stop it now."""
    story = Story(before, now, policy)
    replica = before.replica(due.replica_id)
    if replica is not None:
        story.keep(replace(replica, unassigned_at=now))
    return story.outcome()


def lack(before: Deployment, told: Shortage, now: datetime, policy: Policy) -> Outcome:
    """The endpoint learns what there is no room for, or that there is room again."""
    story = Story(before, now, policy)
    story.note(shortage=told.text)
    if story.endpoint.state == "running":
        show_running(story)
    return story.outcome()


def purge(before: Deployment, due: Purge, now: datetime, policy: Policy) -> Outcome:
    """Stopped for so long that nobody will miss it."""
    story = Story(before, now, policy)
    story.move(EndpointTerminated, "terminated", due.reason)
    return story.outcome()
