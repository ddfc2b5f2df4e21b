"""What all results have in common."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Result(BaseModel):
    """Part of an answer: frozen, and tolerant of fields that a newer platform adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Utc = AwareDatetime
Micros = Annotated[int, Field(description="Millionths of the currency.")]
