"""Asynchronous inference, wired: what the gateway starts, stops and asks."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from nats.js import JetStreamContext

from penstock_common.ids import new_id
from penstock_gateway.deferred.accepting import Accepting
from penstock_gateway.deferred.answering import Desk
from penstock_gateway.deferred.backend import PlaneBackend
from penstock_gateway.deferred.board import Board
from penstock_gateway.deferred.budget import Budget
from penstock_gateway.deferred.door import Door
from penstock_gateway.deferred.following import Follower, Presence
from penstock_gateway.deferred.keeping import Keep, Unkept
from penstock_gateway.deferred.notifying import Notifier
from penstock_gateway.deferred.ports import Plane
from penstock_gateway.deferred.runner import Runner
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.deferred.webhooks import WebhookSender
from penstock_gateway.proxy.directory import Directory

log = logging.getLogger(__name__)

ROOM_EVERY_S = 10.0
SIGNS_OF_LIFE = 5
"""How many are given in the time after which a gateway is taken to be lost."""


class Deferred:
    """`js` gives JetStream once it was reached. Make it inside a running event loop; `run` it for ever from when
    the gateway has started, and `stop` it before the data plane is drained of what waits.

    `owns` says whether this gateway has an endpoint's queue. `gateway_id` must be another after every start.
    """

    def __init__(
        self,
        directory: Directory,
        js: Callable[[], JetStreamContext],
        settings: DeferredSettings,
        *,
        owns: Callable[[str], bool] = lambda _: True,
        gateway_id: str | None = None,
        plane: Plane | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.gateway_id = gateway_id or new_id("gw")
        self.board = Board()
        self._keep = Keep(js)
        self._settings = settings
        self._stopped = False
        presence = Presence(self.gateway_id, settings.deferred_lost_after_s)
        budget = Budget(settings.deferred_held_bytes_max)
        sender = WebhookSender(settings, tls)
        self._accepting = Accepting(self._keep, self.board, sender, settings, _now)
        self._follower = Follower(js, self.board, presence)
        self._runner = Runner(
            keep=self._keep,
            board=self.board,
            presence=presence,
            plane=plane or PlaneBackend(directory, owns=owns),
            budget=budget,
            settings=settings,
            gateway_id=self.gateway_id,
            notify=Notifier(self._keep, self.board, sender, _now),
            now=_now,
        )
        self._desk = Desk(
            keep=self._keep,
            board=self.board,
            accepting=self._accepting,
            sender=sender,
            budget=budget,
            settings=settings,
            now=_now,
        )
        self.door = Door(self._desk)

    async def run(self) -> None:
        """Follow the stream and run what is kept."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run())
            group.create_task(self._say_alive())
            group.create_task(self._runner.run())
            group.create_task(self._watch_room())

    async def stop(self, limit_s: float) -> None:
        """Begin nothing more; let what runs finish, and what arrives be kept, for at most `limit_s`."""
        self.board.release()
        await asyncio.gather(self._runner.stop(limit_s), self._desk.stop(limit_s))
        self._stopped = True
        with suppress(Unkept):
            await self._keep.say_gone(self.gateway_id)

    async def _say_alive(self) -> None:
        """Let the other gateways know that this one is there."""
        while not self._stopped:
            try:
                await self._keep.say_alive(self.gateway_id)
            except Unkept as error:
                log.info("no sign of life could be given", extra={"error": str(error)})
            await asyncio.sleep(self._settings.deferred_lost_after_s / SIGNS_OF_LIFE)

    async def _watch_room(self) -> None:
        while True:
            try:
                self._accepting.fullness = await self._keep.fullness()
            except Unkept as error:
                log.info("how full the streams are is not known", extra={"error": str(error)})
            await asyncio.sleep(ROOM_EVERY_S)


def _now() -> datetime:
    return datetime.now(UTC)
