"""The flows that all others are made of: one call with its retries, one list page by page, one stream."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.context import EVENT_STREAM, Context, Query
from penstock.effects import (
    Done,
    Emit,
    Failure,
    Request,
    Response,
    Sleep,
    Steps,
    Stream,
    Transfer,
    advance,
    open_stream,
    read,
    send,
)
from penstock.errors import NOT_RUNNING, UnexpectedAnswer, error_of, problem_of
from penstock.retry import retry_after_s
from penstock.sse import EventParser, ServerEvent

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_STOPPED_AT_WORK = "stopping"
"""Code of a replica's own 503: it was told to stop before its model had answered."""
PAGE_MAX = 200
STREAM_SILENCE_S = 45.0
"""Streams send something at least every 15 s: after three times that the connection is dead."""


def call(ctx: Context, request: Request) -> Steps[Response]:
    """The answer to a request, repeated while that is safe and the policy allows. Raises PenstockError."""
    return (yield from _persist(ctx, request, send))


def opened(ctx: Context, request: Request) -> Steps[Response]:
    """The same for an answer that is then read piece by piece."""
    return (yield from _persist(ctx, request, open_stream))


def _persist(
    ctx: Context, request: Request, begin: Callable[[Request], Generator[Transfer, Any, Response | Failure]]
) -> Steps[Response]:
    began_s = ctx.monotonic()
    tried = 0
    while True:
        outcome = yield from begin(request)
        if isinstance(outcome, Response) and outcome.status < 400:
            return outcome
        tried += 1
        delay_s = delay_before_repeat(ctx, request, outcome, tried, ctx.monotonic() - began_s)
        error = error_of(request, outcome)
        if delay_s is None:
            raise error
        ctx.on_wait(error, delay_s)
        yield Sleep(delay_s)


def delay_before_repeat(
    ctx: Context, request: Request, outcome: Response | Failure, tried: int, elapsed_s: float
) -> float | None:
    """How long to wait before sending the request again; None where that is unsafe or too late."""
    if not may_repeat(request, outcome):
        return None
    never_sent = isinstance(outcome, Failure) and not outcome.sent
    wanted_s = retry_after_s(outcome.headers) if isinstance(outcome, Response) else None
    return ctx.retry.delay_s(
        tried, elapsed_s=elapsed_s, random=ctx.random(), retry_after_s=wanted_s, reached=not never_sent
    )


def may_repeat(request: Request, outcome: Response | Failure) -> bool:
    """Whether to send the request again: it could not do its work twice, and waiting may help.

    503 and 429 are said before any work begins: the API and the gateway refuse there, and pass
    nothing on. The exception is a replica that stops while it works. After a lost answer only what
    is idempotent, or carries an Idempotency-Key, is repeated.
    """
    if isinstance(outcome, Failure):
        return not outcome.sent or request.repeatable
    if outcome.status == 503:
        code = problem_of(outcome).get("code")
        if code == NOT_RUNNING:
            return "retry-after" in outcome.headers
        return code != _STOPPED_AT_WORK or request.repeatable
    return outcome.status == 429 or (outcome.status in (502, 504) and request.repeatable)


def fetch(ctx: Context, request: Request, model: type[M]) -> Steps[M]:
    """A call whose answer is this model."""
    response = yield from call(ctx, request)
    return parsed(request, response, model)


