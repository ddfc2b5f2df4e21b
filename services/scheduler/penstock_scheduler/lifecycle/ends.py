"""The end of replicas, and of endpoints: what each leads to."""

from dataclasses import replace
from datetime import datetime

from penstock_common.contracts.events import (
    EndCause,
    EndpointFailed,
    EndpointIdle,
    EndpointRunning,
    EndpointStarting,
    EndpointStopped,
    EndpointTerminated,
    ReplicaEnded,
)
from penstock_scheduler import reasons
from penstock_scheduler.domain import ONE_MACHINE_ENDS, WANTED_STATES, Deployment, EndReplica, Outcome, Policy, Replica
from penstock_scheduler.lifecycle.story import Story

LOG_TAIL_CHARS_MAX = 8192


def lose(before: Deployment, end: EndReplica, now: datetime, policy: Policy) -> Outcome:
    """A replica ended without its host saying so."""
    story = Story(before, now, policy)
    replica = before.replica(end.replica_id)
    if replica is not None:
        end_replica(story, replica, end.cause, end.at, detail=end.reason)
    return story.outcome()


def end_replica(
    story: Story,
    replica: Replica,
    cause: EndCause,
    at: datetime,
    *,
    detail: str = "",
    exit_code: int | None = None,
    log_tail: str = "",
) -> None:
    """The replica ended at `at`: tell it, and decide what becomes of its endpoint."""
    ended = replace(
        replica,
        phase="ended",
        detail=detail,
        ended_at=at,
        cause=cause,
        exit_code=exit_code,
        unassigned_at=replica.unassigned_at or story.now,
    )
    story.keep(ended)
    story.tell(
        ReplicaEnded,
        ended,
        at,
        cause=cause,
        detail=detail,
        exit_code=exit_code,
        was_ready=replica.ready_at is not None,
    )
    if story.endpoint.state in ("stopping", "terminating"):
        finish_if_empty(story)
    elif story.endpoint.state in WANTED_STATES and replica.leaving:
        sleep_if_empty(story, served=replica.ready_at is not None)
    elif story.endpoint.state in WANTED_STATES:
        happened = reasons.what_happened(cause, exit_code, detail)
        if cause in ONE_MACHINE_ENDS or cause == "stopped":
            _replace(story, cause, happened)
        else:
            _crashed(story, ended, happened, log_tail)


def finish_if_empty(story: Story) -> None:
    """Once the last replica has stopped, the endpoint has too."""
    if story.live:
        return
    if story.endpoint.state == "terminating":
        story.move(EndpointTerminated, "terminated", story.endpoint.reason)
        return
    story.move(EndpointStopped, "stopped", story.endpoint.reason)
    story.note(stopped_at=story.now)
    if story.endpoint.restart_wanted:
        queue_again(story)


def sleep_if_empty(story: Story, *, served: bool = False) -> None:
    """Once nothing runs of an endpoint that aims for no replicas, it sleeps.

    `served` says that the last replica did its work: then earlier crashes are not held against the next.
    Otherwise they are, and so is the wait after them: sleeping between crashes does not hide them.
    """
    if story.live or story.endpoint.desired_replicas:
        return
    if served:
        story.note(crash_streak=0, crashed_at=None, next_start_at=None)
    story.note(idle_since=story.now, shortage="")
    story.move(EndpointIdle, "idle", "it sleeps: a request wakes it")


def queue_again(story: Story) -> None:
    """From stopped back into the queue, behind all who wait, with none of the past held against it."""
    scaling = story.definition.spec.scaling
    story.note(
        state="queued",
        reason="",
        requested_at=story.now,
        desired_replicas=max(1, scaling.min_replicas),
        required_replicas=scaling.min_replicas,
        shortage="",
        idle_since=None,
        stopped_at=None,
        restart_wanted=False,
        crash_streak=0,
        crashed_at=None,
        next_start_at=None,
    )


def drain(story: Story) -> None:
    """Tell every replica to stop."""
    for replica in story.live:
        if replica.draining or not replica.leaving:
            let_go(story, replica)


def let_go(story: Story, replica: Replica) -> None:
    """Tell it to stop: at once, or if it is ready once what was on its way to it had time to finish."""
    if replica.phase == "ready" and story.policy.drain:
        story.keep(replace(replica, unassign_at=story.now + story.policy.drain, drain_version=None))
    else:
        story.keep(replace(replica, unassign_at=story.now, unassigned_at=story.now, drain_version=None))


def show_running(story: Story) -> None:
    """Tell how many of its replicas run, and what there is no room for."""
    ready, desired = story.ready_count, story.endpoint.desired_replicas
    if story.endpoint.shortage:
        reason = reasons.short(ready, desired, story.endpoint.shortage)
    elif not desired:
        reason = "it sleeps once its last requests are done"
    else:
        reason = "" if ready == desired else f"{ready} of {desired} replicas are ready"
    story.move(EndpointRunning, "running", reason, ready_replicas=ready)


def _replace(story: Story, cause: EndCause, happened: str) -> None:
    """The end was no fault of the model: a new replica is placed, soon or at once.

    What a host did by itself it may do again, so that is not answered faster than the first wait.
    """
    if cause in ("vanished", "stopped"):
        _wait_until(story, story.now + story.policy.backoff_first)
    _show_loss(story, f"starting again, because {happened}")


def _crashed(story: Story, replica: Replica, happened: str, log_tail: str) -> None:
    policy, endpoint = story.policy, story.endpoint
    same_wave = endpoint.crashed_at is not None and replica.scheduled_at <= endpoint.crashed_at
    if same_wave:
        # It started before the last crash was seen: the same failure, not one more in a row.
        _show_loss(story, f"starting again, because {happened}")
        return
    ended_at = replica.ended_at or story.now
    was_healthy = replica.ready_at is not None and ended_at - replica.ready_at >= policy.healthy_after
    streak = 1 if was_healthy else endpoint.crash_streak + 1
    story.note(crash_streak=streak, crashed_at=story.now)
    if streak >= policy.crashes_until_failed and not _another_is_healthy(story):
        _fail(story, replica, streak, log_tail)
        return
    wait = min(policy.backoff_first * 2 ** min(streak - 1, 30), policy.backoff_max)
    _wait_until(story, story.now + wait)
    _show_loss(story, reasons.backing_off(wait, happened))


def _another_is_healthy(story: Story) -> bool:
    """Whether the endpoint serves well all the same: then one bad replica does not end it."""
    return any(
        replica.routable and replica.ready_at is not None and story.now - replica.ready_at >= story.policy.healthy_after
        for replica in story.live
    )


def _wait_until(story: Story, moment: datetime) -> None:
    story.note(next_start_at=max(moment, story.endpoint.next_start_at or moment))


def _show_loss(story: Story, reason: str) -> None:
    if story.ready_count:
        story.move(EndpointRunning, "running", reason, ready_replicas=story.ready_count)
    else:
        story.move(EndpointStarting, "starting", reason)


def _fail(story: Story, replica: Replica, crashes: int, log_tail: str) -> None:
    cause = replica.cause or "crashed"
    reason = reasons.given_up(cause, replica.exit_code, replica.detail, crashes)
    drain(story)
    story.note(next_start_at=None)
    story.move(EndpointFailed, "failed", reason, log_tail=log_tail[-LOG_TAIL_CHARS_MAX:])
