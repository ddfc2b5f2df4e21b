"""Hears hosts: takes their heartbeats from NATS, and keeps track of whether it could hear them."""

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError
from nats.js.errors import Error as JetStreamError
from pydantic import ValidationError

from penstock_common.contracts.heartbeat import Heartbeat
from penstock_common.contracts.topology import ASSIGNMENTS, HEARTBEATS, heartbeat_subject
from penstock_scheduler import handlers
from penstock_scheduler.handlers import Context
from penstock_scheduler.heartbeats import Hearing
from penstock_scheduler.ports import SchedulerStore

log = logging.getLogger(__name__)

TICK_S = 1.0
PENDING_BYTES_MAX = 16 * 1024 * 1024
_HOST_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


class Listening:
    """Three loops: `listen` handles what is new in heartbeats, `keep_track` notes who was heard, `stay_awake`
    notes that this process runs."""

    def __init__(
        self,
        client: Callable[[], Client],
        js: Callable[[], JetStreamContext],
        transaction: Callable[[], AbstractAsyncContextManager[SchedulerStore]],
        context: Context,
        hearing: Hearing,
        after_commit: Callable[[], None],
    ) -> None:
        self._client = client
        self._js = js
        self._transaction = transaction
        self._context = context
        self._hearing = hearing
        self._after_commit = after_commit
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Subscribe, and handle heartbeats that say something new, for ever."""
        async with self._transaction() as store:
            self._context.heartbeats.remember(await store.hosts())
        subscription = await self._client().subscribe(
            HEARTBEATS, cb=self._receive, pending_bytes_limit=PENDING_BYTES_MAX
        )
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if not await self._handle_news():
                    await asyncio.sleep(TICK_S)
                    self._news.set()
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def keep_track(self) -> None:
        """Once a second: can we hear, and who was heard? For ever."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def stay_awake(self) -> None:
        """Note once a second that this process did not stand still; waits for no server. For ever."""
        while True:
            self._context.heartbeats.stay_awake(self._context.clock_s())
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Ask NATS for a sign of life, and save those of hosts. Raises what the database raises."""
        self._hearing.tick(self._context.clock_s(), await self._server_answers())
        ages_s = self._context.heartbeats.take_unsaved(self._context.clock_s())
        if ages_s:
            async with self._transaction() as store:
                await store.lock()
                await store.saw_hosts(ages_s)

    async def _server_answers(self) -> bool:
        """Whether NATS answers now: a connection can look well long after it went silent."""
        try:
            await self._js().stream_info(ASSIGNMENTS.stream)
        except APIError:
            return True  # a refusal is an answer
        except (nats.errors.Error, JetStreamError, OSError):
            return False
        return True

    async def _receive(self, message: Msg) -> None:
        try:
            heartbeat = Heartbeat.model_validate_json(message.data, extra="ignore")
        except ValidationError as error:
            log.error("unreadable heartbeat", extra={"subject": message.subject, "error": str(error)})
            return
        if not _HOST_ID.match(heartbeat.host_id) or message.subject != heartbeat_subject(heartbeat.host_id):
            log.error("heartbeat in another's name", extra={"subject": message.subject, "host": heartbeat.host_id})
            return
        if self._context.heartbeats.hear(heartbeat, self._context.clock_s()):
            self._news.set()

    async def _handle_news(self) -> bool:
        """Handle each host's latest heartbeat; False when one failed and must be tried again."""
        well = True
        for heartbeat in self._context.heartbeats.news():
            try:
                async with self._transaction() as store:
                    await handlers.host_heard(heartbeat, store, context=self._context)
            except Exception:
                log.exception("a heartbeat could not be handled; it is tried again", extra={"host": heartbeat.host_id})
                well = False
            else:
                self._context.heartbeats.handled(heartbeat)
                self._after_commit()
        return well
