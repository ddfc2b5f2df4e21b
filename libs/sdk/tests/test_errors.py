"""Errors: each its own type, and words that say what to do next."""

from collections.abc import Mapping
from typing import Any

import pytest

from penstock import errors
from penstock.effects import Failure, Request, Response

API = Request("GET", "http://api.test/v1/x")
ENDPOINT = Request("POST", "http://gateway.test/e/a/b/predict", at_endpoint=True)


def error(request: Request, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Any:
    return errors.error_of(request, Response(status, headers or {}, body))


@pytest.mark.parametrize(
    ("request_", "status", "code", "kind"),
    [
        (API, 400, "invalid_json", errors.InvalidRequest),
        (API, 401, "unauthenticated", errors.Unauthorized),
        (API, 403, "forbidden", errors.Forbidden),
        (API, 404, "not_found", errors.NotFound),
        (API, 409, "conflict", errors.Conflict),
        (API, 413, "too_large", errors.InvalidRequest),
        (API, 422, "invalid_request", errors.InvalidRequest),
        (API, 429, "rate_limited", errors.RateLimited),
        (API, 500, "internal", errors.ServerError),
        (API, 503, "unavailable", errors.Unavailable),
        (API, 504, "timeout", errors.Unavailable),
        (ENDPOINT, 404, "unknown_path", errors.NotFound),
        (ENDPOINT, 422, "invalid_body", errors.InvalidRequest),
        (ENDPOINT, 500, "model_error", errors.ModelError),
        (ENDPOINT, 502, "replica_lost", errors.Unavailable),
        (ENDPOINT, 503, "overloaded", errors.Overloaded),
        (ENDPOINT, 503, "not_running", errors.NotRunning),
    ],
)
def test_each_refusal_has_its_type(request_: Request, status: int, code: str, kind: type[errors.ApiError]) -> None:
    found = error(request_, status, f'{{"code": "{code}", "detail": "Because."}}'.encode())
    assert type(found) is kind
    assert (found.status, found.code, found.detail) == (status, code, "Because.")
    assert str(found).startswith("Because.")


def test_field_errors_are_data_and_words() -> None:
    body = b'{"detail": "2 fields are wrong.", "errors": [{"field": "a.0", "message": "m1"}, {"field": "b"}, "x"]}'
    found = error(API, 422, body)
    assert found.errors == (errors.FieldError("a.0", "m1"), errors.FieldError("b", ""))
    assert "a.0: m1" in str(found)


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b"", {}, "The server answered 502."),
        (b"<html>Bad gateway</html>", {"content-type": "text/html"}, "The server answered 502."),
        (b"upstream is down", {"content-type": "text/plain"}, "The server answered 502: upstream is down"),
        (b"[1]", {"content-type": "application/json"}, "The server answered 502: [1]"),
        (b'{"title": "Only a title"}', {}, "Only a title."),
        (b"\xff" * 10_000, {}, "The server answered 502: "),
    ],
)
def test_any_answer_makes_a_readable_error(body: bytes, headers: dict[str, str], words: str) -> None:
    found = error(API, 502, body, headers)
    assert str(found).startswith(words)
    assert len(str(found)) < 600
    assert found.code == "http_502"


def test_retry_after_is_part_of_the_error() -> None:
    assert error(API, 503, headers={"retry-after": "7"}).retry_after_s == 7


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (Failure("refused", sent=False), errors.Unreachable, "Nothing answers at http://api.test"),
        (Failure("reset", sent=True), errors.Unreachable, "The connection broke before GET"),
        (Failure("slow", sent=True, timed_out=True), errors.TimedOut, "was not answered in time"),
        (Failure("slow", sent=False, timed_out=True), errors.TimedOut, "penstock status"),
    ],
)
def test_silence_has_its_types_too(failure: Failure, kind: type[Exception], words: str) -> None:
    found = errors.error_of(API, failure)
    assert type(found) is kind
    assert words in str(found)


def test_message_and_hint_are_two_sentences() -> None:
    assert str(errors.PenstockError("It broke", "Mend it.")) == "It broke. Mend it."
    assert str(errors.PenstockError("It broke.", "Mend it.")) == "It broke. Mend it."
    assert str(errors.PenstockError("It broke")) == "It broke"
