"""Takes an asynchronous request: checks it, keeps it, and only then says where its outcome will be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock_common.contracts.endpoint import INFERENCES_PATH
from penstock_common.contracts.inference import INFERENCE, FinishedInference, OpenInference, RememberedKey, Webhook
from penstock_common.contracts.records import Route
from penstock_common.ids import new_id
from penstock_gateway.deferred.addresses import BadWebhook
from penstock_gateway.deferred.board import Board
from penstock_gateway.deferred.keeping import Conflict, Keep
from penstock_gateway.deferred.requests import KeptRequest, NotTaken, bad_header, owner_sha256, request_sha256
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.deferred.webhooks import WebhookSender
from penstock_gateway.domain import QueueView, Refusal, retry_after_s

RETRY_AFTER_S = 30
"""Said when there is no service rate to estimate from."""
SLACK_S = 24 * 3600
"""What is kept of a request outlives the longest wait and run by so much; normally it is dropped long before."""
FULL = 0.9
"""The share of the streams from which on nothing new is taken: the rest is for outcomes."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for what. `key_id` is empty for strangers at a public endpoint."""

    route: Route
    key_id: str
    view: QueueView


class Accepting:
    """`fullness` is kept up to date from outside: from 0 to 1, how full the streams are."""

    def __init__(
        self,
        keep: Keep,
        board: Board,
        sender: WebhookSender,
        settings: DeferredSettings,
        now: Callable[[], datetime],
    ) -> None:
        self.fullness = 0.0
        self._keep = keep
        self._board = board
        self._sender = sender
        self._settings = settings
        self._now = now

    def check(self, caller: Caller, kept: KeptRequest) -> None:
        """Raises NotTaken for what is wrong before the body is there, and when there is no room."""
        if kept.webhook is not None:
            if self._settings.webhook_secret is None:
                raise bad_header(
                    "Penstock-Webhook", "this gateway has no webhook_secret to sign with: poll the status URL"
                )
            try:
                self._sender.check(kept.webhook)
            except BadWebhook as bad:
                raise bad_header("Penstock-Webhook", str(bad)) from None
        settings, board, route = self._settings, self._board, caller.route
        of_organization, of_endpoint = board.unfinished_of(route.organization_id), board.unfinished(route.endpoint_id)
        if of_organization >= settings.deferred_per_organization_max:
            raise NotTaken(self._too_many(429, "organization", of_organization, caller.view))
        if of_endpoint >= settings.deferred_per_endpoint_max:
            raise NotTaken(self._too_many(503, "endpoint", of_endpoint, caller.view))
        if len(board) >= settings.deferred_open_max or self.fullness >= FULL:
            raise NotTaken(self._too_many(503, "gateway", len(board), caller.view))

    async def keep(self, caller: Caller, kept: KeptRequest, body: Sequence[bytes]) -> OpenInference | FinishedInference:
        """The inference of this request: a new one, or the one that its Idempotency-Key stands for.

        Raises NotTaken, and Unkept when JetStream does not take it.
        """
        inference_id = new_id(INFERENCE)
        if kept.idempotency_key is not None:
            remembered = await self._remembered(caller, kept, body, inference_id)
            if remembered.inference_id != inference_id:
                inference_id = remembered.inference_id
                known = await self.find(caller.route.endpoint_id, inference_id)
                if known is not None:
                    return known
        writer = self._keep.writer(self._settings.deferred_wait_s_max + SLACK_S)
        writer.head(kept.head)
        for piece in body:
            await writer.body(piece)
        inference = OpenInference(
            inference_id=inference_id,
            endpoint_id=caller.route.endpoint_id,
            organization_id=caller.route.organization_id,
            key_id=caller.key_id,
            method=kept.method,
            target=kept.target,
            url=f"{kept.endpoint_url}{INFERENCES_PATH}/{inference_id}",
            created_at=self._now(),
            request=await writer.finish(),
            repeatable=kept.repeatable,
            webhook=None if kept.webhook is None else Webhook(url=kept.webhook),
        )
        try:
            self._board.put(inference, await self._keep.create(inference))
        except Conflict:
            # The same request came twice at once.
            await writer.drop()
            return await self.find(caller.route.endpoint_id, inference_id) or inference
        return inference

    async def find(self, endpoint_id: str, inference_id: str) -> OpenInference | FinishedInference | None:
        """An inference of an endpoint, wherever it stands. Raises Unkept."""
        tracked = self._board.get(inference_id)
        if tracked is not None and tracked.inference.state != "notifying":
            return tracked.inference if tracked.inference.endpoint_id == endpoint_id else None
        finished = await self._keep.find_finished(endpoint_id, inference_id)
        if finished is None:
            found = await self._keep.find_open(endpoint_id, inference_id)
            if found is not None and found[0].state != "notifying":
                return found[0]
            # Perhaps it was finished between the two looks.
            finished = await self._keep.find_finished(endpoint_id, inference_id)
        return finished

    async def _remembered(
        self, caller: Caller, kept: KeptRequest, body: Sequence[bytes], inference_id: str
    ) -> RememberedKey:
        key = RememberedKey(inference_id=inference_id, request_sha256=request_sha256(kept, body))
        owner = owner_sha256(caller.route.endpoint_id, caller.key_id, kept.idempotency_key or "")
        ttl_s = self._settings.deferred_wait_s_max + self._settings.deferred_retention_s
        remembered = await self._keep.remember(owner, key, ttl_s)
        if remembered.request_sha256 != key.request_sha256:
            message = "it was used for another request: take a new key for each new request"
            raise NotTaken(replace(bad_header("Idempotency-Key", message).refusal, status=422))
        return remembered

    def _too_many(self, status: int, whose: str, count: int, view: QueueView) -> Refusal:
        after_s = retry_after_s(replace(view, waiting=count)) or RETRY_AFTER_S
        detail = (
            f"{count} asynchronous requests of this {whose} are unfinished, or there is no room to keep more. "
            "Try again after the time in Retry-After, with growing waits"
        )
        return Refusal(status, "too_many_deferred", detail, after_s, {"reason": f"{whose}_full", "unfinished": count})
