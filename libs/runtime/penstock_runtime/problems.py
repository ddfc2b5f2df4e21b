"""Error answers in the shape of RFC 9457 (application/problem+json)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic_core import to_json

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field and what is wrong with it, in words that follow the field's name."""

    field: str
    message: str


class Problem(Exception):
    """A request that is answered with an error: HTTP status, stable code, and words for a person."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = tuple(headers)

    def document(self) -> dict[str, object]:
        """The problem as the JSON object that the client gets."""
        return {
            "type": f"urn:penstock:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "errors": [{"field": error.field, "message": error.message} for error in self.errors],
        }

    def encode(self) -> bytes:
        """The problem as JSON in UTF-8. A lone surrogate in a model's message is escaped, as JSON allows none."""
        try:
            return to_json(self.document())
        except ValueError:
            detail = self.detail.encode("utf-8", "backslashreplace").decode()
            return to_json({**self.document(), "detail": detail})
