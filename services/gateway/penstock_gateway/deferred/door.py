"""Where asynchronous requests come in, and where their outcome is asked for: what the data plane calls."""

from typing import cast

from penstock_gateway.deferred.accepting import Caller
from penstock_gateway.deferred.answering import Desk, Taken
from penstock_gateway.deferred.arriving import Arrival
from penstock_gateway.deferred.inquiring import Inquiry
from penstock_gateway.deferred.recognizing import is_inquiry
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.exchange import Exchange, Stage
from penstock_gateway.proxy.upstream import UpstreamConnection


class Door:
    """Takes over exchanges that the data plane does not send to a replica itself."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, exchange: Exchange, endpoint: Endpoint, request: bytes, key_id: str) -> None:
        """Take over an exchange that was not submitted yet. `request` is the head that a replica would get;
        `key_id` is empty for callers who are not of the endpoint's organization."""
        exchange.endpoint = endpoint
        target = request.split(b" ", 2)[1]
        caller = Caller(endpoint.route, key_id, endpoint.queue.view())
        taken: Taken
        if is_inquiry(target):
            taken = Inquiry(self._desk, exchange, caller, target.partition(b"?")[0].decode("latin-1"))
        elif endpoint.closed is not None:
            exchange.refuse(endpoint.closed)
            return
        else:
            taken = Arrival(self._desk, exchange, caller)
        exchange.upstream = cast("UpstreamConnection", taken)
        exchange.stage = Stage.SENT
        taken.begin(request)
