"""Publishing on JetStream and waiting for what the server says of each message."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

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
    """Publish without an outbox, for what is not the record of anything: host reports and logs.

    Waits for the server's acknowledgement. Raises nats.errors.Error when none comes in `timeout_s`;
    sending again with the same `message_id` is safe.
    """
    headers = headers_for(message, message_id=message_id, source=source, time=datetime.now(UTC))
    if traceparent is not None:
        headers["traceparent"] = traceparent
    await js.publish(subject, message.model_dump_json().encode(), timeout=timeout_s, headers=headers)


class Publishable(Protocol):
    """What a pipeline sends."""

    @property
    def subject(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Pipeline:
    """Publishes several messages at once, in order, and collects the server's answers.

    One inbox serves for all answers, and one future for a whole call: a third of the work of
    nats-py's `publish_async`, which makes a token, a future and its callbacks for each message.
    """

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._inbox = ""
        self._call = 0
        self._answers: dict[int, Exception | None] = {}
        self._expected = 0
        self._complete: asyncio.Future[None] | None = None

    async def send(self, messages: Sequence[Publishable], *, timeout_s: float) -> list[Exception | None]:
        """For each message None when JetStream keeps it, else the error; TimeoutError without an answer.

        One call at a time. Raises nats.errors.Error when the messages cannot be sent.
        """
        client = self._client()
        if not self._inbox:
            inbox = client.new_inbox()
            await client.subscribe(f"{inbox}.*.*", cb=self._answered)
            self._inbox = inbox
        self._call += 1
        self._answers = {}
        self._expected = len(messages)
        self._complete = asyncio.get_running_loop().create_future()
        for position, message in enumerate(messages):
            await client.publish(
                message.subject,
                message.payload,
                reply=f"{self._inbox}.{self._call}.{position}",
                headers=dict(message.headers),
            )
        try:
            async with asyncio.timeout(timeout_s):
                await self._complete
        except TimeoutError:
            pass  # what was not answered says so below
        return [self._answers.get(position, TimeoutError("no answer")) for position in range(len(messages))]

    async def _answered(self, answer: Msg) -> None:
        _, call, position = answer.subject.rsplit(".", 2)
        if int(call) != self._call or self._complete is None or self._complete.done():
            return  # it comes too late
        self._answers[int(position)] = _failure(answer)
        if len(self._answers) == self._expected:
            self._complete.set_result(None)


def _failure(answer: Msg) -> Exception | None:
    if (answer.headers or {}).get("Status") == "503":
        return NoStreamResponseError()
    error = json.loads(answer.data).get("error")
    return None if error is None else APIError(**error)
