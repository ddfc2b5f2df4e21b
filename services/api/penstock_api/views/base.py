"""What the API's answers and bodies have in common."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock_common.contracts.questions import FieldProblem

_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]+$"
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=_NO_CONTROL_CHARACTERS)
]
Email = Annotated[
    str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$", to_lower=True)
]


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Body(BaseModel):
    """A request body: an unknown field is an error, because it is usually a typing slip."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(View):
    """An error (RFC 9457), as `application/problem+json`."""

    type: str = Field(
        description="Kind of problem, as a URN that never changes.", examples=["urn:penstock:problem:invalid_request"]
    )
    title: str = Field(description="The kind in words.", examples=["The request has errors"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(
        description="What is wrong with this request, and how to mend it.",
        examples=["gpu.type: no host has a 'RTX 9090': choose one that GET /v1/gpus lists"],
    )
    code: str = Field(description="The last part of `type`, for programs.", examples=["invalid_request"])
    errors: list[FieldProblem] = Field(description="Each field at fault; empty when it is not about fields.")


def next_cursor() -> str | None:
    """The field that every list ends with."""
    cursor: str | None = Field(
        description="Give this as `cursor` to get the next part; null at the end.", examples=["Ut5qOGVwXzAxa2Fh"]
    )
    return cursor


def moment(description: str) -> datetime:
    """A field that holds a time."""
    time: datetime = Field(description=f"{description} In UTC.", examples=["2026-03-01T12:00:00.000000Z"])
    return time


def maybe_moment(description: str) -> datetime | None:
    """A field that holds a time, or null."""
    time: datetime | None = Field(
        default=None, description=f"{description} In UTC.", examples=["2026-03-01T12:00:00.000000Z"]
    )
    return time
