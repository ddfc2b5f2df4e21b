"""What a change in a watched bucket does to the data plane."""

import logging
from collections.abc import Iterable

from penstock_common.contracts.records import ApiKeyRecord, Route
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.snapshots import Snapshot

log = logging.getLogger(__name__)


def route_changed(directory: Directory, endpoint_id: str, route: Route | None) -> None:
    """A route was written, or removed (None)."""
    if route is None:
        directory.remove_route(endpoint_id)
        return
    try:
        directory.put_route(route)
    except ValueError as error:
        log.error("a route cannot be used; the last one stands", extra={"key": endpoint_id, "error": str(error)})


def api_key_changed(directory: Directory, sha256: str, record: ApiKeyRecord | None) -> None:
    """An API key was written, or revoked (None)."""
    try:
        if record is None:
            directory.remove_key(sha256)
        else:
            directory.put_key(record)
    except ValueError as error:
        log.error("an API key record cannot be used", extra={"key": sha256, "error": str(error)})


def restored(directory: Directory, snapshot: Snapshot) -> None:
    """The gateway starts from what it last saved."""
    for route in snapshot.routes:
        route_changed(directory, route.key(), route)
    for record in snapshot.api_keys:
        api_key_changed(directory, record.key(), record)
    directory.loaded = True


def caught_up(directory: Directory, endpoint_ids: Iterable[str], key_hashes: Iterable[str]) -> None:
    """Both buckets were read whole: what was saved and is not in them is gone."""
    for endpoint_id in set(directory.endpoints) - set(endpoint_ids):
        directory.remove_route(endpoint_id)
    for sha256 in directory.keys.hashes() - set(key_hashes):
        directory.remove_key(sha256)
    directory.loaded = True


def worth_saving(directory: Directory) -> Snapshot:
    """What a gateway that starts without NATS needs: all that this one knows, restored records included."""
    return Snapshot(
        routes=tuple(endpoint.route for endpoint in directory.endpoints.values()),
        api_keys=tuple(directory.keys.records()),
    )
