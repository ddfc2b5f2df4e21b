"""Inferences: requests with `Prefer: respond-async`, kept by the gateway until they have run, and their outcomes.

Records are small; heads and bodies lie beside them, cut into parts. Only the gateway reads or writes any of it.
"""

from typing import Literal

from penstock_common.contracts.base import Contract, UtcTime

INFERENCE = "inf"
"""Prefix of an inference's id."""

OpenState = Literal["queued", "running", "notifying"]
"""`notifying`: it is finished, and its webhook is still to be delivered."""
FinalState = Literal["succeeded", "failed", "cancelled"]


class Parts(Contract):
    """A head and a body in the data stream: `<name>.0` up to `<name>.<count - 1>`, one after the other."""

    name: str
    count: int
    head_bytes: int
    body_bytes: int


class Webhook(Contract):
    """Where the outcome is to be told, and how far that has come."""

    url: str
    attempts: int = 0
    next_at: UtcTime | None = None
    """When it is tried again; None once it was delivered or given up."""
    delivered_at: UtcTime | None = None
    problem: str = ""
    """Why the last attempt failed."""


class Inference(Contract):
    """What stays true of an inference, whatever becomes of it."""

    inference_id: str
    endpoint_id: str
    organization_id: str
    key_id: str = ""
    """The caller's API key; empty on a public endpoint that was called without one."""
    method: str
    target: str
    """Path and query, below the endpoint's URL."""
    url: str
    """Where its status is asked for."""
    created_at: UtcTime


class OpenInference(Inference):
    """An inference that still has something to come."""

    state: OpenState = "queued"
    request: Parts
    repeatable: bool
    """Whether it may run again after it may have run: its method is safe, or it had an Idempotency-Key."""
    attempts: int = 0
    """How often it was given to a replica."""
    gateway_id: str = ""
    """The gateway that runs it."""
    started_at: UtcTime | None = None
    webhook: Webhook | None = None


class InferenceResult(Contract):
    """The endpoint's answer."""

    status: int
    content_type: str = ""
    parts: Parts


class FinishedInference(Inference):
    """An inference that is finished; kept until `expires_at`, with its result."""

    state: FinalState
    started_at: UtcTime | None = None
    finished_at: UtcTime
    expires_at: UtcTime
    code: str = ""
    """Why it failed, for programs."""
    reason: str = ""
    """The same for people, with the mend."""
    result: InferenceResult | None = None
    webhook: Webhook | None = None


class RememberedKey(Contract):
    """An Idempotency-Key: which inference it stands for, and the SHA-256 of the request it came with."""

    inference_id: str
    request_sha256: str
