"""Follows the stream of records: fills the board, and knows which gateways are alive."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from pydantic import ValidationError

from penstock_common.contracts.inference import OpenInference
from penstock_common.contracts.topology import INFERENCE_GATEWAYS, INFERENCES, OPEN_INFERENCES, inference_gateway
from penstock_gateway.deferred.board import Board

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
SILENCE_S_MAX = 5.0
"""Without a heartbeat for so long, the server has forgotten us, or cannot be reached."""
FORGOTTEN_AFTER_S = 30.0
"""The server forgets us when nobody has listened for so long."""
RETRY_S = 0.5
YIELD_EVERY = 32
_GATEWAY = inference_gateway("")


class Presence:
    """Who was heard when. `lost` says who has been silent for too long.

    A gateway judges others only while it hears itself: else it is the one that is cut off, or NATS is away, and
    everybody's time begins anew when it is back. Pure but for the clock, which is an argument.
    """

    def __init__(self, gateway_id: str, lost_after_s: float) -> None:
        self._gateway_id = gateway_id
        self._lost_after_s = lost_after_s
        self._heard: dict[str, float] = {}
        self._gone: set[str] = set()
        self._since_s = float("inf")

    def heard(self, gateway_id: str, now_s: float) -> None:
        if gateway_id == self._gateway_id and not self.hears_itself(now_s):
            self._since_s = now_s
        self._heard[gateway_id] = now_s
        self._gone.discard(gateway_id)

    def said_goodbye(self, gateway_id: str) -> None:
        self._gone.add(gateway_id)

    def hears_itself(self, now_s: float) -> bool:
        return now_s - self._heard.get(self._gateway_id, float("-inf")) < self._lost_after_s / 2

    def lost(self, gateway_id: str, now_s: float) -> bool:
        if gateway_id == self._gateway_id or not self.hears_itself(now_s):
            return False
        heard_s = max(self._heard.get(gateway_id, float("-inf")), self._since_s)
        return gateway_id in self._gone or now_s - heard_s > self._lost_after_s


class Follower:
    """Keeps `board` as the stream has it. `run` it for ever."""

    def __init__(self, js: Callable[[], JetStreamContext], board: Board, presence: Presence) -> None:
        self._js = js
        self._board = board
        self._presence = presence

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except (nats.errors.Error, JetStreamError, OSError, RuntimeError) as error:
                log.info("not following inferences; starting again", extra={"error": repr(error)})
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        """A whole snapshot, then each change, until the server or the connection is lost."""
        js = self._js()
        before = (await js.stream_info(INFERENCES.name)).state.last_seq + 1
        # A bare subscription: all that is needed is to see that something is missing, and then to start again.
        inbox = js._nc.new_inbox()
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        subscription = await js._nc.subscribe(inbox, cb=arrived.put)
        name = f"gateway-{inbox.rpartition('.')[2]}"
        try:
            info = await js.add_consumer(
                INFERENCES.name,
                ConsumerConfig(
                    name=name,
                    deliver_subject=inbox,
                    filter_subjects=[OPEN_INFERENCES, INFERENCE_GATEWAYS],
                    deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                    ack_policy=AckPolicy.NONE,
                    idle_heartbeat=HEARTBEAT_S,
                    inactive_threshold=FORGOTTEN_AFTER_S,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
            left = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
            await self._read(arrived, before, empty=not left)
        finally:
            with suppress(nats.errors.Error, JetStreamError, OSError):
                await subscription.unsubscribe()
                await js.delete_consumer(INFERENCES.name, name)

    async def _read(self, arrived: asyncio.Queue[Msg], before: int, *, empty: bool) -> None:
        seen: set[str] | None = set()
        expected = 1
        while True:
            if seen is not None and empty:
                self._board.keep_only(seen, before=before)
                seen = None
            # Not the library's next_msg, nor wait_for: both can lose a cancellation.
            async with asyncio.timeout(SILENCE_S_MAX):
                message = await arrived.get()
            if message.headers is not None and "Status" in message.headers:
                continue  # a heartbeat
            if message.metadata.sequence.consumer != expected:
                return  # something was lost on the way
            expected += 1
            self._take(message, seen)
            if not expected % YIELD_EVERY:
                # A long snapshot must not hold up the data plane.
                await asyncio.sleep(0)
            empty = not message.metadata.num_pending

    def _take(self, message: Msg, seen: set[str] | None) -> None:
        if message.subject.startswith(_GATEWAY):
            gateway_id = message.subject.removeprefix(_GATEWAY)
            if message.data:
                self._presence.heard(gateway_id, monotonic())
            else:
                self._presence.said_goodbye(gateway_id)
            return
        inference_id = message.subject.rpartition(".")[2]
        revision = message.metadata.sequence.stream
        if not message.data:
            self._board.remove(inference_id, revision)
            return
        if seen is not None:
            seen.add(inference_id)
        try:
            self._board.put(OpenInference.model_validate_json(message.data), revision)
        except ValidationError as error:
            log.error("unreadable record of an inference", extra={"inference_id": inference_id, "error": str(error)})
