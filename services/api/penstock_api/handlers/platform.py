"""What handlers are given: transactions on the API's tables, and questions to other services."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from penstock_api.domain.problems import INVALID, UNAVAILABLE, Problem, unavailable
from penstock_api.store import Store
from penstock_common.contracts.base import Question
from penstock_common.errors import DomainError, Unavailable

_INTERNAL_CODES = frozenset({"internal", "invalid_question"})


class Platform(Protocol):
    """The part of penstock_common's Service that handlers use."""

    def transaction(self) -> AbstractAsyncContextManager[Store]: ...

    async def restore_topology(self) -> list[str]: ...

    async def ask(self, question: Question, *, deadline_s: float | None = None, subject: str | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    cursor: str | None = None


async def answer_of(platform: Platform, question: Question, *, deadline_s: float | None = None) -> Any:
    """Another service's answer.

    Raises Problem: 503 when it is away or failed (try again later), 422 when it refused the request.
    """
    try:
        return await platform.ask(question, deadline_s=deadline_s)
    except Unavailable as error:
        raise unavailable(error.service, error.detail) from error
    except DomainError as error:
        if error.code in _INTERNAL_CODES:
            raise Problem(UNAVAILABLE, error.detail, retry_after_s=5) from error
        raise Problem(INVALID, error.detail) from error
