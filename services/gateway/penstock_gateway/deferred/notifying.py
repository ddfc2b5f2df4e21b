"""Tells by webhook that an inference is finished, until it is delivered or given up."""

import json
import logging
import random
from collections.abc import Callable
from datetime import datetime

from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.board import Board, Tracked
from penstock_gateway.deferred.keeping import Keep
from penstock_gateway.deferred.webhooks import WebhookSender

log = logging.getLogger(__name__)


class Notifier:
    """One attempt at a time; the record says when the next one is due."""

    def __init__(self, keep: Keep, board: Board, sender: WebhookSender, now: Callable[[], datetime]) -> None:
        self._keep = keep
        self._board = board
        self._sender = sender
        self._now = now

    async def __call__(self, tracked: Tracked) -> None:
        """Raises Unkept and Conflict: then the webhook is sent again, with the same webhook-id."""
        inference, revision = tracked
        webhook = inference.webhook
        finished = await self._keep.find_finished(inference.endpoint_id, inference.inference_id)
        if webhook is None or webhook.next_at is None or finished is None:
            # There is nothing to tell any more.
            self._board.remove(inference.inference_id, await self._keep.end(inference, revision))
            return
        body = json.dumps(lifecycle.webhook_body(finished), ensure_ascii=False).encode()
        attempted = await self._sender.send(
            webhook.url,
            inference.organization_id,
            f"msg_{inference.inference_id}",
            body,
            int(self._now().timestamp()),
        )
        webhook = lifecycle.notified(
            webhook, attempted.problem, final=attempted.final, now=self._now(), chance=random.random()
        )
        if attempted.problem:
            log.info(
                "a webhook was not delivered",
                extra={"inference_id": inference.inference_id, "problem": attempted.problem},
            )
        await self._keep.amend(finished.model_copy(update={"webhook": webhook}), self._now())
        if webhook.next_at is None:
            self._board.remove(inference.inference_id, await self._keep.end(inference, revision))
        else:
            later = inference.model_copy(update={"webhook": webhook})
            self._board.put(later, await self._keep.update(later, revision))
