"""Admission: from a parsed head to a request ready to go, or to the reason why not."""

import time

from penstock_gateway import routing
from penstock_gateway.auth import Verdict
from penstock_gateway.domain import (
    AWAKE,
    INVALID_KEY,
    NO_KEY,
    NO_SCOPE,
    NO_SNAPSHOT,
    Refusal,
    not_found,
    ping_refused,
)
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.prepared import PreparedRequest, forwarding_lines
from penstock_gateway.proxy.request_head import RequestHead

GRANT_S_MAX = 60.0
"""How long a grant is used at most, should the wall clock be set meanwhile: keys expire by it."""
_PING = b"/ping"
_PING_METHODS = frozenset({b"GET", b"HEAD"})


class Grant:
    """That a caller may use an endpoint: while the directory's generation is `generation` and the
    monotonic clock has not passed `until_s`."""

    __slots__ = ("authorization", "endpoint", "generation", "name", "until_s")

    def __init__(
        self, name: bytes, authorization: bytes | None, endpoint: Endpoint, *, generation: int, until_s: float
    ) -> None:
        self.name = name
        self.authorization = authorization
        self.endpoint = endpoint
        self.generation = generation
        self.until_s = until_s


class Address:
    """What follows from a client's address and a Host header: equal for most requests on a connection.

    `grant` is the last one given on this connection.
    """

    __slots__ = ("forwarding", "grant", "host", "name")

    def __init__(self, host: bytes | None, name: bytes | None, forwarding: bytes) -> None:
        self.host = host
        self.name = name
        self.forwarding = forwarding
        self.grant: Grant | None = None


class Admission:
    """Finds the endpoint and checks the key."""

    def __init__(self, directory: Directory, domain: str) -> None:
        self._directory = directory
        self._domain = domain.encode()
        self._not_found = not_found(domain)
        self._refusals: dict[Verdict, Refusal] = {
            Verdict.MISSING: NO_KEY,
            Verdict.INVALID: INVALID_KEY,
            Verdict.NO_SCOPE: NO_SCOPE,
            Verdict.OTHER_ORGANIZATION: self._not_found,
        }

    def address(self, host: bytes | None, peer: bytes) -> Address:
        """Raises BadRequest when `host` is no host name."""
        name = None if host is None else routing.name_of_host(host, self._domain)
        return Address(host, name, forwarding_lines(host or self._domain, peer, b"http"))

    def prepare(self, head: RequestHead, address: Address, now_s: float) -> PreparedRequest | Refusal:
        """Raises BadRequest when the request target is none that is served."""
        target = routing.origin_form(head.target, head.host)
        name, prefix = address.name, b""
        if name is None:
            match = routing.match_path(target)
            if match is None:
                return self._not_found
            name, target, prefix = match.name, match.target, match.prefix
        grant = address.grant
        if (
            grant is None
            or grant.generation != self._directory.generation
            or grant.authorization != head.authorization
            or grant.name != name
            or now_s >= grant.until_s
        ):
            outcome = self._decide(name, head.authorization, now_s)
            if isinstance(outcome, Refusal):
                return outcome
            grant = address.grant = outcome
        route = grant.endpoint.route
        prepared = PreparedRequest(head, grant.endpoint, generation=grant.generation, until_s=grant.until_s)
        if target.startswith(_PING) and head.method in _PING_METHODS and target.partition(b"?")[0] == _PING:
            if route.state not in AWAKE:
                return ping_refused(route)
            prepared.ping = True
        prepared.compose(target, address.forwarding, public=route.public, prefix=prefix)
        return prepared

    def _decide(self, name: bytes, authorization: bytes | None, now_s: float) -> Grant | Refusal:
        """Whether this caller may use this endpoint."""
        directory = self._directory
        endpoint = directory.names.get(name)
        if endpoint is None:
            return self._not_found if directory.loaded else NO_SNAPSHOT
        valid_s = GRANT_S_MAX
        if not endpoint.route.public:
            unix_s = time.time()
            verdict, expires_at_s = directory.keys.check(authorization, endpoint.route.organization_id, unix_s)
            if verdict is not Verdict.ALLOWED:
                return self._refusals[verdict]
            valid_s = min(valid_s, expires_at_s - unix_s)
        return Grant(name, authorization, endpoint, generation=directory.generation, until_s=now_s + valid_s)
