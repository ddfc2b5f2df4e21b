"""The awaiting client: `AsyncPenstock`. What its methods do is in `penstock.flows`."""

import asyncio
import random as random_module
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Concatenate, Literal, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

import httpx
from pydantic import PrivateAttr

from penstock.binding import present_as
from penstock.config import load
from penstock.context import PREDICT_TIMEOUT_S, TIMEOUT_S, Context, OnWait, context_for
from penstock.drivers.awaiting import AsyncSession
from penstock.effects import Steps, Stream
from penstock.errors import EndpointFailed
from penstock.flows import account, admin, capacity, endpoints, running, waiting
from penstock.flows.running import Here
from penstock.models.endpoint import EndpointData, Forecast, LifecycleEvent
from penstock.options import NewEndpoint
from penstock.retry import RetryPolicy

P = ParamSpec("P")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S")


class Bound(Protocol[S_co]):
    """An object whose methods are flows: what runs them, and what they are about."""

    @property
    def _session(self) -> AsyncSession: ...
    @property
    def _subject(self) -> S_co: ...


class Adopter(Bound[S_co], Protocol):
    """One that makes endpoints, or itself, of what flows tell of endpoints."""

    def _adopt(self, data: EndpointData) -> "AsyncEndpoint": ...


def method(flow: Callable[Concatenate[S, P], Steps[T]]) -> Callable[Concatenate[Bound[S], P], Coroutine[None, None, T]]:
    """A method that runs a flow and returns its result."""

    async def run(self: Bound[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._session.run(flow(self._subject, *args, **kwargs))

    present_as(run, flow)
    return run


def endpoint_method(
    flow: Callable[Concatenate[S, P], Steps[EndpointData]],
) -> Callable[Concatenate[Adopter[S], P], Coroutine[None, None, "AsyncEndpoint"]]:
    """The same for a flow that tells of an endpoint."""

    async def run(self: Adopter[S], /, *args: P.args, **kwargs: P.kwargs) -> "AsyncEndpoint":
        return self._adopt(await self._session.run(flow(self._subject, *args, **kwargs)))

    present_as(run, flow)
    return run


def items(flow: Callable[Concatenate[S, P], Stream[T]]) -> Callable[Concatenate[Bound[S], P], AsyncIterator[T]]:
    """A method that runs a flow and yields what it emits."""

    def run(self: Bound[S], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._session.iterate(flow(self._subject, *args, **kwargs))

    present_as(run, flow)
    return run


def endpoint_items(
    flow: Callable[Concatenate[S, P], Stream[EndpointData]],
) -> Callable[Concatenate[Adopter[S], P], AsyncIterator["AsyncEndpoint"]]:
    """The same for a flow that emits endpoints."""

    async def run(self: Adopter[S], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator["AsyncEndpoint"]:
        async for data in self._session.iterate(flow(self._subject, *args, **kwargs)):
            yield self._adopt(data)

    present_as(run, flow)
    return run


class EndpointMethods:
    """What an endpoint can be asked; apart from its fields, which pydantic handles."""

    refresh = endpoint_method(running.refresh)
    stop = endpoint_method(running.stop)
    restart = endpoint_method(running.restart)
    terminate = endpoint_method(running.terminate)
    predict = method(running.predict)
    request = method(running.request)
    stream = items(running.stream)
    logs = items(running.logs)
    events = items(running.events)
    usage = method(running.usage)
    metrics = method(running.metrics)


class AsyncEndpoint(EndpointMethods, EndpointData):
    """An endpoint. It shows the endpoint as of the last answer: `refresh()` asks again."""

    _session: AsyncSession = PrivateAttr()

    @property
    def _subject(self) -> Here:
        return Here(self._session.context, self)

    def _adopt(self, data: EndpointData) -> "AsyncEndpoint":
        """Fresh news of this endpoint bring this very object up to date."""
        self.__dict__.update(dict(data))
        return self

    async def wait(
        self,
        until: waiting.Goal = "running",
        *,
        or_idle: bool = False,
        timeout_s: float | None = None,
        on_event: Callable[[LifecycleEvent], object] | None = None,
        after_event_id: int = 0,
    ) -> "AsyncEndpoint":
        """Wait until the endpoint is `until`: running, idle, stopped or terminated; returns this object, fresh.

        One that sleeps, scaled to zero, does not run until a request wakes it; with `or_idle` it is as good
        as running.

        `on_event`, a function or coroutine function, is given each event of its history later than
        `after_event_id`, as it happens.
        Raises EndpointFailed, WrongState when it went another way, and TimedOut after `timeout_s`.
        """
        flow = waiting.wait(self._subject, until, or_idle=or_idle, timeout_s=timeout_s, after_event_id=after_event_id)
        try:
            return self._adopt(await self._session.run(flow, on_event))
        except EndpointFailed as failed:
            self._adopt(failed.endpoint)
            raise


class Resource:
    """A part of the API."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    @property
    def _subject(self) -> Context:
        return self._session.context

    def _adopt(self, data: EndpointData) -> AsyncEndpoint:
        endpoint = AsyncEndpoint.model_construct(**dict(data))
        endpoint._session = self._session
        return endpoint


class Endpoints(Resource):
    """Creating, finding and ending endpoints."""

    @overload
    async def create(self, *, dry_run: Literal[False] = False, **options: Unpack[NewEndpoint]) -> AsyncEndpoint: ...
    @overload
    async def create(self, *, dry_run: Literal[True], **options: Unpack[NewEndpoint]) -> Forecast: ...
    async def create(self, *, dry_run: bool = False, **options: Unpack[NewEndpoint]) -> AsyncEndpoint | Forecast:
        """Create an endpoint and return at once, while it is queued: `.wait()` for it to run.

        Options: name, git_uri and routes; git_ref, workspace, gpu_type, gpu_count, cpu_cores, memory_gb,
        disk_gb; replicas, or min_replicas and max_replicas; idle_timeout_s, scale_down_delay_s,
        queue_wait_target_s, schedule; target_concurrency, queue_limit, queue_timeout_s; public, idempotency_key.
        With `dry_run` nothing is made: the answer says what would happen, and what it would cost.
        Raises InvalidRequest, whose `errors` list every wrong field, and Conflict.
        """
        if dry_run:
            return await self._session.run(endpoints.forecast(self._subject, **options))
        return self._adopt(await self._session.run(endpoints.create(self._subject, **options)))

    get = endpoint_method(endpoints.get)
    list = endpoint_items(endpoints.listed)
    stop = endpoint_method(endpoints.stop)
    restart = endpoint_method(endpoints.restart)
    terminate = endpoint_method(endpoints.terminate)


class GpuTypes(Resource):
    """What GPUs there are."""

    list = method(capacity.gpus)


class Workspaces(Resource):
    """Places for endpoints; their slugs are part of URLs."""

    list = items(account.workspaces)
    create = method(account.create_workspace)
    delete = method(account.delete_workspace)


class Members(Resource):
    """The people, and programs, of the organization."""

    list = items(account.members)
    create = method(account.create_member)
    update = method(account.update_member)
    delete = method(account.delete_member)


class ApiKeys(Resource):
    """The organization's API keys."""

    list = items(account.api_keys)
    create = method(account.create_api_key)
    revoke = method(account.revoke_api_key)


class DeadLetterQueue(Resource):
    """Messages that consumers gave up on."""

    list = items(admin.dead_letters)
    retry = method(admin.retry_dead_letter)
    drop = method(admin.drop_dead_letter)


class Prices(Resource):
    """What GPUs and cores cost."""

    list = method(admin.prices)
    set = method(admin.set_price)


class Organizations(Resource):
    """The platform's tenants."""

    list = items(admin.organizations)
    create = method(admin.create_organization)


class Admin(Resource):
    """For operators of the platform; needs the scope platform:admin."""

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)
        self.dead = DeadLetterQueue(session)
        self.prices = Prices(session)
        self.organizations = Organizations(session)

    hosts = method(admin.hosts)
    replay = method(admin.replay)


class AsyncPenstock(Resource):
    """A client of one platform, for one event loop.

    Address and key: arguments, else PENSTOCK_API_URL and PENSTOCK_API_KEY, else what `penstock up`
    wrote. `timeout_s` bounds the API's silence, `predict_timeout_s` that of an endpoint.
    `on_wait` is told of each failure after which a request is tried again, and how long until then.
    `transport`, `sleep`, `random` and `monotonic` are for tests. Raises NotConfigured.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout_s: float = TIMEOUT_S,
        predict_timeout_s: float = PREDICT_TIMEOUT_S,
        on_wait: OnWait | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        context = context_for(
            load(api_url, api_key), retry or RetryPolicy(), timeout_s, predict_timeout_s, random, monotonic, on_wait
        )
        super().__init__(AsyncSession(context, sleep, transport))
        self.api_url = context.api_url
        self.endpoints = Endpoints(self._session)
        self.gpus = GpuTypes(self._session)
        self.workspaces = Workspaces(self._session)
        self.members = Members(self._session)
        self.api_keys = ApiKeys(self._session)
        self.admin = Admin(self._session)

    me = method(capacity.me)
    usage = method(capacity.usage)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.api_url!r})"
