"""`penstock endpoint logs` and `events`: what an endpoint printed, and what happened to it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import named
from penstock.cli.words import plain, timestamp

if TYPE_CHECKING:
    from penstock.models.endpoint import LifecycleEvent, LogLine

LOGS_EXAMPLES = """\
Examples:
  penstock endpoint logs iris --limit 20
  penstock endpoint logs -f iris"""
EVENTS_EXAMPLES = "Example:  penstock endpoint events -f iris"
_SHORT_ID = 6
_TAIL_MAX = 1000
"""Most lines from the past that the API puts at the beginning of a stream."""

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on as more comes, until Ctrl-C.")]


def logs(
    endpoint: take.Reference,
    follow: Follow = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="Show this many of the last lines; at most 1000 with -f.")
    ] = 100,
    replica: Annotated[
        str | None, typer.Option("--replica", metavar="ID", help="Only what this replica printed.")
    ] = None,
    as_json: take.AsJson = False,
) -> None:
    """Show what the model printed, newest last."""
    from penstock.models.endpoint import ENDED_STATES

    with named(endpoint) as found:
        several = found.spec.scaling is not None and found.spec.scaling.max_replicas > 1
        lines: Iterable[LogLine]
        if follow and found.state not in ENDED_STATES:
            lines = found.logs(follow=True, tail=min(limit, _TAIL_MAX), replica_id=replica)
        else:
            lines = list(found.logs(limit=limit, replica_id=replica))[::-1]
        if as_json and not follow:
            output.document(lines)
            return
        for line in lines:
            output.json_line(line) if as_json else _show_line(line, several)
    if not lines:
        output.note("Nothing was printed yet.")


def _show_line(line: "LogLine", several: bool) -> None:
    replica = f"{line.replica_id[-_SHORT_ID:]}  " if several else ""
    output.line(Text.assemble((f"{timestamp(line.at)}  {replica}", "dim"), plain(line.text)))


def events(endpoint: take.Reference, follow: Follow = False, as_json: take.AsJson = False) -> None:
    """Show what happened to an endpoint, oldest first."""
    with named(endpoint) as found:
        if as_json and not follow:
            output.document(list(found.events()))
            return
        for event in found.events(follow=follow):
            output.json_line(event) if as_json else _show_event(event)


def _show_event(event: "LifecycleEvent") -> None:
    output.line(Text.assemble((f"{timestamp(event.at)}  ", "dim"), f"{plain(event.phase):<16}", plain(event.message)))
