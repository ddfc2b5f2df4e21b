"""What the routes work with; put together in app.py."""

from dataclasses import dataclass

from penstock_api.authentication import Authentication
from penstock_api.dead_letters import DeadLetters
from penstock_api.domain.windows import Resolutions
from penstock_api.handlers.endpoints import Desk
from penstock_api.handlers.platform import Platform
from penstock_api.rate_limit import RateLimit
from penstock_api.streams import StreamPlaces, Wakeups


@dataclass(frozen=True, slots=True)
class Api:
    """The parts of one API process."""

    platform: Platform
    desk: Desk
    authentication: Authentication
    rate_limit: RateLimit
    wakeups: Wakeups
    places: StreamPlaces
    dead_letters: DeadLetters
    stream_heartbeat_s: float
    resolutions: Resolutions
