"""What users ask for, applied once and in the order of its versions."""

from dataclasses import replace
from datetime import datetime

from penstock_common.contracts.events import (
    EndpointRequested,
    EndpointStopped,
    EndpointStopping,
    EndpointTerminated,
    EndpointTerminating,
)
from penstock_scheduler.domain import (
    SCALABLE_STATES,
    Definition,
    Deployment,
    EarlyRequest,
    EndpointRecord,
    Outcome,
    Policy,
    RequestKind,
    demand_of,
)
from penstock_scheduler.lifecycle.ends import drain, queue_again
from penstock_scheduler.lifecycle.story import Story


def create(
    event: EndpointRequested, traceparent: str | None, early: EarlyRequest | None, now: datetime, policy: Policy
) -> Outcome:
    """A new endpoint, in the queue; or already where a newer request that overtook it wants it."""
    definition = Definition(
        endpoint_id=event.endpoint_id,
        organization_id=event.organization_id,
        workspace_id=event.workspace_id,
        workspace=event.workspace,
        slug=event.slug,
        spec=event.spec,
        source=event.source,
        traceparent=traceparent,
    )
    record = EndpointRecord(
        endpoint_id=event.endpoint_id,
        state="queued",
        demand=demand_of(event.spec),
        desired_replicas=max(1, event.spec.scaling.min_replicas),
        required_replicas=event.spec.scaling.min_replicas,
        requested_at=now,
        request_version=event.version,
    )
    created = Deployment(definition, record)
    if early is None:
        return Outcome(created)
    return request(created, early.kind, early.version, traceparent, now, policy)


def request(
    before: Deployment,
    kind: RequestKind,
    version: int,
    traceparent: str | None,
    now: datetime,
    policy: Policy,
) -> Outcome:
    """Stop, restart or terminate. A request older than the last one applied changes nothing, nor
    does one that the endpoint's state does not allow."""
    if version <= before.endpoint.request_version:
        return Outcome(before)
    story = Story(before, now, policy)
    story.note(request_version=version)
    if kind == "stop":
        _stop(story)
    elif kind == "restart":
        _restart(story, traceparent)
    else:
        _terminate(story)
    return story.outcome()


def _stop(story: Story) -> None:
    story.note(restart_wanted=False)
    if story.endpoint.state not in SCALABLE_STATES:
        return
    story.note(next_start_at=None, idle_since=None)
    if not story.live:
        story.move(EndpointStopped, "stopped", "stopped as requested")
        story.note(stopped_at=story.now)
        return
    drain(story)
    story.move(EndpointStopping, "stopping", "stopped as requested")


def _restart(story: Story, traceparent: str | None) -> None:
    if story.endpoint.state not in ("stopping", "stopped", "idle"):
        return
    story.definition = replace(story.definition, traceparent=traceparent)
    if story.endpoint.state == "stopping":
        story.note(restart_wanted=True)
    else:
        queue_again(story)


def _terminate(story: Story) -> None:
    if story.endpoint.state in ("terminating", "terminated"):
        return
    story.note(next_start_at=None, restart_wanted=False, idle_since=None)
    if not story.live:
        story.move(EndpointTerminated, "terminated", "terminated as requested")
        return
    drain(story)
    story.move(EndpointTerminating, "terminating", "terminated as requested")
