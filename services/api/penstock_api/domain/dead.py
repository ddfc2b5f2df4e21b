"""Dead letters: what is shown of them, and how they are sent again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from penstock_api.domain.problems import conflict

SUBJECT = "Penstock-Dead-Subject"
CONSUMER = "Penstock-Dead-Consumer"
ERROR = "Penstock-Dead-Error"
DELIVERIES = "Penstock-Dead-Deliveries"
MESSAGE_ID = "Nats-Msg-Id"
PREVIEW_CHARACTERS_MAX = 500
_OURS = frozenset({SUBJECT, CONSUMER, ERROR, DELIVERIES, MESSAGE_ID})
_SHOWN_FIELDS = frozenset(
    {
        "at",
        "cause",
        "commit",
        "endpoint_id",
        "exit_code",
        "generation",
        "gpu_count",
        "gpu_type",
        "host_id",
        "offset",
        "organization_id",
        "phase",
        "position",
        "ready_replicas",
        "ref",
        "replica_id",
        "sequence",
        "slug",
        "version",
        "was_ready",
        "workspace",
        "workspace_id",
    }
)
"""Fields that hold neither what users wrote nor what models printed."""
_HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A message of the stream DEAD."""

    sequence: int
    at: datetime
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Resend:
    """A message to publish again."""

    subject: str
    headers: dict[str, str]
    payload: bytes


def resend(letter: StoredLetter) -> Resend:
    """The original message on its original subject, under its own id, so that who handled it skips it.

    JetStream's own deduplication knows the original id, so that one is made new with each dead letter.
    Raises Problem when the letter does not say what it was.
    """
    subject, identifier = letter.headers.get(SUBJECT), letter.headers.get("ce-id")
    if subject is None or identifier is None:
        raise conflict(f"Dead letter {letter.sequence} does not say what it was: it can only be deleted.")
    headers = {name: value for name, value in letter.headers.items() if name not in _OURS}
    headers[MESSAGE_ID] = f"{identifier}:retry:{letter.sequence}"
    return Resend(subject, headers, letter.payload)


def preview(payload: bytes) -> str:
    """The beginning of a message, with every value hidden that could hold a secret."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return f"(not JSON, {len(payload)} bytes)"
    if not isinstance(document, dict):
        return f"(not an object, {len(payload)} bytes)"
    shown = {name: value if _is_harmless(name, value) else _HIDDEN for name, value in document.items()}
    return json.dumps(shown, ensure_ascii=False)[:PREVIEW_CHARACTERS_MAX]


def _is_harmless(name: str, value: object) -> bool:
    return name in _SHOWN_FIELDS and isinstance(value, str | int | float | None)
