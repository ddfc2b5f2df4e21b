"""Every problem the API answers with, as RFC 9457 names them: one kind each, raised with its detail."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import ErrorDetails

from penstock_common.contracts.questions import FieldProblem
from penstock_common.errors import DomainError

PROBLEMS_MAX = 100
"""Wrong fields that one answer names."""
_FIRST_YEAR, _LAST_YEAR = 1970, 9000


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: `code` is for programs and never changes, `title` is for people."""

    code: str
    status: int
    title: str


INVALID_JSON = Kind("invalid_json", 400, "The body is not JSON")
UNAUTHENTICATED = Kind("unauthenticated", 401, "The API key is missing or not valid")
FORBIDDEN = Kind("forbidden", 403, "The API key may not do this")
NOT_FOUND = Kind("not_found", 404, "There is no such thing here")
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, "The method does not exist here")
CONFLICT = Kind("conflict", 409, "The present state does not allow this")
TOO_LARGE = Kind("too_large", 413, "The request is too large")
INVALID = Kind("invalid_request", 422, "The request has errors")
IDEMPOTENCY_MISMATCH = Kind("idempotency_mismatch", 422, "The Idempotency-Key was used for another request")
RATE_LIMITED = Kind("rate_limited", 429, "Too many requests")
INTERNAL = Kind("internal", 500, "The API failed")
BUSY = Kind("busy", 503, "The API is busy")
NO_HOST = Kind("no_host_connected", 503, "No host is connected")
UNAVAILABLE = Kind("unavailable", 503, "A part of the platform is away")
KINDS = (
    INVALID_JSON,
    UNAUTHENTICATED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    CONFLICT,
    TOO_LARGE,
    INVALID,
    IDEMPOTENCY_MISMATCH,
    RATE_LIMITED,
    INTERNAL,
    BUSY,
    NO_HOST,
    UNAVAILABLE,
)


class Problem(DomainError):
    """A request that is answered with an error. `errors` names the fields at fault."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: tuple[FieldProblem, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(kind.code, detail)
        self.kind = kind
        self.errors = errors
        self.retry_after_s = retry_after_s


def not_found(what: str, name: str) -> Problem:
    """For what does not exist and for what belongs to others alike: which one is nobody's business."""
    return Problem(NOT_FOUND, f"There is no {what} {name[:100]!r} in your organization.")


def conflict(detail: str) -> Problem:
    return Problem(CONFLICT, detail)


def invalid(*errors: FieldProblem) -> Problem:
    """One problem for all fields at fault, in the order given; of very many, the first PROBLEMS_MAX."""
    if len(errors) == 1:
        detail = f"{errors[0].field}: {errors[0].message}"
    elif len(errors) <= PROBLEMS_MAX:
        detail = f"{len(errors)} fields are wrong; see errors."
    else:
        detail = f"More than {PROBLEMS_MAX} fields are wrong; errors names the first of them."
    return Problem(INVALID, detail, errors=errors[:PROBLEMS_MAX])


def invalid_field(field: str, message: str) -> Problem:
    return invalid(FieldProblem(field=field, message=message))


def unavailable(service: str, detail: str, *, retry_after_s: int = 2) -> Problem:
    return Problem(UNAVAILABLE, f"The {service} is away: {detail}", retry_after_s=retry_after_s)


def in_utc(field: str, time: datetime) -> datetime:
    """The same moment in UTC. Raises Problem for one so far off that arithmetic with it would fail."""
    if not _FIRST_YEAR <= time.year <= _LAST_YEAR:
        raise invalid_field(field, f"must lie between the years {_FIRST_YEAR} and {_LAST_YEAR}")
    return time.astimezone(UTC)


def field_problems(errors: Iterable[ErrorDetails], *, skip: int = 0) -> Iterator[FieldProblem]:
    """What pydantic found, in the API's words: the first PROBLEMS_MAX, and one more if there are more.

    `skip` leaves out the first parts of each place.
    """
    told = 0
    for error in errors:
        if told > PROBLEMS_MAX:
            return
        if not _is_echo(error):
            told += 1
            field = ".".join(str(part) for part in error["loc"][skip:])
            yield FieldProblem(field=field or "body", message=_message(error, is_body=not field))


def _is_echo(error: ErrorDetails) -> bool:
    """Pydantic drops wrong items from a list, and then also says that the list is too short."""
    given = error["input"]
    return error["type"] == "too_short" and isinstance(given, list) and len(given) >= error["ctx"]["min_length"]


def _message(error: ErrorDetails, *, is_body: bool) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "this field is required"
        case "extra_forbidden":
            return "there is no such field: check its spelling"
        case "value_error":
            return str(context.get("error", error["msg"]))
        case "string_pattern_mismatch":
            return f"must match the pattern {context['pattern']}"
        case "literal_error":
            return f"must be {context['expected']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a JSON object" + (", sent with Content-Type: application/json" if is_body else "")
        case _:
            # Pydantic speaks of Python's types, users of JSON's.
            message = error["msg"].replace("dictionary", "object").replace("tuple", "list")
            return message[0].lower() + message[1:]
