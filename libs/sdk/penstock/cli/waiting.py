"""Waiting for an endpoint while its phases are shown."""

from typing import TYPE_CHECKING

from penstock.cli import output
from penstock.cli.live import Phases
from penstock.errors import EndpointFailed

if TYPE_CHECKING:
    from penstock.client import Endpoint
    from penstock.flows.waiting import Goal


def wait_for(
    endpoint: "Endpoint", until: "Goal", *, timeout_s: float | None, as_json: bool, after_event_id: int = 0
) -> None:
    """Show each phase until the endpoint is where it should be. Raises as `Endpoint.wait` does.

    One that went to sleep has run, and will when it is called, so nobody is kept waiting for that.
    Of an endpoint that failed, the document is printed too when JSON is asked for.
    """
    try:
        with Phases(endpoint.state) as phases:
            endpoint.wait(until, or_idle=True, timeout_s=timeout_s, on_event=phases.show, after_event_id=after_event_id)
    except EndpointFailed as error:
        if as_json:
            output.document(error.endpoint)
        raise
    except KeyboardInterrupt:
        output.note(
            f"No longer waiting. Endpoint {endpoint.full_name} goes on; "
            f"follow it with `penstock endpoint events -f {endpoint.full_name}`."
        )
        raise
