"""Takes the body of an asynchronous request, has it kept, and says where its outcome will be."""

from typing import cast

from penstock_common.contracts.endpoint import INFERENCES_PATH
from penstock_common.contracts.inference import FinishedInference
from penstock_gateway.deferred import prefer
from penstock_gateway.deferred.accepting import Caller
from penstock_gateway.deferred.answering import POLL_AFTER_S, Desk, Taken
from penstock_gateway.deferred.requests import KeptRequest, NotTaken, keep_request
from penstock_gateway.domain import BODY_TOO_LARGE, Refusal
from penstock_gateway.proxy.bodies import ChunkedDecoder
from penstock_gateway.proxy.exchange import Exchange

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_MEMORY = Refusal(
    503, "too_many_deferred", "too many asynchronous requests arrive at once: try again", retry_after_s=1
)


class Arrival(Taken):
    """A request to be kept."""

    def __init__(self, desk: Desk, exchange: Exchange, caller: Caller) -> None:
        super().__init__(desk, exchange, caller)
        self._kept: KeptRequest | None = None
        self._decoder = ChunkedDecoder() if exchange.head.chunked else None
        self._body: list[bytes] = []
        self._held_bytes = 0
        self._is_kept = False

    def begin(self, request: bytes) -> None:
        exchange, desk = self._exchange, self._desk
        try:
            kept = self._kept = keep_request(request)
            desk.accepting.check(self._caller, kept)
        except NotTaken as refused:
            exchange.refuse(refused.refusal)
            return
        if kept.length is not None and kept.length > desk.settings.deferred_body_bytes_max:
            exchange.refuse(BODY_TOO_LARGE)
            return
        if kept.expects_continue and not exchange.request_done:
            exchange.interim(100, _CONTINUE)
        arrived, exchange.pending, exchange.held_bytes = exchange.pending, [], 0
        if exchange.client.reading_paused:
            exchange.client.update_reading()
        self.write(b"".join(arrived))

    def write(self, data: bytes) -> None:
        exchange, desk = self._exchange, self._desk
        if self._task is not None or self._over:
            return
        pieces = [data] if self._decoder is None else self._decoder.feed(data)[0]
        count = sum(map(len, pieces))
        if self._held_bytes + count > desk.settings.deferred_body_bytes_max:
            exchange.refuse(BODY_TOO_LARGE)
        elif count and not desk.budget.take_now(count):
            exchange.refuse(NO_MEMORY)
        else:
            self._held_bytes += count
            self._body += pieces
            if exchange.request_done:
                self._task = desk.spawn(self._tolerant(self._keep_and_answer))

    def drop(self) -> None:
        # What has begun to be kept is kept whole, although its caller may never learn of it.
        if self._is_kept or self._task is None:
            super().drop()
        self._give_memory()

    async def _keep_and_answer(self) -> None:
        desk, kept = self._desk, cast("KeptRequest", self._kept)
        inference = await desk.accepting.keep(self._caller, kept, self._body)
        self._is_kept = True
        self._body = []
        self._give_memory()
        asked = prefer.asked(kept.prefer) or prefer.Asked()
        wait_s = asked.wait_s
        if wait_s is not None:
            held_s = min(wait_s, desk.settings.deferred_prefer_wait_s_max)
            await desk.board.finished(inference.inference_id, held_s)
            if self._over:
                return
            now_known = await desk.accepting.find(inference.endpoint_id, inference.inference_id)
            if isinstance(now_known, FinishedInference) and now_known.result is not None:
                applied = prefer.applied(wait_s, later=False)
                await self._answer_result(now_known.result, f"Preference-Applied: {applied}\r\n".encode())
                return
            inference = now_known or inference
        applied = prefer.applied(wait_s, later=True)
        path = f"{kept.endpoint_path}{INFERENCES_PATH}/{inference.inference_id}"
        fields = f"Location: {path}\r\nPreference-Applied: {applied}\r\nRetry-After: {POLL_AFTER_S}\r\n"
        self._answer_json(202, self._status(inference), fields.encode("latin-1"))

    def _give_memory(self) -> None:
        count, self._held_bytes = self._held_bytes, 0
        if count:
            self._desk.budget.give(count)
