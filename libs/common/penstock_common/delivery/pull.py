"""Pulling the messages of one durable consumer, as they come and never more than are wanted.

One request is open at a time and the server answers it with each message as it arrives, so nothing
waits for a batch to fill, and a busy consumer asks once for many. The library's `fetch` asks twice for
each handful, and a subscriber built on it starts a task for each message: three times the work.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from penstock_common.contracts.topology import ConsumerSpec

log = logging.getLogger(__name__)

EXPIRES_S = 30.0
"""How long the server keeps one request."""
HEARTBEAT_S = 1.0
"""How often the server says that it still has the request, when there is no message."""
SILENCE_S_MAX = 2.5
"""After a longer silence the server is taken to have forgotten the request, as when it restarted."""
REFUSED_WAIT_S = 0.5
"""Wait before asking again when the server has no such consumer now."""

_HEARTBEAT = "100"
_EXPIRED = "408"


class Pull:
    """Calls `take` with each message. Run `run()` for ever; when it is cancelled nothing is left behind."""

    def __init__(self, spec: ConsumerSpec, client: Callable[[], Client], take: Callable[[Msg], None]) -> None:
        self._spec = spec
        self._client = client
        self._take = take
        self._request = 0
        self._wanted = 0
        """Messages that the open request still has to bring."""
        self._in_hand = 0
        self._heard_at = 0.0
        self._refused = False
        self._changed = asyncio.Event()

    def settled(self, count: int) -> None:
        """So many messages are done with; there is room for others."""
        self._in_hand -= count
        self._changed.set()

    async def run(self) -> None:
        """Subscribe and keep a request open whenever there is room for a batch."""
        self._wanted = 0
        inbox = self._client().new_inbox()
        subscription = await self._client().subscribe(f"{inbox}.*", cb=self._arrived)
        try:
            while True:
                self._changed.clear()
                if self._refused:
                    self._refused = False
                    await asyncio.sleep(REFUSED_WAIT_S)
                if self._wants_more():
                    await self._ask(inbox)
                # Not wait_for, which in Python 3.11 can lose a cancellation that comes with the wake-up.
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._changed.wait()
        finally:
            # The server drops a request nobody listens to. What it had sent before is taken first:
            # otherwise it would count as a delivery, and come again only after its deadline.
            with suppress(nats.errors.Error, TimeoutError):
                await asyncio.shield(subscription.drain())  # type: ignore[no-untyped-call]

    def _wants_more(self) -> bool:
        if not self._client().is_connected:
            return False  # what is asked now would be kept by the library, and all of it sent at once
        if self._wanted == 0:
            return self._in_hand <= self._spec.batch
        return asyncio.get_running_loop().time() - self._heard_at > SILENCE_S_MAX

    async def _ask(self, inbox: str) -> None:
        self._request += 1
        self._wanted = self._spec.batch
        self._heard_at = asyncio.get_running_loop().time()
        request = {
            "batch": self._wanted,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        payload = json.dumps(request).encode()
        try:
            await self._client().publish(self._spec.next_subject, payload, reply=f"{inbox}.{self._request}")
        except nats.errors.Error as error:
            # Asked again after the silence that follows.
            log.info("could not ask for messages", extra={"consumer": self._spec.durable, "error": repr(error)})

    async def _arrived(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status = (message.headers or {}).get("Status")
        if status is None:
            self._in_hand += 1
            self._wanted = max(0, self._wanted - 1)
            if self._wanted == 0:
                self._changed.set()
            self._take(message)
        elif status != _HEARTBEAT and self._wanted and message.subject.endswith(f".{self._request}"):
            # The open request is at its end: it expired, or the server moved or lost the consumer.
            self._wanted = 0
            self._refused = status != _EXPIRED
            self._changed.set()
