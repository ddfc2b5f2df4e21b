"""What the SDK asks of the outside world, as data.

Everything the SDK decides is written once, as generators ("flows") that yield effects and are sent
their outcomes. Two small drivers carry effects out: one blocks, one awaits. A flow does no I/O, so
its retries and reconnections are tested without a network.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, whole."""

    method: str
    url: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)
    repeatable: bool = False
    """Whether sending it twice has the effect of sending it once."""
    at_endpoint: bool = False
    """Whether a gateway answers it, and not the API."""
    timeout_s: float = 60.0
    """Longest silence of the server."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Names of `headers` are in lower case; `body` is empty while the answer is being streamed."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. `sent` says whether the server may have seen the request."""

    message: str
    sent: bool
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Exchange a request for a whole answer. Outcome: Response or Failure."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Start an answer that is then Read. Outcome: Response or Failure. Errors arrive with their body."""

    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """The next bytes of the opened answer. Outcome: bytes, empty at its end, or Failure."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T_co]):
    """Hand one item to the caller, who takes it when it likes."""

    item: T_co


Transfer: TypeAlias = Send | Open | Read | Sleep
Steps: TypeAlias = Generator[Transfer, Any, T]
"""A flow with one result."""
Stream: TypeAlias = Generator[Transfer | Emit[T], Any, None]
"""A flow that emits items as they come."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """The flow has ended, with this result."""

    result: T_co


def advance(flow: Generator[Any, Any, T], outcome: object) -> Any:
    """The flow's next effect, given the outcome of its last one (None to begin), or Done."""
    try:
        return flow.send(outcome)
    except StopIteration as stop:
        return Done(stop.value)


def send(request: Request) -> Generator[Transfer, Any, Response | Failure]:
    outcome: Response | Failure = yield Send(request)
    return outcome


def open_stream(request: Request) -> Generator[Transfer, Any, Response | Failure]:
    outcome: Response | Failure = yield Open(request)
    return outcome


def read() -> Generator[Transfer, Any, bytes | Failure]:
    outcome: bytes | Failure = yield Read()
    return outcome
