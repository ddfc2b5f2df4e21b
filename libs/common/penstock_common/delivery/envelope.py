"""CloudEvents 1.0 in the NATS binary binding: attributes are headers, the data is the body."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from opentelemetry import propagate
from pydantic import ValidationError

from penstock_common.contracts.base import Message
from penstock_common.delivery.errors import Permanent

M = TypeVar("M", bound=Message)

MESSAGE_ID = "Nats-Msg-Id"


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """A message as a handler gets it."""

    message: M
    id: str
    time: datetime
    traceparent: str | None
    delivery: int
    """1 at the first delivery, more when it comes again."""
    waited_s: float = 0.0
    """How long it was on the stream before it is handled now, in seconds; 0 where that is less than 1 s."""


def headers_for(message: Message, *, message_id: str, source: str, time: datetime) -> dict[str, str]:
    """The headers of one message; the current trace goes along."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": message_id,
        "ce-type": message.message_type,
        "ce-source": f"penstock/{source}",
        "ce-time": time.isoformat(),
        "content-type": "application/json",
        MESSAGE_ID: message_id,
    }
    propagate.inject(headers)
    return headers


def decode(
    types: Mapping[str, type[M]], headers: Mapping[str, str], payload: bytes, delivery: int
) -> Received[M] | None:
    """The message, or None when its type is none of `types`.

    Raises Permanent when the headers or the body cannot be read: no later delivery would differ.
    """
    kind = headers.get("ce-type")
    if kind is None:
        raise Permanent("the message has no ce-type header, so nothing says what it is")
    if kind not in types:
        return None
    try:
        message = types[kind].model_validate_json(payload, extra="ignore")
        return Received(
            message=message,
            id=headers["ce-id"],
            time=datetime.fromisoformat(headers["ce-time"]),
            traceparent=headers.get("traceparent"),
            delivery=delivery,
        )
    except KeyError as error:
        raise Permanent(f"the header {error.args[0]} is missing") from error
    except ValidationError as error:
        raise Permanent(f"the body is not a {kind}: {error.errors(include_url=False, include_input=False)}") from error
    except ValueError as error:
        raise Permanent(f"the header ce-time is not a time: {error}") from error
