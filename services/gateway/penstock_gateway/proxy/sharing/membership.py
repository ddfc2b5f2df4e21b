"""Which gateways there are, which of them owns an endpoint, and how long that is certain. Pure: time is an argument.

The owner is found by rendezvous hashing, highest random weight (Thaler and Ravishankar, "Using name-based mappings
to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998): all who know of the same gateways agree, and
one that comes or goes moves only what it gains or had.

Gateways may know of different ones for a moment, so an owner works under a lease. Each heartbeat names the last one
heard of every other gateway. One that has heard our heartbeat n takes us for live until LIVE_S after it heard it, so
LIVE_S after we sent n we start nothing more: whoever is to follow us begins later than that, whichever way messages
were lost, and also when we stood still. This is exact while clocks run at the same rate and two gateways that live can
reach each other at all; when they cannot, each serves what it can alone.
"""

import math
from collections import deque
from collections.abc import Iterable
from hashlib import blake2b

from penstock_common.contracts.gateways import GatewayHeartbeat

LIVE_S = 2.0
"""A gateway that was not heard from for so long is dead."""
ASK_S = 0.75
"""A gateway that was not heard from for so long is asked."""
STALL_S = 1.25
"""Who did not get to look at the clock for so long has stood still, and joins again: the silence of the others may
have been its own."""
JOIN_S = 2.25
"""How long a newcomer listens before it owns anything: it hears all who have not stood still for STALL_S."""
JOIN_STALL_S = 0.5
"""Who stood still for so long while it was to listen begins again."""
FORGET_S = 600.0


def owner_of(endpoint_id: str, gateway_ids: Iterable[str]) -> str | None:
    """Which of these gateways owns the endpoint; None when there are none."""
    return max(gateway_ids, key=lambda gateway_id: _weight(endpoint_id, gateway_id), default=None)


def _weight(endpoint_id: str, gateway_id: str) -> tuple[bytes, str]:
    return blake2b(f"{gateway_id}\0{endpoint_id}".encode(), digest_size=8).digest(), gateway_id


class _Known:
    __slots__ = ("counts_us", "heard_s", "hears_us", "lease_s", "said")

    def __init__(self, said: GatewayHeartbeat) -> None:
        self.said = said
        self.heard_s = -math.inf
        self.hears_us = False
        """Whether it has ever heard us. If it does not any more, it may follow us, so it still counts."""
        self.counts_us = False
        """Whether it has ever counted us among the members."""
        self.lease_s = -math.inf
        """Until when it takes us for live, for certain."""


class Membership:
    """What one gateway knows of the others. Times are of its own monotonic clock."""

    def __init__(self, gateway_id: str, now_s: float) -> None:
        self.leaving = False
        self.gateway_id = gateway_id
        self._sequence = 0
        self._sent: deque[tuple[int, float]] = deque()
        self._known: dict[str, _Known] = {}
        self._joined_s = now_s + JOIN_S
        self._looked_s = now_s
        self._settled = False
        """Whether everybody has counted us since we joined."""

    # --- what happens ---------------------------------------------------------------------

    def look(self, now_s: float) -> None:
        """Call this several times within STALL_S."""
        if now_s - self._looked_s > (JOIN_STALL_S if self.joining(self._looked_s) else STALL_S):
            self.join(now_s)
        self._looked_s = now_s
        self._settled = self._settled or now_s < self.lease_until_s(now_s)
        for gateway_id in [key for key, known in self._known.items() if now_s - known.heard_s > FORGET_S]:
            del self._known[gateway_id]

    def join(self, now_s: float) -> None:
        """Listen first: there may be gateways that are not known."""
        self._joined_s = now_s + JOIN_S
        self._settled = False

    def beat(self, now_s: float) -> int:
        """A heartbeat is being sent; returns its sequence."""
        self._sequence += 1
        self._sent.append((self._sequence, now_s))
        while now_s - self._sent[0][1] > LIVE_S:
            self._sent.popleft()
        return self._sequence

    def hear(self, said: GatewayHeartbeat, now_s: float) -> bool:
        """A heartbeat of another; returns whether it comes from one that was not live."""
        if said.gateway_id == self.gateway_id:
            return False
        known = self._known.setdefault(said.gateway_id, _Known(said))
        fresh = now_s - known.heard_s >= LIVE_S
        if known.heard_s > -math.inf and said.sequence <= known.said.sequence:
            return False
        known.said = said
        known.heard_s = now_s
        known.hears_us = known.hears_us or self.gateway_id in said.heard
        if self.gateway_id in said.members:
            known.counts_us = True
            sent_s = dict(self._sent).get(said.heard.get(self.gateway_id, 0))
            if sent_s is not None:
                known.lease_s = max(known.lease_s, sent_s + LIVE_S)
        else:
            # It may hold itself for the owner of what is ours.
            known.lease_s = -math.inf
        return fresh

    def lost(self, gateway_id: str) -> None:
        """Nobody listens at its address: it is dead, and need not be waited for."""
        self._known.pop(gateway_id, None)

    # --- what follows ---------------------------------------------------------------------

    def joining(self, now_s: float) -> bool:
        return now_s < self._joined_s

    def live(self, now_s: float) -> dict[str, GatewayHeartbeat]:
        """The last heartbeat of each other gateway that lives."""
        return {key: known.said for key, known in self._known.items() if now_s - known.heard_s < LIVE_S}

    def heard(self, now_s: float) -> dict[str, int]:
        return {gateway_id: said.sequence for gateway_id, said in self.live(now_s).items()}

    def members(self, now_s: float) -> frozenset[str]:
        """Who shares the endpoints: those that live, have heard us, and neither join nor leave. It can be empty."""
        others = frozenset(
            gateway_id
            for gateway_id, said in self.live(now_s).items()
            if self._known[gateway_id].hears_us and not said.joining and not said.leaving
        )
        if self.joining(now_s) or (self.leaving and others):
            return others
        return others | {self.gateway_id}

    def lease_until_s(self, now_s: float) -> float:
        """Until when we may start requests of what we own; in the past when we may not now.

        A newcomer waits until all who live count it, other newcomers too. Later only those matter who do count us:
        one that cannot hear us must not stop us.
        """
        if self.joining(now_s):
            return -math.inf
        needed = set(self.live(now_s))
        if self._settled:
            members = self.members(now_s)
            needed = {key for key in needed if key in members or self._follows(key)}
        return min((self._known[key].lease_s for key in needed), default=math.inf)

    def _follows(self, gateway_id: str) -> bool:
        known = self._known[gateway_id]
        return known.counts_us and not known.said.leaving

    def busy(self, now_s: float) -> dict[str, dict[str, int]]:
        """Endpoint → replica → requests that others who do not own the endpoint have not finished yet."""
        found: dict[str, dict[str, int]] = {}
        for said in self.live(now_s).values():
            for endpoint_id, replicas in said.busy.items():
                counts = found.setdefault(endpoint_id, {})
                for replica_id, count in replicas.items():
                    counts[replica_id] = counts.get(replica_id, 0) + count
        return found

    def to_ask(self, now_s: float) -> dict[str, str]:
        """The addresses of those that are silent, or do not hear us."""
        return {
            gateway_id: known.said.address
            for gateway_id, known in self._known.items()
            if now_s - known.heard_s >= ASK_S or self.gateway_id not in known.said.heard
        }
