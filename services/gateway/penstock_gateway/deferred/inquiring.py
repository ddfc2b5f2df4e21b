"""Answers what is asked about inferences: their status, their result, and that they are cancelled."""

from penstock_common.contracts.endpoint import INFERENCES_PATH
from penstock_common.contracts.inference import INFERENCE, OpenInference
from penstock_common.ids import is_id
from penstock_gateway.deferred import lifecycle
from penstock_gateway.deferred.accepting import Caller
from penstock_gateway.deferred.answering import POLL_AFTER_S, Desk, Taken
from penstock_gateway.deferred.board import Tracked
from penstock_gateway.deferred.runner import finish_once
from penstock_gateway.deferred.signing import written
from penstock_gateway.domain import Refusal
from penstock_gateway.proxy.exchange import Exchange

_SECRET_PATH = f"{INFERENCES_PATH}/webhook-secret"
NOT_FOUND = Refusal(
    404, "not_found", "this endpoint has no such inference, or its result was kept as long as it is and is gone"
)
NO_RESULT = Refusal(404, "no_result", "this inference has no result: its status says why")
NOT_FINISHED = Refusal(
    409, "not_finished", "this inference is not finished: ask again later, or ask for its status", POLL_AFTER_S
)
SECRET_NEEDS_KEY = Refusal(
    403, "no_api_key", "the webhook secret is told to API keys of the endpoint's organization only: send one"
)
NO_SECRET = Refusal(404, "no_webhooks", "this gateway sends no webhooks: its operator has set no webhook_secret")


class Inquiry(Taken):
    """A request about what is kept."""

    def __init__(self, desk: Desk, exchange: Exchange, caller: Caller, path: str) -> None:
        super().__init__(desk, exchange, caller)
        self._path = path

    def begin(self, request: bytes) -> None:
        self._exchange.pending, self._exchange.held_bytes = [], 0
        self._task = self._desk.spawn(self._tolerant(self._look))

    def write(self, data: bytes) -> None:
        """A question has no use for a body."""

    async def _look(self) -> None:
        method = self._exchange.head.method
        inference_id, _, rest = self._path.removeprefix(f"{INFERENCES_PATH}/").partition("/")
        if self._path == _SECRET_PATH:
            allowed: tuple[bytes, ...] = (b"GET",)
        else:
            allowed = (b"GET", b"HEAD", b"DELETE") if not rest else (b"GET", b"HEAD")
        if method not in allowed:
            names = b", ".join(allowed).decode()
            self._refuse(
                Refusal(405, "method_not_allowed", f"here only {names} is served", headers=(("Allow", names),))
            )
        elif self._path == _SECRET_PATH:
            self._tell_secret()
        elif not is_id(INFERENCE, inference_id) or rest not in {"", "result"}:
            self._refuse(NOT_FOUND)
        elif method == b"DELETE":
            await self._cancel(inference_id)
        else:
            await self._tell(inference_id, with_result=bool(rest))

    async def _tell(self, inference_id: str, *, with_result: bool) -> None:
        found = await self._desk.accepting.find(self._caller.route.endpoint_id, inference_id)
        if found is None:
            self._refuse(NOT_FOUND)
        elif not with_result:
            unfinished = isinstance(found, OpenInference)
            self._answer_json(200, self._status(found), b"Retry-After: %d\r\n" % POLL_AFTER_S if unfinished else b"")
        elif isinstance(found, OpenInference):
            self._refuse(NOT_FINISHED)
        elif found.result is None:
            self._refuse(NO_RESULT)
        else:
            await self._answer_result(found.result)

    async def _cancel(self, inference_id: str) -> None:
        desk, endpoint_id = self._desk, self._caller.route.endpoint_id
        found = await desk.accepting.find(endpoint_id, inference_id)
        if found is None:
            self._refuse(NOT_FOUND)
            return
        if isinstance(found, OpenInference):
            known = desk.board.get(inference_id)
            tracked = known or Tracked(found, 0)
            retention_s = desk.settings.deferred_retention_s
            cancelled = lifecycle.finished(found, lifecycle.CANCELLED, now=desk.now(), retention_s=retention_s)
            found = await finish_once(desk.keep, desk.board, tracked, cancelled, ttl_s=retention_s)
        self._answer_json(200, self._status(found))

    def _tell_secret(self) -> None:
        if not self._caller.key_id:
            self._refuse(SECRET_NEEDS_KEY)
            return
        secret = self._desk.sender.secret(self._caller.route.organization_id)
        if secret is None:
            self._refuse(NO_SECRET)
            return
        said = {"organization_id": self._caller.route.organization_id, "secret": written(secret)}
        self._answer_json(200, said)
