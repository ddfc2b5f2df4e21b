"""What planning decides, as data: each action names everything it needs, and why."""

from dataclasses import dataclass, field
from datetime import datetime

from penstock_common.contracts.events import EndCause


@dataclass(frozen=True, slots=True)
class LoseHost:
    host_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndReplica:
    replica_id: str
    endpoint_id: str
    cause: EndCause
    at: datetime
    """When it last ran, as far as is known."""
    reason: str


@dataclass(frozen=True, slots=True)
class Unassign:
    replica_id: str
    endpoint_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    endpoint_id: str
    generation: int
    host_id: str
    gpu_uuids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Tell a waiting endpoint where it stands."""

    endpoint_id: str
    position: int
    reason: str
    estimated_start_at: datetime | None


@dataclass(frozen=True, slots=True)
class Shortage:
    """Tell an endpoint with some replicas what there is no room for; an empty text when there is again."""

    endpoint_id: str
    text: str


@dataclass(frozen=True, slots=True)
class GiveWay:
    """Drain an idle replica, so that an endpoint that waits can have its room."""

    replica_id: str
    endpoint_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Purge:
    endpoint_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to plan again if nothing happens before."""

    at: datetime
    lost: tuple[LoseHost, ...] = ()
    ended: tuple[EndReplica, ...] = ()
    unassigned: tuple[Unassign, ...] = ()
    placed: tuple[Place, ...] = ()
    waiting: tuple[Wait, ...] = ()
    short: tuple[Shortage, ...] = ()
    giving_way: tuple[GiveWay, ...] = ()
    purged: tuple[Purge, ...] = ()
    wake_at: datetime | None = None
    queued: int = field(default=0, compare=False)
    """Endpoints that have no room, told again or not."""

    @property
    def empty(self) -> bool:
        return not (
            self.lost
            or self.ended
            or self.unassigned
            or self.placed
            or self.waiting
            or self.short
            or self.giving_way
            or self.purged
        )
