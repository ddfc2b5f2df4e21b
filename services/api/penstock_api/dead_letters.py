"""The stream DEAD on the real JetStream: reading it, sending letters again, dropping them."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from penstock_api.domain.dead import Resend, StoredLetter
from penstock_api.domain.problems import unavailable
from penstock_common.contracts.topology import DEAD

SCANNED_MAX = 1_000
"""Most sequence numbers that one request looks at: many may be those of deleted letters."""


class DeadLetters:
    """`js` gives JetStream once it is reached."""

    def __init__(self, js: Callable[[], JetStreamContext]) -> None:
        self._js = js

    async def newest(self, before: int | None, limit: int) -> tuple[list[StoredLetter], int | None]:
        """Up to `limit` letters with numbers below `before`, newest first, and where to go on (None: at the end)."""
        async with _reached():
            state = (await self._js().stream_info(DEAD.name)).state
            start = state.last_seq if before is None else min(state.last_seq, before - 1)
            stop = max(state.first_seq, start - SCANNED_MAX + 1, 1)
            found: list[StoredLetter] = []
            for sequence in range(start, stop - 1, -1):
                letter = await self._read(sequence)
                if letter is not None:
                    found.append(letter)
                if len(found) == limit:
                    stop = sequence
                    break
        return found, stop if stop > max(state.first_seq, 1) else None

    async def get(self, sequence: int) -> StoredLetter | None:
        async with _reached():
            return await self._read(sequence)

    async def publish(self, message: Resend) -> None:
        """Publish again, and wait until it is stored."""
        async with _reached():
            await self._js().publish(message.subject, message.payload, timeout=5, headers=message.headers)

    async def delete(self, sequence: int) -> None:
        async with _reached():
            await self._js().delete_msg(DEAD.name, sequence)

    async def _read(self, sequence: int) -> StoredLetter | None:
        try:
            raw = await self._js().get_msg(DEAD.name, sequence)
        except NotFoundError:
            return None
        return StoredLetter(
            sequence=sequence,
            at=raw.time or datetime.fromtimestamp(0, UTC),
            headers=parse_headers(base64.b64decode(raw.hdrs)) if raw.hdrs else {},
            payload=raw.data or b"",
        )


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a NATS message. The client's own parser, made for e-mail, spoils what is not ASCII."""
    lines = block.decode("utf-8", "replace").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


@asynccontextmanager
async def _reached() -> AsyncIterator[None]:
    """Raises Problem when JetStream cannot be reached."""
    try:
        yield
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise unavailable("message store", f"{error!r}") from error
