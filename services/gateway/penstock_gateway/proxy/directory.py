"""The endpoints and keys that the gateway knows, kept up to date by its watches."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock_common.contracts.records import ApiKeyRecord, Route
from penstock_gateway.auth import KeyTable
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.routing import endpoint_name
from penstock_gateway.stats import EndpointStats

if TYPE_CHECKING:
    from penstock_gateway.proxy.context import Context


class Directory:
    """Endpoints by id and by name. `loaded` once a whole snapshot was taken over, from disk or bucket."""

    def __init__(self, context: "Context", *, make_endpoint: "Callable[[Context, Route], Endpoint]" = Endpoint) -> None:
        self.loaded = False
        self.is_current: Callable[[], bool] = lambda: self.loaded
        """Whether both buckets are known whole as they are now. While they are not, an endpoint or key that is
        not here may still exist."""
        self.generation = 0
        """Counts the changes: what was worked out from an earlier one may no longer hold."""
        self.keys = KeyTable()
        self.endpoints: dict[str, Endpoint] = {}
        self.names: dict[bytes, Endpoint] = {}
        self.removed = EndpointStats()
        """What endpoints counted that are no more, so that totals never fall."""
        self._context = context
        self._make_endpoint = make_endpoint

    def put_route(self, route: Route) -> None:
        """Take over a route, unless a newer one of the same endpoint is known."""
        self.generation += 1
        endpoint = self.endpoints.get(route.endpoint_id)
        if endpoint is None:
            endpoint = self.endpoints[route.endpoint_id] = self._make_endpoint(self._context, route)
        elif route.version >= endpoint.route.version:
            endpoint.update(route)
        else:
            return
        self._name(endpoint)
        self._context.on_route(endpoint)

    def remove_route(self, endpoint_id: str) -> None:
        self.generation += 1
        endpoint = self.endpoints.pop(endpoint_id, None)
        if endpoint is None:
            return
        endpoint.remove()
        self.removed.add(endpoint.stats)
        name = _name_of(endpoint)
        if self.names.get(name) is endpoint:
            del self.names[name]
            for other in self.endpoints.values():
                if _name_of(other) == name:
                    self._name(other)
        self._context.on_removed(endpoint)

    def put_key(self, record: ApiKeyRecord) -> None:
        self.generation += 1
        self.keys.put(record)

    def remove_key(self, sha256: str) -> None:
        self.generation += 1
        self.keys.remove(sha256)

    def _name(self, endpoint: Endpoint) -> None:
        """A name that is used again belongs to the endpoint created last: ids sort by creation."""
        name = _name_of(endpoint)
        known = self.names.get(name)
        if known is None or known.route.endpoint_id <= endpoint.route.endpoint_id:
            self.names[name] = endpoint


def _name_of(endpoint: Endpoint) -> bytes:
    return endpoint_name(endpoint.route.endpoint, endpoint.route.workspace)
