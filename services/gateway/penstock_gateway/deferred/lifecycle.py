"""What becomes of an inference: queued → running → succeeded, failed or cancelled. Pure.

A request that may have reached a replica is sent again only if its caller said that this does no harm: it
carried an Idempotency-Key, or its method is safe. So `running` is written before the first byte is sent.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from penstock_common.contracts.endpoint import EndpointState
from penstock_common.contracts.inference import (
    FinalState,
    FinishedInference,
    Inference,
    InferenceResult,
    OpenInference,
    Webhook,
)
from penstock_gateway.domain import Refusal

ATTEMPTS_MAX = 3
"""How often a request that may be repeated is given to a replica at most."""
WEBHOOK_WAITS_S = (5, 60, 300, 1800, 7200, 18_000, 36_000)
"""Waits after failed deliveries: after the last one, 18 hours after the first, it is given up."""
JITTER = 0.2
"""Share of a wait that is added by chance, so that what failed together is not repeated together."""

DEAD: frozenset[EndpointState] = frozenset({"failed", "terminating", "terminated"})
"""States that no endpoint leaves: what waits for it waits in vain."""
_WAITS: frozenset[str] = frozenset({"overloaded", "not_started", "not_running", "moved"})
"""Refusals that say: not now."""
_LOST = "replica_lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How giving a request to an endpoint ended: with a whole answer, or with a refusal.

    `reached`: a byte of the request may have reached a replica.
    """

    result: InferenceResult | None = None
    refusal: Refusal | None = None
    reached: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """It goes back into the queue."""


@dataclass(frozen=True, slots=True)
class End:
    """It is finished."""

    state: FinalState
    code: str = ""
    reason: str = ""
    result: InferenceResult | None = None


GATEWAY_LOST = End(
    "failed",
    "gateway_lost",
    "the gateway was lost while it ran; it may have run. Send it again if that does no harm, or send an "
    "Idempotency-Key with it: then it is repeated without asking",
)
GATEWAY_STOPPED = End(
    "failed",
    "gateway_stopped",
    "the gateway was stopped while it ran; it may have run. Send it again if that does no harm, or send an "
    "Idempotency-Key with it: then it is repeated without asking",
)
CANCELLED = End("cancelled", "cancelled", "it was cancelled by a DELETE of its status URL")
WAITED_TOO_LONG = End(
    "failed", "waited_too_long", "no replica took it in the time that a request may wait: see the endpoint's state"
)
ENDPOINT_DEAD = End(
    "failed", "not_running", "its endpoint failed, or was terminated, before it ran: create a new one and send it there"
)
ENDPOINT_GONE = End("failed", "endpoint_gone", "its endpoint was removed before it ran")
REQUEST_LOST = End("failed", "request_lost", "what was kept of the request is no longer there: send it again")
RESULT_TOO_LARGE = Refusal(502, "result_too_large", "the endpoint's answer is longer than is kept of one")
RESULT_NOT_KEPT = Refusal(502, "result_not_kept", "the endpoint's answer could not be stored: send the request again")
RAN_TOO_LONG = Refusal(504, "ran_too_long", "it ran longer than it may, and was cut off")


def settle(inference: OpenInference, outcome: Outcome, endpoint_state: EndpointState | None) -> Again | End:
    """What follows from an outcome. `endpoint_state` is the endpoint's now; None when it is gone.

    `inference.attempts` counts this attempt, if a byte was about to be sent.
    """
    refusal = outcome.refusal
    if refusal is None:
        return answered(outcome.result)
    if not outcome.reached:
        if endpoint_state is None:
            return ENDPOINT_GONE
        if refusal.code in _WAITS and endpoint_state not in DEAD:
            return Again()
    elif refusal.code == _LOST and may_repeat(inference):
        return Again()
    return End("failed", refusal.code, refusal.detail)


def answered(result: InferenceResult | None) -> End:
    """The endpoint gave a whole answer; one that says it is an error is a failure, and kept all the same."""
    if result is not None and result.status >= 400:
        return End("failed", "endpoint_error", f"the endpoint answered {result.status}: see the result", result)
    return End("succeeded", result=result)


def interrupted(inference: OpenInference, end: End) -> Again | End:
    """What becomes of an inference whose gateway was lost or stopped (`end`) while it ran."""
    return Again() if may_repeat(inference) else end


def may_repeat(inference: OpenInference) -> bool:
    return inference.repeatable and inference.attempts < ATTEMPTS_MAX


