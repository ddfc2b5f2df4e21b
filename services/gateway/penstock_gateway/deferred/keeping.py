"""Inferences on JetStream: records that change only from the revision one has seen, and parts of bodies.

`INFERENCES` keeps the last message of a subject. A record is written with the revision that it replaces, so of
two gateways that decide about the same inference one learns that it came too late. What is finished carries a
time to live. A record that ends is replaced by an empty one, which goes away by itself: so all who follow the
stream learn of it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TypeVar

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import APIError, NotFoundError
from nats.js.errors import Error as JetStreamError

from penstock_common.contracts.base import Contract
from penstock_common.contracts.inference import FinishedInference, OpenInference, Parts, RememberedKey
from penstock_common.contracts.topology import (
    INFERENCE_DATA,
    INFERENCES,
    finished_inference,
    inference_gateway,
    inference_key,
    inference_part,
    open_inference,
)

C = TypeVar("C", bound=Contract)

PART_BYTES = 512 * 1024
"""Half of what NATS takes in one message."""
MARKER_TTL_S = 120
"""How long the end of a record is seen by those who follow the stream."""
PRESENCE_TTL_S = 60
_WRONG_LAST_SEQUENCE = 10071
_ABSENT = 0


class Unkept(Exception):
    """JetStream could not be reached, or would not take it."""


class Conflict(Exception):
    """Another has changed the record in the meantime."""


class Lost(Exception):
    """Something kept is no longer there."""


class Keep:
    """`js` gives JetStream once it was reached, and raises RuntimeError before. Everything may raise Unkept."""

    def __init__(self, js: Callable[[], JetStreamContext]) -> None:
        self._js = js

    # --- records --------------------------------------------------------------------------

    async def create(self, inference: OpenInference) -> int:
        """Keep a new one; returns its revision. Raises Conflict when it is there."""
        return await self.update(inference, _ABSENT)

    async def update(self, inference: OpenInference, revision: int) -> int:
        """Change it from `revision`; returns the new one. Raises Conflict."""
        return await self._write(_subject(inference), inference.model_dump_json().encode(), revision)

    async def end(self, inference: OpenInference, revision: int) -> int:
        """It is no longer open. Returns the revision of that. Raises Conflict."""
        return await self._write(_subject(inference), b"", revision, ttl_s=MARKER_TTL_S)

    async def finish(self, finished: FinishedInference, ttl_s: int) -> None:
        """Keep the outcome for `ttl_s`. Raises Conflict when it has another: the first one stands."""
        await self._write(_finished_subject(finished), finished.model_dump_json().encode(), _ABSENT, ttl_s=ttl_s)

    async def amend(self, finished: FinishedInference, now: datetime) -> None:
        """Change the record of a finished one for the rest of its time. Raises Conflict."""
        found = await self._read(_finished_subject(finished), FinishedInference)
        left_s = int((finished.expires_at - now).total_seconds())
        if found is not None and left_s > 0:
            payload = finished.model_dump_json().encode()
            await self._write(_finished_subject(finished), payload, found[1], ttl_s=left_s)

    async def find_open(self, endpoint_id: str, inference_id: str) -> tuple[OpenInference, int] | None:
        return await self._read(open_inference(endpoint_id, inference_id), OpenInference)

    async def find_finished(self, endpoint_id: str, inference_id: str) -> FinishedInference | None:
        found = await self._read(finished_inference(endpoint_id, inference_id), FinishedInference)
        return None if found is None else found[0]

    async def remember(self, owner_sha256: str, key: RememberedKey, ttl_s: int) -> RememberedKey:
        """Remember an Idempotency-Key; returns what it already stands for, if it does."""
        subject = inference_key(owner_sha256)
        try:
            await self._write(subject, key.model_dump_json().encode(), _ABSENT, ttl_s=ttl_s)
        except Conflict:
            found = await self._read(subject, RememberedKey)
            return key if found is None else found[0]
        return key

    async def say_alive(self, gateway_id: str) -> None:
        with _reached():
            await self._js().publish(inference_gateway(gateway_id), b"1", msg_ttl=PRESENCE_TTL_S)

    async def say_gone(self, gateway_id: str) -> None:
        with _reached():
            await self._js().publish(inference_gateway(gateway_id), b"", msg_ttl=MARKER_TTL_S)

    async def fullness(self) -> float:
        """From 0 to 1: how full the fuller of the two streams is."""
        shares = []
        with _reached():
            for spec in (INFERENCES, INFERENCE_DATA):
                info = await self._js().stream_info(spec.name)
                shares.append(info.state.bytes / (info.config.max_bytes or spec.max_bytes))
        return max(shares)

    # --- parts ----------------------------------------------------------------------------

    def writer(self, ttl_s: int, *, patience_s: Sequence[float] = ()) -> "PartsWriter":
        """Writes one head and body, kept for `ttl_s`; what fails is tried again after each wait of `patience_s`."""
        return PartsWriter(self, ttl_s, patience_s)

    async def put_part(self, name: str, number: int, data: bytes, ttl_s: int) -> None:
        with _reached():
            await self._js().publish(inference_part(name, number), data, msg_ttl=ttl_s)

    async def read(self, parts: Parts) -> AsyncIterator[bytes]:
        """What was written, piece by piece; the first holds the whole head. Raises Lost."""
        for number in range(parts.count):
            yield await self._part(inference_part(parts.name, number))

    async def drop_named(self, name: str) -> None:
        """Forget the head and body of that name before their time."""
        with _reached():
            await self._js().purge_stream(INFERENCE_DATA.name, subject=inference_part(name, "*"))

    async def _part(self, subject: str) -> bytes:
        with _reached():
            # Any server that has the stream may answer at first; one that is behind has not got it yet.
            for direct in (True, False):
                try:
                    found = await self._js().get_last_msg(INFERENCE_DATA.name, subject, direct=direct)
                    return found.data or b""
                except NotFoundError:
                    continue
        raise Lost(f"{subject} is not there")

    # --- reading and writing --------------------------------------------------------------

    async def _read(self, subject: str, kind: type[C]) -> tuple[C, int] | None:
        with _reached():
            try:
                # Not a direct get: what was just written must be found.
                found = await self._js().get_last_msg(INFERENCES.name, subject)
            except NotFoundError:
                return None
        if not found.data:
            return None
        return kind.model_validate_json(found.data), found.seq or 0

    async def _write(self, subject: str, payload: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        headers = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(revision)}
        with _reached():
            try:
                ack = await self._js().publish(subject, payload, headers=headers, msg_ttl=ttl_s)
                return ack.seq
            except APIError as error:
                if error.err_code != _WRONG_LAST_SEQUENCE:
                    raise
            # Perhaps it was this very write, whose acknowledgement was lost.
            with suppress(NotFoundError):
                found = await self._js().get_last_msg(INFERENCES.name, subject)
                if (found.data or b"") == payload and (found.seq or 0) > revision:
                    return found.seq or 0
        raise Conflict(subject)


class PartsWriter:
    """Cuts what it is given into parts and keeps them as they fill: it holds no more than one."""

    def __init__(self, keep: Keep, ttl_s: int, patience_s: Sequence[float]) -> None:
        # Never a name twice: what an attempt left behind must not mix with what the next one writes.
        self.name = secrets.token_hex(12)
        self.body_bytes = 0
        self._keep = keep
        self._ttl_s = ttl_s
        self._patience_s = patience_s
        self._head_bytes = 0
        self._count = 0
        self._held: list[bytes] = []
        self._held_bytes = 0

    def head(self, head: bytes) -> None:
        """Comes first, and fits a part."""
        self._head_bytes = len(head)
        self._held.append(head)
        self._held_bytes += len(head)

    async def body(self, data: bytes) -> None:
        """More of the body. Raises Unkept."""
        self.body_bytes += len(data)
        self._held.append(data)
        self._held_bytes += len(data)
        while self._held_bytes >= PART_BYTES:
            whole = b"".join(self._held)
            await self._put(whole[:PART_BYTES])
            self._held = [whole[PART_BYTES:]]
            self._held_bytes = len(whole) - PART_BYTES

    async def finish(self) -> Parts:
        """Write the rest. Raises Unkept."""
        if self._held_bytes or not self._count:
            await self._put(b"".join(self._held))
            self._held, self._held_bytes = [], 0
        return Parts(name=self.name, count=self._count, head_bytes=self._head_bytes, body_bytes=self.body_bytes)

    async def _put(self, data: bytes) -> None:
        for wait_s in self._patience_s:
            with suppress(Unkept):
                await self._keep.put_part(self.name, self._count, data, self._ttl_s)
                break
            await asyncio.sleep(wait_s)
        else:
            await self._keep.put_part(self.name, self._count, data, self._ttl_s)
        self._count += 1

    async def drop(self) -> None:
        """Forget what was written so far. Raises Unkept."""
        if self._count:
            await self._keep.drop_named(self.name)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, JetStreamError, OSError, RuntimeError) as error:
        # TimeoutError is an OSError.
        raise Unkept(repr(error)) from error


def _subject(inference: OpenInference) -> str:
    return open_inference(inference.endpoint_id, inference.inference_id)


def _finished_subject(finished: FinishedInference) -> str:
    return finished_inference(finished.endpoint_id, finished.inference_id)
