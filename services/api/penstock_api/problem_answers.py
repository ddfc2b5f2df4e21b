"""Every error of a request as `application/problem+json`."""

import json
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from penstock_api.domain import problems
from penstock_api.domain.problems import Kind, Problem, field_problems
from penstock_api.handlers.presenting import problem_view
from penstock_api.outage import OUTAGES

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_OF_STATUS: dict[int, Kind] = {
    400: problems.INVALID_JSON,
    404: problems.NOT_FOUND,
    405: problems.METHOD_NOT_ALLOWED,
    413: problems.TOO_LARGE,
}


def install_problem_answers(app: FastAPI) -> None:
    """Answer whatever is raised with a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for outage in OUTAGES:
        app.add_exception_handler(outage, _outage)
    app.add_exception_handler(Exception, _unexpected)


def problem_answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The response that says what `problem` is."""
    kind = problem.kind
    view = problem_view(problem)
    found = dict(headers or {})
    if kind.status == 401:
        found["WWW-Authenticate"] = 'Bearer realm="penstock"'
    if problem.retry_after_s is not None:
        found["Retry-After"] = str(problem.retry_after_s)
    # ASCII, because what users sent may be quoted in it and need not be valid Unicode.
    return Response(json.dumps(view.model_dump()), kind.status, headers=found, media_type=MEDIA_TYPE)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_answer(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return problem_answer(Problem(problems.INVALID_JSON, f"The body is not JSON: {found[0]['ctx']['error']}."))
    return problem_answer(problems.invalid(*field_problems(found, skip=1)))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _OF_STATUS.get(error.status_code, problems.INTERNAL)
    if kind is problems.NOT_FOUND:
        detail = f"There is no {request.url.path}: see /openapi.json for what there is."
    elif kind is problems.METHOD_NOT_ALLOWED:
        detail = f"{request.url.path} does not know the method {request.method}."
    else:
        detail = str(error.detail)
    return problem_answer(Problem(kind, detail), dict(error.headers or {}))


async def _outage(_: Request, error: Exception) -> Response:
    log.warning("PostgreSQL is away", extra={"error": repr(error)})
    return problem_answer(problems.unavailable("database", "try again in a moment."))


async def _unexpected(request: Request, error: Exception) -> Response:
    # The server logs the traceback; the caller learns nothing of the inside.
    log.error("a request failed", extra={"method": request.method, "path": request.url.path, "error": repr(error)})
    return problem_answer(Problem(problems.INTERNAL, "The request failed; the log of the API says why."))
