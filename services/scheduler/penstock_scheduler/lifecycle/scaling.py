"""How many replicas an endpoint aims for, as its autoscaler wishes or as others need the room."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from penstock_common.contracts.events import EndpointStarting
from penstock_common.contracts.questions import ScaleEndpoint
from penstock_scheduler.domain import SCALABLE_STATES, Deployment, GiveWay, Outcome, Policy, Replica
from penstock_scheduler.lifecycle.ends import let_go, show_running, sleep_if_empty
from penstock_scheduler.lifecycle.story import Story


@dataclass(frozen=True, slots=True)
class Scaled:
    """What became of a wish for replicas. One refused changes nothing, and says why."""

    outcome: Outcome
    refused: str = ""
    news: bool = False
    """Whether a plan could differ now."""


def scale(before: Deployment, wish: ScaleEndpoint, now: datetime, policy: Policy) -> Scaled:
    """Do as the autoscaler wishes, within what the endpoint's specification allows.

    The same wish again changes nothing. One made from an older route than the last that mattered is
    refused: what it says of replicas and of requests may be true no more.
    """
    endpoint = before.endpoint
    if endpoint.state not in SCALABLE_STATES:
        return Scaled(Outcome(before), f"the endpoint is {endpoint.state}: it has no replicas to scale")
    if wish.route_version < endpoint.route_version:
        return Scaled(
            Outcome(before),
            f"decided from version {wish.route_version} of the route, and it changed in {endpoint.route_version}:"
            " decide anew",
        )
    story = Story(before, now, policy)
    limits = before.definition.spec.scaling
    desired = min(max(wish.replicas, limits.min_replicas), limits.max_replicas)
    story.note(required_replicas=min(max(wish.minimum, limits.min_replicas), desired))
    _aim_for(story, desired, wish)
    for replica in story.live:
        if _has_finished(replica, wish):
            let_go(story, replica)
    _note_idle(story, wish.busy)
    if endpoint.state != "idle":
        sleep_if_empty(story)
    outcome = story.outcome()
    return Scaled(outcome, news=_is_news(before, outcome, now, policy))


def give_way(before: Deployment, given: GiveWay, now: datetime, policy: Policy) -> Outcome:
    """An idle replica ends for an endpoint that waits. This one aims for those that are left, and so comes
    after that one should it desire more."""
    replica = before.replica(given.replica_id)
    if replica is None or replica.leaving:
        return Outcome(before)
    story = Story(before, now, policy)
    _start_drain(story, replica, gives_way=True)
    story.note(desired_replicas=len(story.staying))
    story.scaled(given.reason)
    if story.ready_count or not story.staying:
        show_running(story)
    else:
        story.move(EndpointStarting, "starting", given.reason)
    return story.outcome()


def _aim_for(story: Story, desired: int, wish: ScaleEndpoint) -> None:
    """Bring back replicas that drain, or drain some; placing is left to planning."""
    earlier = story.endpoint.desired_replicas
    story.note(desired_replicas=desired)
    missing = desired - len(story.staying)
    brought_back = _brought_back(story.live, wish.busy)[: max(0, missing)]
    for replica in brought_back:
        story.keep(replace(replica, unassign_at=None, drain_version=None))
    for replica in _least_missed(story.staying, wish.busy)[: max(0, -missing)]:
        _start_drain(story, replica)
    if desired != earlier:
        story.scaled(wish.reason)
    if desired and not earlier and not story.staying:
        # It was asleep or on its way there: it comes after all who wait already.
        story.note(state="queued", reason="", requested_at=story.now, idle_since=None)
    elif brought_back or (desired != earlier and story.endpoint.state == "running"):
        show_running(story)


def _brought_back(live: Collection[Replica], busy: Collection[str]) -> list[Replica]:
    """Replicas that may be used again, those that work first, oldest first among equals."""
    found = [replica for replica in live if replica.draining and not replica.gives_way]
    return sorted(found, key=lambda replica: (replica.replica_id not in busy, replica.generation))


def _least_missed(staying: Collection[Replica], busy: Collection[str]) -> list[Replica]:
    """Replicas in the order in which they are taken away: those that work last, before them those that
    are ready, and the newest first among equals."""
    return sorted(
        staying, key=lambda replica: (replica.replica_id in busy, replica.phase == "ready", -replica.generation)
    )


def _start_drain(story: Story, replica: Replica, *, gives_way: bool = False) -> None:
    """From the route that comes of this on it gets no new requests. One that never got any just ends."""
    if not replica.routable:
        let_go(story, replica)
        return
    story.keep(
        replace(
            replica,
            unassign_at=story.now + story.policy.drain_limit,
            # The fact that tells of this comes next, and the route has its version at least.
            drain_version=story.endpoint.version + 1,
            gives_way=gives_way,
        )
    )


def _has_finished(replica: Replica, wish: ScaleEndpoint) -> bool:
    """Whether whoever wished knew that the replica drains, and saw no request there any more."""
    return (
        replica.draining
        and replica.drain_version is not None
        and replica.drain_version <= wish.route_version
        and replica.replica_id not in wish.busy
    )


def _note_idle(story: Story, busy: Collection[str]) -> None:
    """Remember who has no request, and since when that is known; not anew all the time."""
    endpoint = story.endpoint
    idle = tuple(sorted(each.replica_id for each in story.live if each.routable and each.replica_id not in busy))
    told_at = endpoint.idle_told_at
    known = told_at is not None and story.now - told_at < story.policy.idle_told_every
    if idle != endpoint.idle_replicas or (idle and not known):
        story.note(idle_replicas=idle, idle_told_at=story.now)


def _is_news(before: Deployment, outcome: Outcome, now: datetime, policy: Policy) -> bool:
    told_at = before.endpoint.idle_told_at
    if told_at is None or now - told_at > policy.idle_fresh:
        return outcome.deployment != before
    after = outcome.deployment
    return replace(after, endpoint=replace(after.endpoint, idle_told_at=told_at)) != before
