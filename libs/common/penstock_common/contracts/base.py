"""What every message has in common.

A fact carries its subject as a class attribute; the subject is also its CloudEvents type. Readers
ignore fields they do not know, so a version may gain optional fields and nothing else.
"""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict


class Contract(BaseModel):
    """A frozen message part. Unknown fields are ignored, as the versioning rule asks."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Message(Contract):
    """Something published on a JetStream stream; `message_type` is its CloudEvents `ce-type`."""

    message_type: ClassVar[str]


class Event(Message):
    """A fact: something that happened, published on the subject equal to its type."""


class Record(Contract):
    """Desired state kept in a JetStream key-value bucket."""

    bucket: ClassVar[str]

    def key(self) -> str:
        """The record's key inside its bucket."""
        raise TypeError(f"{type(self).__name__} does not define its key")


class Question(Contract):
    """A request/reply call; `rpc` is its subject and `reply` the type of the answer."""

    rpc: ClassVar[str]
    reply: ClassVar[type[Contract]]
    deadline_s: ClassVar[float] = 5.0


def _utc(value: datetime) -> datetime:
    offset = value.utcoffset()
    if offset is None or offset.total_seconds() != 0:
        raise ValueError("must be in UTC")
    return value


UtcTime = Annotated[AwareDatetime, AfterValidator(_utc)]
