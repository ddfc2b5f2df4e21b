"""What operators of the platform see."""

from pydantic import Field

from penstock.models.base import Micros, Result, Utc


class Host(Result):
    """A machine that runs replicas."""

    id: str
    state: str
    """up, lost or left."""
    last_seen_at: Utc
    cpu_cores: int = 0
    memory_gb: int = 0
    disk_gb: int = 0
    gpus: dict[str, int] = Field(default_factory=dict)
    """GPU type → how many."""
    gpus_used: int = 0
    replicas: int = 0
    driver: str = ""
    simulated: bool = False


class DeadLetter(Result):
    """A message that a consumer could not handle, kept with its error."""

    sequence: int
    at: Utc
    subject: str = ""
    type: str = ""
    message_id: str | None = None
    """Without one it cannot be sent again."""
    consumer: str = ""
    error: str = ""
    deliveries: int = 0
    preview: str = ""
    """The beginning of the message, without text that could hold secrets."""


class DeadLetters(Result):
    """A part of the dead letters, newest first; `next_before` fetches the next part."""

    items: tuple[DeadLetter, ...]
    next_before: int | None = None


class Replayed(Result):
    """How much one service published again."""

    events: int = 0
    records: int = 0
    error: str | None = None
    """Why it could not, if it could not."""


class Replay(Result):
    """What a replay published again, by service."""

    services: dict[str, Replayed]


class Hosts(Result):
    items: tuple[Host, ...]


class Price(Result):
    """The price of one GPU of a type (`CPU`: of one core; `*`: of any other type) for one hour."""

    gpu_type: str
    micros_per_hour: Micros
    currency: str
    valid_from: Utc | None = None


class Prices(Result):
    items: tuple[Price, ...]
