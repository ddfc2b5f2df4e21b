"""What a gateway says of itself to the other gateways, on core NATS twice a second; losing one costs nothing."""

from pydantic import Field

from penstock_common.contracts.base import Contract

GATEWAYS = "gateways.*"
"""Subject of every gateway's heartbeats."""


class GatewayHeartbeat(Contract):
    """Published on `gateways.<gateway_id>`, and given straight to a gateway that is not heard from."""

    gateway_id: str
    """New at each start of a process."""
    address: str
    """`host:port` that other gateways forward requests to."""
    proof: str
    """Shows that the sender has the secret that all gateways share: others are not listened to."""
    sequence: int
    """Grows with each heartbeat."""
    heard: dict[str, int] = Field(default_factory=dict)
    """Gateway → sequence of its last heartbeat, of those heard from lately."""
    members: tuple[str, ...] = ()
    """The gateways that share the endpoints, as the sender knows them."""
    busy: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Endpoint → replica → requests of endpoints that are another's by now and not finished here yet."""
    joining: bool = False
    """It has just started, or stood still: it may not know of all others yet, and owns nothing."""
    leaving: bool = False
    """It is stopping: it owns nothing any more."""


def gateway_subject(gateway_id: str) -> str:
    return f"gateways.{gateway_id}"
