"""One gateway among several: tells and hears who lives, and says of each endpoint whose it is.

Heartbeats go over NATS. A gateway that is not heard there, because NATS is away or it is, is asked directly.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import nats.errors
from pydantic import ValidationError

from penstock_common.contracts.gateways import GatewayHeartbeat
from penstock_common.contracts.records import Route
from penstock_gateway.proxy.context import Context
from penstock_gateway.proxy.listener import Listener
from penstock_gateway.proxy.replica import parse_address
from penstock_gateway.proxy.sharing.asking import ask
from penstock_gateway.proxy.sharing.endpoint import SharedEndpoint, moved
from penstock_gateway.proxy.sharing.envelope import MOVED_HEADER, proof
from penstock_gateway.proxy.sharing.inbound import PeerConnection
from penstock_gateway.proxy.sharing.membership import Membership, owner_of
from penstock_gateway.proxy.sharing.peer import Peer
from penstock_gateway.stats import EndpointStats

if TYPE_CHECKING:
    from penstock_gateway.proxy.plane import DataPlane

log = logging.getLogger(__name__)

BEAT_S = 0.5
LOOK_S = 0.2
SOON_S = 0.02
"""Heartbeats that something gives occasion for come no closer than this."""
MORE_HEAD_BYTES = 8 * 1024
"""A head grows by what one gateway says to the other."""
MORE_HEADERS = 16


class Cluster:
    """`publish` sends a heartbeat to all other gateways, and may raise what NATS raises."""

    def __init__(self, plane: "DataPlane", gateway_id: str, secret: str) -> None:
        settings = plane.context.limits
        self.context: Context = plane.context
        self.gateway_id = gateway_id
        self.secret = secret
        self.limits = settings.model_copy(
            update={
                "replica_timeout_s": float("inf"),
                "head_bytes_max": settings.head_bytes_max + MORE_HEAD_BYTES,
                "response_head_bytes_max": settings.response_head_bytes_max + MORE_HEAD_BYTES,
                "headers_max": settings.headers_max + MORE_HEADERS,
                "target_bytes_max": settings.target_bytes_max + MORE_HEAD_BYTES,
            }
        )
        self.publish: Callable[[GatewayHeartbeat], Awaitable[None]] = _nowhere
        self.relayed = EndpointStats()
        """What was forwarded to other gateways."""
        self.moved = moved(secret)
        self.moved_line = f"{MOVED_HEADER}: {secret}".encode()
        self.stranded: set[SharedEndpoint] = set()
        """Endpoints with requests that wait here for the owner to be reached."""
        self.lease_until_s = float("-inf")
        self.address = ""
        self._plane = plane
        self._membership = Membership(gateway_id, monotonic())
        self._members: frozenset[str] = frozenset()
        self._may_start = False
        self._busy: dict[str, dict[str, int]] = {}
        self._owners: dict[str, str | None] = {}
        self._peers: dict[str, Peer] = {}
        self._leftover: set[SharedEndpoint] = set()
        self._asking: set[str] = set()
        self._soon = asyncio.Event()
        self._beat_s = float("-inf")
        self._listener = Listener(self.context.loop, lambda: PeerConnection(plane, self), shared=False)

    # --- life -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen for the others and begin to tell of us. Raises OSError."""
        settings = self.context.limits
        try:
            port = await self._listener.open(settings.forward_host, settings.forward_port)
        except OSError:
            if not settings.forward_port:
                raise
            log.warning("forward_port is taken; another is used", extra={"port": settings.forward_port})
            port = await self._listener.open(settings.forward_host, 0)
        host = f"[{settings.forward_host}]" if ":" in settings.forward_host else settings.forward_host
        self.address = f"{host}:{port}"
        self.context.spawn(self._run())

    def join(self) -> None:
        """The others can be heard from now on: listen before owning anything."""
        if not self._membership.live(monotonic()):
            self._membership.join(monotonic())
        self.tell_soon()

    def leave(self) -> None:
        """We stop: the others take over, and what is under way here is finished here."""
        self._membership.leaving = True
        self._look()
        self.tell_soon()

    async def close(self) -> None:
        """Nothing is under way any more."""
        self._leftover.clear()
        await self._beat()
        await self._listener.close(handshake_s=0)

    # --- whose an endpoint is -------------------------------------------------------------

    def owns(self, endpoint_id: str) -> bool:
        return self._owner(endpoint_id) == self.gateway_id

    def make_endpoint(self, context: Context, route: Route) -> SharedEndpoint:
        return SharedEndpoint(context, route, self)

    def check(self, now_s: float) -> None:
        """Ask this before a request starts: it may be that we stood still, and that others took over."""
        if now_s >= self.lease_until_s and self._may_start:
            self._look(now_s)

    def settle(self, endpoint: SharedEndpoint) -> None:
        """Tell an endpoint how it stands."""
        endpoint_id = endpoint.route.endpoint_id
        owner = self._owner(endpoint_id)
        mine = owner == self.gateway_id
        if not mine and endpoint.queue.in_flight:
            self._leftover.add(endpoint)
        lent: Mapping[str, int] | None = self._busy.get(endpoint_id, {}) if mine and self._may_start else None
        endpoint.settle(None if mine or owner is None else self._peers[owner], lent)

    def _owner(self, endpoint_id: str) -> str | None:
        try:
            return self._owners[endpoint_id]
        except KeyError:
            owner = self._owners[endpoint_id] = owner_of(endpoint_id, self._members)
            return owner

    # --- hearing --------------------------------------------------------------------------

    def hear(self, data: bytes) -> GatewayHeartbeat | None:
        """A heartbeat, as JSON; None for what is none of a gateway with our secret."""
        try:
            said = GatewayHeartbeat.model_validate_json(data)
            parse_address(said.address)
        except (ValidationError, ValueError) as error:
            log.warning("a heartbeat cannot be read", extra={"error": str(error)})
            return None
        if said.proof != proof(self.secret, said.gateway_id, said.address):
            log.warning("a gateway has another gateway_secret", extra={"gateway_id": said.gateway_id})
            return None
        if self._membership.hear(said, monotonic()) or self.gateway_id not in said.heard:
            self.tell_soon()
        self._look()
        return said

    def asked(self, data: bytes) -> bytes | None:
        """A heartbeat that came directly; returns ours."""
        return None if self.hear(data) is None else self._heartbeat().model_dump_json().encode()

    # --- telling --------------------------------------------------------------------------

    def tell_soon(self) -> None:
        """Something changed that the others wait for."""
        self._soon.set()

    def _heartbeat(self) -> GatewayHeartbeat:
        now_s, membership = monotonic(), self._membership
        self._leftover = {endpoint for endpoint in self._leftover if endpoint.leftover and not self._is_mine(endpoint)}
        return GatewayHeartbeat(
            gateway_id=self.gateway_id,
            address=self.address,
            proof=proof(self.secret, self.gateway_id, self.address),
            sequence=membership.beat(now_s),
            heard=membership.heard(now_s),
            members=tuple(sorted(self._members)),
            busy={endpoint.route.endpoint_id: endpoint.leftover for endpoint in self._leftover},
            joining=membership.joining(now_s),
            leaving=membership.leaving,
        )

    def _is_mine(self, endpoint: SharedEndpoint) -> bool:
        return self.owns(endpoint.route.endpoint_id)

    async def _beat(self) -> None:
        self._beat_s = monotonic()
        try:
            await self.publish(self._heartbeat())
        except (nats.errors.Error, OSError) as error:
            log.debug("a heartbeat could not be sent", extra={"error": repr(error)})

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception:
                log.exception("telling of this gateway failed; going on")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._soon.wait()

    async def _turn(self) -> None:
        self._look()
        if self._soon.is_set() or monotonic() >= self._beat_s + BEAT_S:
            self._soon.clear()
            await self._beat()
            await asyncio.sleep(SOON_S)
        for gateway_id, address in self._membership.to_ask(monotonic()).items():
            if gateway_id not in self._asking:
                self._asking.add(gateway_id)
                self.context.spawn(self._ask(gateway_id, address))
        stranded, self.stranded = self.stranded, set()
        for endpoint in stranded:
            endpoint.pass_on()

    async def _ask(self, gateway_id: str, address: str) -> None:
        try:
            answer = await ask(address, self.secret, self._heartbeat().model_dump_json().encode())
            said = self.hear(answer)
            if said is not None and said.gateway_id != gateway_id:
                self._membership.lost(gateway_id)
        except ConnectionRefusedError:
            log.info("a gateway is gone", extra={"gateway_id": gateway_id, "address": address})
            self._membership.lost(gateway_id)
            self._look()
        except OSError as error:
            log.debug("a gateway does not answer", extra={"gateway_id": gateway_id, "error": repr(error)})
        finally:
            self._asking.discard(gateway_id)

    # --- what follows ---------------------------------------------------------------------

    def _look(self, now_s: float | None = None) -> None:
        """Work out who is there, and settle the endpoints for which that changes something."""
        now_s = monotonic() if now_s is None else now_s
        membership = self._membership
        membership.look(now_s)
        members, busy = membership.members(now_s), membership.busy(now_s)
        self.lease_until_s = membership.lease_until_s(now_s)
        may_start = now_s < self.lease_until_s
        gone = self._keep_peers(membership.live(now_s))
        before, self._busy = self._busy, busy
        endpoints = self._plane.directory.endpoints
        if members != self._members or may_start is not self._may_start:
            if members != self._members:
                log.info("gateways that share the endpoints", extra={"members": sorted(members)})
                self._owners.clear()
            self._members, self._may_start = members, may_start
            self.tell_soon()
            touched = set(endpoints)
        else:
            touched = {key for key in before.keys() | busy.keys() if before.get(key) != busy.get(key)}
        for endpoint_id in touched:
            endpoint = endpoints.get(endpoint_id)
            if isinstance(endpoint, SharedEndpoint):
                self.settle(endpoint)
        # Only now: what was under way there comes back, and has to find its new owner.
        for peer in gone:
            peer.cut()

    def _keep_peers(self, live: Mapping[str, GatewayHeartbeat]) -> list[Peer]:
        """Returns those that are dead."""
        for gateway_id, said in live.items():
            if gateway_id not in self._peers:
                self._peers[gateway_id] = Peer(self, gateway_id, said.address)
        return [self._peers.pop(gateway_id) for gateway_id in self._peers.keys() - live.keys()]


async def _nowhere(heartbeat: GatewayHeartbeat) -> None:
    """There is no NATS."""
