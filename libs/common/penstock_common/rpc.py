"""Questions over NATS request/reply."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from opentelemetry import propagate
from pydantic import ValidationError

from penstock_common.contracts.base import Contract, Question
from penstock_common.errors import DomainError, Unavailable
from penstock_common.telemetry import tracer

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

ERROR_HEADER = "Penstock-Error"
IN_HAND_MAX = 64
"""Questions one process works on at once; more wait their turn in the client's buffer."""

Answer = Callable[[Any], Awaitable[Contract]]


async def ask(client: Client, question: Question, *, subject: str, deadline_s: float) -> Contract:
    """The answer to `question`.

    Raises Unavailable when nobody answers in `deadline_s`, and DomainError when the one who answered
    refused.
    """
    service = subject.split(".")[1]
    headers: dict[str, str] = {}
    propagate.inject(headers)
    try:
        reply = await client.request(
            subject, question.model_dump_json().encode(), timeout=deadline_s, headers=headers or None
        )
    except nats.errors.NoRespondersError as error:
        raise Unavailable(service, f"no {service} is connected: check `penstock status`, then try again") from error
    except nats.errors.Error as error:
        raise Unavailable(service, f"the {service} did not answer within {deadline_s:g} s: try again") from error
    code = (reply.headers or {}).get(ERROR_HEADER)
    if code is not None:
        raise DomainError(code, json.loads(reply.data)["detail"])
    return question.reply.model_validate_json(reply.data, extra="ignore")


class Answering:
    """Answers one kind of question; the processes of one service share the work."""

    def __init__(self, client: Client, question: type[Question], answer: Answer, *, subject: str) -> None:
        self._client = client
        self._question = question
        self._answer = answer
        self._subject = subject
        self._slots = asyncio.Semaphore(IN_HAND_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        queue = self._subject.split(".")[1]
        self._subscription = await self._client.subscribe(self._subject, queue=queue, cb=self._receive)
        # Ready means that the server knows of it.
        await self._client.flush()

    async def stop(self) -> None:
        """Take no more questions, and finish those in hand."""
        await self._subscription.unsubscribe()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _receive(self, message: Msg) -> None:
        # Until there is a slot the next ones wait in the client's own buffer, which is bounded.
        await self._slots.acquire()
        task = asyncio.create_task(self._respond(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(self, message: Msg) -> None:
        try:
            context = propagate.extract(message.headers or {})
            with _tracer.start_as_current_span(self._subject, context=context):
                body, error_code = await self._outcome(message.data)
        finally:
            self._slots.release()
        headers = {ERROR_HEADER: error_code} if error_code else None
        try:
            await self._client.publish(message.reply, body, headers=headers)
        except nats.errors.Error as error:
            log.warning("could not send an answer", extra={"subject": self._subject, "error": repr(error)})

    async def _outcome(self, data: bytes) -> tuple[bytes, str | None]:
        try:
            question = self._question.model_validate_json(data, extra="ignore")
            reply = await self._answer(question)
            return reply.model_dump_json().encode(), None
        except DomainError as error:
            return _refusal(error.detail), error.code
        except ValidationError as error:
            return _refusal(f"the question cannot be read: {error}"), "invalid_question"
        except Exception:
            log.exception("a question failed", extra={"subject": self._subject})
            return _refusal("the service failed to answer; its log says why"), "internal"


def _refusal(detail: str) -> bytes:
    return json.dumps({"detail": detail}).encode()