def running(inference: OpenInference, gateway_id: str, now: datetime) -> OpenInference:
    """A replica has a free slot for it: from here on it may have run."""
    return inference.model_copy(
        update={
            "state": "running",
            "gateway_id": gateway_id,
            "started_at": now,
            "attempts": inference.attempts + 1,
        }
    )


def queued_again(inference: OpenInference, *, sent: bool) -> OpenInference:
    """Back in the queue. Unless it was `sent`, the attempt does not count."""
    attempts = inference.attempts - (0 if sent else 1)
    return inference.model_copy(
        update={"state": "queued", "gateway_id": "", "started_at": None, "attempts": max(0, attempts)}
    )


def finished(inference: OpenInference, end: End, *, now: datetime, retention_s: int) -> FinishedInference:
    """The record of a finished inference; its webhook, if it has one, is due at once."""
    webhook = inference.webhook
    return FinishedInference(
        **{name: getattr(inference, name) for name in Inference.model_fields},
        state=end.state,
        started_at=inference.started_at,
        finished_at=now,
        expires_at=now + timedelta(seconds=retention_s),
        code=end.code,
        reason=end.reason,
        result=end.result,
        webhook=webhook and webhook.model_copy(update={"next_at": now}),
    )


def notified(webhook: Webhook, problem: str, *, final: bool, now: datetime, chance: float) -> Webhook:
    """The webhook after one more attempt. `problem` is empty when it was delivered; `final`: never again.

    `chance` is from 0 to 1.
    """
    attempts = webhook.attempts + 1
    if not problem:
        return webhook.model_copy(update={"attempts": attempts, "next_at": None, "delivered_at": now, "problem": ""})
    next_at = None
    if not final and attempts <= len(WEBHOOK_WAITS_S):
        next_at = now + timedelta(seconds=WEBHOOK_WAITS_S[attempts - 1] * (1 + JITTER * chance))
    return webhook.model_copy(update={"attempts": attempts, "next_at": next_at, "problem": problem})


# --- what users see ---------------------------------------------------------------------------


def status(inference: OpenInference | FinishedInference, *, now: datetime, retention_s: int) -> dict[str, Any]:
    """The status as JSON: times in UTC, durations in seconds."""
    started_at = inference.started_at
    waited_until = started_at or (inference.finished_at if isinstance(inference, FinishedInference) else now)
    said: dict[str, Any] = {
        "id": inference.inference_id,
        "state": inference.state,
        "endpoint_id": inference.endpoint_id,
        "method": inference.method,
        "target": inference.target,
        "created_at": _written(inference.created_at),
        "started_at": _written(started_at),
        "finished_at": None,
        "queue_s": _seconds(waited_until - inference.created_at),
        "run_s": None if started_at is None else _seconds(now - started_at),
        "retention_s": retention_s,
        "expires_at": None,
        "code": None,
        "reason": None,
        "status_url": inference.url,
        "result": None,
        "webhook": None,
    }
    if isinstance(inference, FinishedInference):
        said |= _ending(inference)
    webhook = inference.webhook
    if webhook is not None:
        said["webhook"] = {
            "url": webhook.url,
            "attempts": webhook.attempts,
            "delivered_at": _written(webhook.delivered_at),
            "next_attempt_at": _written(webhook.next_at),
            "problem": webhook.problem or None,
        }
    return said


def webhook_body(inference: FinishedInference) -> dict[str, Any]:
    """What a webhook says: the status, with the type and the time that the specification asks for. It is the
    same at every attempt."""
    kept_s = round((inference.expires_at - inference.finished_at).total_seconds())
    said = status(inference, now=inference.finished_at, retention_s=kept_s)
    del said["webhook"]
    return {"type": f"inference.{inference.state}", "timestamp": said["finished_at"], **said}


def _ending(inference: FinishedInference) -> dict[str, Any]:
    said: dict[str, Any] = {
        "finished_at": _written(inference.finished_at),
        "expires_at": _written(inference.expires_at),
        "code": inference.code or None,
        "reason": inference.reason or None,
    }
    if inference.started_at is not None:
        said["run_s"] = _seconds(inference.finished_at - inference.started_at)
    if inference.result is not None:
        said["result"] = {
            "url": f"{inference.url}/result",
            "status": inference.result.status,
            "content_type": inference.result.content_type or None,
            "bytes": inference.result.parts.body_bytes,
        }
    return said


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(span: timedelta) -> float:
    return max(0.0, round(span.total_seconds(), 3))
