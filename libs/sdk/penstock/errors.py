"""Everything that can go wrong, each as its own type. `str(error)` says what, and what to do next."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.effects import Failure, Request, Response
from penstock.retry import retry_after_s

if TYPE_CHECKING:
    from penstock.models.endpoint import EndpointData

_SNIPPET_CHARS = 300


class PenstockError(Exception):
    """Base of every error of this package. `hint` is the next thing to do, or empty."""

    hint: str = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        ending = "" if self.message.endswith((".", "!", "?", "\n")) else "."
        return f"{self.message}{ending} {self.hint}"


class NotConfigured(PenstockError):
    """No API address or key was given, or what was given cannot be used."""


class Unreachable(PenstockError):
    """Nothing answered at the address, or the answer was lost on its way."""

    hint = "Check that the platform runs (`penstock status`) and that its address is right."


class TimedOut(PenstockError):
    """It took longer than the time allowed."""


class UnexpectedAnswer(PenstockError):
    """The server's answer is not one that this version of the SDK understands."""

    hint = "Check that the address is a Penstock API, and that this SDK is as new as the platform."


class EndpointFailed(PenstockError):
    """The endpoint cannot run: `reason` names the cause, `log_tail` holds its last lines."""

    hint = "A failed endpoint cannot restart: mend the cause, terminate it, and create it again."

    def __init__(self, endpoint: "EndpointData") -> None:
        super().__init__(f"Endpoint {endpoint.full_name} failed: {endpoint.reason or 'no reason was given'}")
        self.endpoint = endpoint
        self.reason = endpoint.reason
        self.log_tail = endpoint.log_tail or ""


class WrongState(PenstockError):
    """What is waited for can no longer come: the endpoint went another way."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request, such as `routes.0.function`, and how to mend it."""

    field: str
    message: str


class ApiError(PenstockError):
    """The server refused. `code` is stable and for programs; `detail` is for people."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        lines = "".join(f"\n  {error.field}: {error.message}" for error in errors)
        super().__init__(f"{detail}{lines}\n" if lines else detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s: float | None = None


class InvalidRequest(ApiError):
    """Something in the request is wrong; `errors` lists every wrong field."""


class Unauthorized(ApiError):
    """The API key is missing, unknown, expired or revoked."""

    hint = "Check PENSTOCK_API_KEY, or run `penstock up` to configure this machine again."


class Forbidden(ApiError):
    """The key is good, but it may not do this; `detail` names the scope it lacks."""


class NotFound(ApiError):
    """There is no such thing, or it belongs to another organization."""

    hint = "List what there is (for example `penstock endpoint list`) and check the name."


class Conflict(ApiError):
    """The state of things forbids it, such as restarting a failed endpoint, or a name taken."""


class Ambiguous(InvalidRequest):
    """Several endpoints have this name, in different workspaces."""

    hint = "Name it as workspace/slug, or by its id."


class Unavailable(ApiError):
    """A service does not answer for the moment."""

    hint = "Try again shortly; `penstock status` shows which services run."


class Overloaded(Unavailable):
    """The endpoint has more requests than its replicas and its queue can take."""

    hint = "With more replicas, or a longer queue, the endpoint could take more."


class NotRunning(Unavailable):
    """The endpoint is stopped, failed or gone, and takes no requests; waiting does not change that."""

    hint = ""


class RateLimited(Overloaded):
    """Too many requests from this client."""

    hint = "Try again later with a growing wait."


class ModelError(ApiError):
    """The model's own code raised; the traceback is in the endpoint's log."""

    hint = "See the traceback with `penstock endpoint logs`."


class ServerError(ApiError):
    """The platform failed in a way it did not expect."""

    hint = "Look at the log of the service; if it happens again, report it with the request."


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_AT_ENDPOINT: Mapping[int, type[ApiError]] = {500: ModelError, 503: Overloaded}
NOT_RUNNING = "not_running"
"""Code of the 503 of an endpoint whose state takes no requests."""


def error_of(request: Request, outcome: Response | Failure) -> PenstockError:
    """The error that a failed exchange means."""
    if isinstance(outcome, Failure):
        return _lost(request, outcome)
    error = problem_error(problem_of(outcome), status=outcome.status, at_endpoint=request.at_endpoint)
    error.retry_after_s = retry_after_s(outcome.headers)
    return error


def problem_error(problem: Mapping[str, Any], *, status: int, at_endpoint: bool) -> ApiError:
    """The error that a problem document means."""
    code = str(problem.get("code") or f"http_{status}")
    detail = str(problem.get("detail") or problem.get("title") or f"The server answered {status}.")
    error = _kind(status, code, at_endpoint)(status, code, detail, _field_errors(problem.get("errors")))
    if at_endpoint and status in (401, 404, 409):
        error.hint = ""  # these hints are about the API; the gateway's details say enough
    return error


def _kind(status: int, code: str, at_endpoint: bool) -> type[ApiError]:
    if at_endpoint and code == NOT_RUNNING:
        return NotRunning
    if at_endpoint and status in _AT_ENDPOINT:
        return _AT_ENDPOINT[status]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ServerError if status >= 500 else InvalidRequest


def _lost(request: Request, failure: Failure) -> PenstockError:
    where = f"{request.method} {request.url}"
    if failure.timed_out:
        hint = Unreachable.hint if not failure.sent else "Ask again later, or allow more time."
        return TimedOut(f"{where} was not answered in time ({failure.message}).", hint)
    if not failure.sent:
        return Unreachable(f"Nothing answers at {request.url} ({failure.message}).")
    hint = "The request may have run; the endpoint's log tells." if request.at_endpoint else Unreachable.hint
    return Unreachable(f"The connection broke before {where} was answered ({failure.message}).", hint)


def problem_of(response: Response) -> dict[str, Any]:
    """The problem+json body, or as much of any other body as fits a message."""
    try:
        body = json.loads(response.body)
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    text = response.body[: 4 * _SNIPPET_CHARS].decode("utf-8", "replace").strip()
    if not text or "html" in response.media_type:
        return {}
    return {"detail": f"The server answered {response.status}: {text[:_SNIPPET_CHARS]}"}


def _field_errors(found: object) -> tuple[FieldError, ...]:
    if not isinstance(found, list):
        return ()
    return tuple(
        FieldError(str(item.get("field", "")), str(item.get("message", ""))) for item in found if isinstance(item, dict)
    )