def parsed(request: Request, response: Response, model: type[M]) -> M:
    """The answer as this model. Raises UnexpectedAnswer."""
    try:
        return model.model_validate_json(response.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise UnexpectedAnswer(
            f"{request.method} {request.url} answered {response.status} with something else than expected "
            f"({where}: {first['msg']})."
        ) from error


class _Page(BaseModel):
    items: list[Any]
    next_cursor: str | None = None


def pages(
    ctx: Context, path: str, model: type[M], *, query: Query | None = None, limit: int | None = None
) -> Stream[M]:
    """Every item of a list, fetched page by page as they are taken; at most `limit`."""
    left = limit
    cursor: str | None = None
    while left is None or left > 0:
        size = PAGE_MAX if left is None else min(left, PAGE_MAX)
        request = ctx.api("GET", path, query={**(query or {}), "limit": size, "cursor": cursor})
        response = yield from call(ctx, request)
        page = parsed(request, response, _Page)
        for item in page.items[:left]:
            yield Emit(_validated(request, item, model))
        left = None if left is None else left - len(page.items)
        if not page.next_cursor or page.next_cursor == cursor:
            return
        cursor = page.next_cursor


def collect(stream: Stream[T]) -> Steps[list[T]]:
    """All that a stream emits."""
    items: list[T] = []
    outcome: object = None
    while True:
        effect = advance(stream, outcome)
        if isinstance(effect, Done):
            return items
        outcome = None
        if isinstance(effect, Emit):
            items.append(effect.item)
        else:
            outcome = yield effect


def select(stream: Stream[T], keep: Callable[[T], bool]) -> Stream[T]:
    """The stream without the items that are not to be kept."""
    outcome: object = None
    while True:
        effect = advance(stream, outcome)
        if isinstance(effect, Done):
            return
        outcome = None
        if not isinstance(effect, Emit) or keep(effect.item):
            outcome = yield effect


def _validated(request: Request, item: object, model: type[M]) -> M:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise UnexpectedAnswer(
            f"{request.method} {request.url} answered with an item that is not as expected ({what})."
        ) from error


@dataclass(frozen=True, slots=True)
class Listened:
    """How one connection to a stream ended."""

    last_id: str
    heard: bool
    """Whether at least one event came."""
    matched: bool = False
    """Whether it ended because of an event that the caller waited for."""
    outcome: Response | Failure | None = None
    """The refusal or the break that ended it; None when the server ended it in good order."""
    retry_s: float | None = None


def listen(
    ctx: Context,
    request: Request,
    parse: Callable[[ServerEvent], T | None],
    *,
    last_id: str = "",
    until: Callable[[T], bool] = lambda _: False,
) -> Generator[Transfer | Emit[T], Any, Listened]:
    """One connection to a stream of server-sent events: emits what `parse` makes of each."""
    if last_id:
        request = replace(request, headers={**request.headers, "Last-Event-ID": last_id})
    response = yield from open_stream(request)
    if isinstance(response, Failure) or response.status >= 400:
        return Listened(last_id, heard=False, outcome=response)
    if response.status == 204:
        return Listened(last_id, heard=False, matched=True)
    if response.media_type != EVENT_STREAM:
        raise UnexpectedAnswer(f"{request.method} {request.url} answered {response.media_type}, not events.")
    parser = EventParser(last_id)
    heard = False
    while True:
        chunk = yield from read()
        if isinstance(chunk, Failure) or not chunk:
            outcome = chunk if isinstance(chunk, Failure) else None
            return Listened(parser.last_id, heard, outcome=outcome, retry_s=parser.retry_s)
        for event in _events(parser, request, chunk):
            heard = True
            item = parse(event)
            if item is not None:
                yield Emit(item)
                if until(item):
                    return Listened(parser.last_id, heard, matched=True)


def _events(parser: EventParser, request: Request, chunk: bytes) -> Iterator[ServerEvent]:
    try:
        yield from parser.feed(chunk)
    except ValueError as error:
        raise UnexpectedAnswer(f"{request.method} {request.url}: {error}.") from error


def follow(
    ctx: Context,
    request: Request,
    parse: Callable[[ServerEvent], T | None],
    *,
    until: Callable[[T], bool] = lambda _: False,
) -> Stream[T]:
    """A stream for as long as it has something to say, through any number of broken connections.

    It resumes where it broke. It ends after an item for which `until` holds, or when the server
    answers 204. Raises PenstockError when the server refuses, or cannot be reached for as long as
    the retry policy allows.
    """
    last_id = ""
    failures, failing_since_s = 0, ctx.monotonic()
    while True:
        listened = yield from listen(ctx, request, parse, last_id=last_id, until=until)
        if listened.matched:
            return
        last_id = listened.last_id
        if listened.heard:
            failures, failing_since_s = 0, ctx.monotonic()
        failures += 1
        delay_s = delay_after(ctx, request, listened, failures, ctx.monotonic() - failing_since_s)
        yield Sleep(delay_s)


def delay_after(ctx: Context, request: Request, listened: Listened, failures: int, elapsed_s: float) -> float:
    """How long to wait before connecting again. Raises the error that ended the connection, if it must."""
    floor_s = min(listened.retry_s or 0.0, ctx.retry.longest_delay_s)
    if listened.outcome is None or _broke_off(listened.outcome):
        # An ended or broken stream is no failure of the server: connecting again costs nothing.
        return floor_s + ctx.random() * ctx.retry.ceiling_s(min(failures, ctx.retry.attempts))
    error = error_of(request, listened.outcome)
    delay_s = delay_before_repeat(ctx, request, listened.outcome, failures, elapsed_s)
    if delay_s is None:
        raise error
    ctx.on_wait(error, max(floor_s, delay_s))
    return max(floor_s, delay_s)


def _broke_off(outcome: Response | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.sent


def items_of(kind: str, model: type[M]) -> Callable[[ServerEvent], M | None]:
    """Parses the data of events of this kind as this model; events of other kinds are passed over."""

    def parse(event: ServerEvent) -> M | None:
        if event.event != kind:
            return None
        try:
            return model.model_validate_json(event.data)
        except ValidationError as error:
            raise UnexpectedAnswer(
                f"The stream sent an event that is not as expected: {event.data[:200]!r}."
            ) from error

    return parse
