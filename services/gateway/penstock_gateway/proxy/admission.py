"""Admission: from a parsed head to a request ready to go, or to the reason why not."""

import time

from penstock_gateway import routing
from penstock_gateway.auth import Verdict
from penstock_gateway.deferred.recognizing import is_deferred, is_inquiry
from penstock_gateway.domain import (
    AWAKE,
    INVALID_KEY,
    INVALID_PRIORITY,
    NO_KEY,
    NO_SCOPE,
    NOT_CURRENT,
    Refusal,
    not_found,
    ping_refused,
)
from penstock_gateway.fairness import Place, Priority
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.prepared import PreparedRequest, forwarding_lines
from penstock_gateway.proxy.request_head import RequestHead

GRANT_S_MAX = 60.0
"""How long a grant is used at most, should the wall clock be set meanwhile: keys expire by it."""
_PING = b"/ping"
_PING_METHODS = frozenset({b"GET", b"HEAD"})
_PRIORITIES = {priority.name.lower().encode(): priority for priority in Priority}


class Grant:
    """That a caller may use an endpoint: while the directory's generation is `generation` and the
    monotonic clock has not passed `until_s`. `key_id` is empty for callers who are not of the endpoint's
    organization; only a public endpoint takes them."""

    __slots__ = ("authorization", "endpoint", "generation", "key_id", "name", "until_s")

    def __init__(
        self,
        name: bytes,
        authorization: bytes | None,
        endpoint: Endpoint,
        *,
        key_id: str,
        generation: int,
        until_s: float,
    ) -> None:
        self.name = name
        self.authorization = authorization
        self.endpoint = endpoint
        self.key_id = key_id
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
    """Finds the endpoint and checks the key. `scheme` is how clients reach the gateway: http or https."""

    def __init__(self, directory: Directory, domain: str, *, scheme: str = "http") -> None:
        self._directory = directory
        self._domain = domain.encode()
        self._scheme = scheme.encode()
        self._not_found = not_found(domain)
        self._refusals: dict[Verdict, Refusal] = {
            Verdict.MISSING: NO_KEY,
            Verdict.INVALID: INVALID_KEY,
            Verdict.UNKNOWN: INVALID_KEY,
            Verdict.NO_SCOPE: NO_SCOPE,
            Verdict.OTHER_ORGANIZATION: self._not_found,
        }

    def address(self, host: bytes | None, peer: bytes) -> Address:
        """Raises BadRequest when `host` is no host name."""
        name = None if host is None else routing.name_of_host(host, self._domain)
        return Address(host, name, forwarding_lines(host or self._domain, peer, self._scheme))

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
        priority = Priority.NORMAL if head.priority is None else _PRIORITIES.get(head.priority.lower())
        if priority is None:
            return INVALID_PRIORITY
        place = Place(grant.key_id, priority if grant.key_id else Priority.NORMAL)
        route = grant.endpoint.route
        prepared = PreparedRequest(head, grant.endpoint, place, generation=grant.generation, until_s=grant.until_s)
        if target.startswith(_PING) and head.method in _PING_METHODS and target.partition(b"?")[0] == _PING:
            if route.state not in AWAKE:
                return ping_refused(route)
            prepared.ping = True
        prepared.deferred = not prepared.ping and (is_inquiry(target) or is_deferred(head.prefer))
        prepared.compose(target, address.forwarding, public=route.public, prefix=prefix)
        return prepared

    def _decide(self, name: bytes, authorization: bytes | None, now_s: float) -> Grant | Refusal:
        """Whether this caller may use this endpoint."""
        directory = self._directory
        endpoint = directory.names.get(name)
        if endpoint is None:
            return self._not_found if directory.is_current() else NOT_CURRENT
        key_id, valid_s, unix_s = "", GRANT_S_MAX, time.time()
        checked = directory.keys.check(authorization, endpoint.route.organization_id, unix_s)
        if checked.verdict is Verdict.ALLOWED:
            # On a public endpoint too: its own organization's callers are told apart, and may say what is urgent.
            key_id, valid_s = checked.key_id, min(valid_s, checked.until_s - unix_s)
        elif not endpoint.route.public:
            if checked.verdict is Verdict.UNKNOWN and not directory.is_current():
                return NOT_CURRENT
            return self._refusals[checked.verdict]
        generation, until_s = directory.generation, now_s + valid_s
        return Grant(name, authorization, endpoint, key_id=key_id, generation=generation, until_s=until_s)
