"""Runs kept requests on the data plane, as a client without a connection: through the same queue as all others."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import cast

from penstock_common.contracts.endpoint import EndpointState
from penstock_gateway.deferred.lifecycle import Outcome
from penstock_gateway.deferred.ports import Job
from penstock_gateway.domain import REPLICA_LOST, Refusal
from penstock_gateway.fairness import Place, Priority
from penstock_gateway.proxy.client import ClientConnection
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.replica import Replica
from penstock_gateway.proxy.request_head import RequestHead

BACKLOG_BYTES_MAX = 1024 * 1024
"""What of an answer waits in memory to be stored; beyond it the replica is not read."""
MOVED = Refusal(503, "moved", "another gateway has the endpoint's queue now")
_PLACE_PREFIX = "async "
"""A caller's later requests wait as another caller's than its own: they are not in the way of the others."""


class PlaneBackend:
    """`owns` says whether this gateway has an endpoint's queue."""

    def __init__(self, directory: Directory, *, owns: Callable[[str], bool] = lambda _: True) -> None:
        self._directory = directory
        self._owns = owns

    def state(self, endpoint_id: str) -> EndpointState | None:
        endpoint = self._directory.endpoints.get(endpoint_id)
        return None if endpoint is None else endpoint.route.state

    @property
    def current(self) -> bool:
        return self._directory.is_current()

    def owns(self, endpoint_id: str) -> bool:
        return self._owns(endpoint_id)

    def room(self, endpoint_id: str) -> int:
        """As many as the endpoint could work on at its largest, and one that waits: so the autoscaler sees all
        the load that it can do something about, and the queue is left to those who wait for an answer."""
        endpoint = self._directory.endpoints.get(endpoint_id)
        if endpoint is None:
            return 1
        scaling = endpoint.route.scaling
        slots = max(scaling.max_replicas, len(endpoint.route.replicas)) * scaling.target_concurrency
        return slots + (scaling.queue_limit > 1)

    async def run(self, job: Job) -> Outcome:
        endpoint = self._directory.endpoints.get(job.inference.endpoint_id)
        if endpoint is None:
            return Outcome(refusal=Refusal(404, "endpoint_gone", "there is no such endpoint"))
        inference = job.inference
        client = _Client()
        exchange = _Exchange(client, endpoint, inference.method, inference.target, job)
        place = Place(f"{_PLACE_PREFIX}{inference.key_id}", Priority.LOW)
        endpoint.admit(exchange, exchange.first_line, place)
        try:
            return await client.pass_on(exchange, job)
        finally:
            exchange.withdraw()


class _Client:
    """What an exchange needs of a client connection; keeps what comes until it is asked for."""

    draining = False
    reading_paused = False

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._head = b""
        self._in_body = False
        self._outcome: Outcome | None = None
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False
        self._exchange: _Exchange | None = None

    # --- called by the exchange and its upstream ------------------------------------------

    def send(self, data: bytes) -> None:
        self._pieces.append(data)
        self._backlog_bytes += len(data)
        exchange = self._exchange
        too_much = self._backlog_bytes > BACKLOG_BYTES_MAX and not self._paused
        if too_much and exchange is not None and exchange.upstream is not None:
            self._paused = True
            exchange.upstream.pause()
        self._changed.set()

    def finished(self, exchange: Exchange, now_s: float) -> None:
        self._end(Outcome())

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._end(Outcome(refusal=refusal, reached=cast("_Exchange", exchange).reached))

    def break_off(self, exchange: Exchange) -> None:
        self._end(Outcome(refusal=REPLICA_LOST, reached=True))

    def update_reading(self) -> None:
        """There is nothing to be read: the whole request is here."""

    # --- used by the backend --------------------------------------------------------------

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something for the exchange; what it raises ends the run."""
        task = asyncio.ensure_future(self._watched(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def give_up(self, outcome: Outcome) -> None:
        self._end(outcome)

    async def pass_on(self, exchange: "_Exchange", job: Job) -> Outcome:
        """Hand the answer to the job as it comes, no faster than the job takes it."""
        self._exchange = exchange
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    await self._take(piece, job)
                    self._backlog_bytes -= len(piece)
                    if self._paused and self._backlog_bytes <= BACKLOG_BYTES_MAX // 2:
                        self._paused = False
                        if exchange.upstream is not None:
                            exchange.upstream.resume()
                if self._failure is not None:
                    raise self._failure
                if self._outcome is not None:
                    return self._outcome
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._exchange = None
            for task in self._tasks:
                task.cancel()

    async def _take(self, data: bytes, job: Job) -> None:
        if self._in_body:
            await job.body(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._in_body = True
        first, *lines = head.split(b"\r\n")
        await job.head(int(first.split(b" ", 2)[1]), lines)
        if rest:
            await job.body(rest)

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            self._failure = error
            self._changed.set()

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._changed.set()


class _Exchange(Exchange):
    """An exchange that asks its job for the request once it has a slot. To its replica it is a request like any
    other; towards us its answer ends with HTTP/1.0, so that bodies come as they are, without a coding."""

    __slots__ = ("_begun", "_home", "_job", "first_line", "reached")

    def __init__(self, client: _Client, home: Endpoint, method: str, target: str, job: Job) -> None:
        head = RequestHead(method.encode("latin-1"), target.encode("latin-1"))
        head.http10 = True
        super().__init__(cast("ClientConnection", client), head, b"", monotonic())
        self.first_line = b"%b %b HTTP/1.1\r\n" % (head.method, head.target)
        self.reached = False
        self._home = home
        self._job = job
        self._begun = False

    def start(self, replica: Replica, now_s: float) -> None:
        if self.endpoint is not self._home:
            # It would be forwarded to another gateway, to wait there: that one finds it in the stream.
            self.withdraw()
            cast("_Client", self.client).give_up(Outcome(refusal=MOVED))
        elif self._begun:
            super().start(replica, now_s)
        else:
            self._begun = True
            self.replica = replica
            self.bound_s = now_s
            self.stage = Stage.CONNECTING
            cast("_Client", self.client).spawn(partial(self._begin, replica))

    async def _begin(self, replica: Replica) -> None:
        loaded = await self._job.begin()
        if self.stage is not Stage.CONNECTING:
            return
        if loaded is None:
            self.withdraw()
            cast("_Client", self.client).give_up(Outcome())
            return
        self.request = loaded.head
        self.pending = list(loaded.body)
        self.held_bytes = sum(map(len, self.pending))
        self.head.length = self.held_bytes
        self.request_done = True
        super().start(replica, monotonic())

    def refuse(self, refusal: Refusal) -> None:
        self.reached = self.stage is Stage.SENT
        super().refuse(refusal)

    def withdraw(self) -> None:
        """Give it up, whatever it is at; it is counted as nobody's request."""
        if self.stage is not Stage.DONE:
            self._leave()
