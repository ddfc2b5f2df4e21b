"""Publishing without an outbox, for what is not the record of anything: host reports and logs."""

from datetime import UTC, datetime

from nats.js import JetStreamContext

from penstock_common.contracts.base import Message
from penstock_common.delivery.envelope import headers_for


async def publish_message(
    js: JetStreamContext,
    subject: str,
    message: Message,
    *,
    message_id: str,
    source: str,
    traceparent: str | None = None,
    timeout_s: float = 5,
) -> None:
    """Publish and wait for the server's acknowledgement.

    Raises nats.errors.Error when none comes in `timeout_s`; sending again with the same
    `message_id` is safe.
    """
    headers = headers_for(message, message_id=message_id, source=source, time=datetime.now(UTC))
    if traceparent is not None:
        headers["traceparent"] = traceparent
    await js.publish(subject, message.model_dump_json().encode(), timeout=timeout_s, headers=headers)
