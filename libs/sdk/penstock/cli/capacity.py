"""`penstock gpu list` and `penstock usage`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import client, complete_endpoint
from penstock.cli.words import duration, moment_of, money
from penstock.errors import Forbidden

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.models.capacity import Capacity, Usage

gpu_app = typer.Typer(help="GPU types: what is there, what is free, what it costs.", no_args_is_help=True)
_COUNTS = (1, 2, 3, 4)


def register(app: typer.Typer, panel: str) -> None:
    """Add these commands."""
    app.add_typer(gpu_app, name="gpu", rich_help_panel=panel)
    app.command(
        rich_help_panel=panel,
        epilog="""\
Examples:
  penstock usage --from 7d
  penstock usage --from 2026-03-01 --to 2026-04-01 --group-by endpoint,gpu_type
  penstock usage --endpoint iris --group-by day""",
    )(usage)


@gpu_app.command("list", epilog='Example:  penstock gpu list --json | jq ".gpus[].type"')
def list_gpus(as_json: take.AsJson = False) -> None:
    """List GPU types, and which counts of each could start now."""
    with client() as penstock:
        found = penstock.gpus.list()
    if as_json:
        output.document(found)
        return
    rows = [_row(capacity) for capacity in (*found.gpus, *([found.cpu] if found.cpu else []))]
    output.table(
        ("TYPE", "MEMORY", "FREE", "TOTAL", "PRICE AN HOUR", "CAN START NOW"),
        rows,
        right=frozenset({"MEMORY", "FREE", "TOTAL", "PRICE AN HOUR"}),
    )


def _row(capacity: "Capacity") -> tuple[object, ...]:
    startable = [str(count) for count in _COUNTS if capacity.can_start.get(count)]
    return (
        capacity.type,
        f"{capacity.memory_gb} GB",
        capacity.free,
        capacity.total,
        money(capacity.price_micros_per_hour, capacity.currency),
        " ".join(startable) or "none",
    )


def usage(
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Beginning: a day, a time, or how long ago, like 7d."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="End, not included; now if left out.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", metavar="LIST", help="Any of endpoint, day, gpu_type, separated by commas."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="ENDPOINT", help="Only this endpoint.", autocompletion=complete_endpoint),
    ] = None,
    as_json: take.AsJson = False,
) -> None:
    """Show what was used and what it cost, by endpoint, day and GPU type."""
    now = datetime.now(UTC)
    with client() as penstock:
        found = penstock.usage(
            start=moment_of(since, "--from", now) if since else None,
            end=moment_of(until, "--to", now) if until else None,
            group_by=tuple(name.strip() for name in group_by.split(",")) if group_by else (),
            endpoint_id=penstock.endpoints.get(endpoint).id if endpoint else None,
        )
        if as_json:
            output.document(found)
        else:
            _show(penstock, found)


def _names(penstock: "Penstock") -> dict[str, str]:
    """Id → name of every endpoint; empty for a key that may see the bill but not the endpoints."""
    try:
        ended = penstock.endpoints.list(state="terminated")
        return {endpoint.id: endpoint.full_name for endpoint in (*ended, *penstock.endpoints.list())}
    except Forbidden:
        return {}


def _show(penstock: "Penstock", found: "Usage") -> None:
    grouped = [name for name in ("endpoint_id", "day", "gpu_type") if any(getattr(row, name) for row in found.rows)]
    names = _names(penstock) if "endpoint_id" in grouped else {}
    titles = {"endpoint_id": "ENDPOINT", "day": "DAY", "gpu_type": "GPU"}
    output.table(
        (*(titles[name] for name in grouped), "REPLICA TIME", "GPU TIME", "COST"),
        (
            (
                *(names.get(str(value := getattr(row, name)), value or "") for name in grouped),
                duration(row.replica_s),
                duration(row.gpu_s) if row.gpu_s else "",
                money(row.cost_micros, found.currency),
            )
            for row in found.rows
        ),
        right=frozenset({"REPLICA TIME", "GPU TIME", "COST"}),
    )
    replicas = "replica costs" if found.running_replicas == 1 else "replicas cost"
    total = money(found.total_cost_micros, found.currency)
    output.line(f"Total: {total}; {found.running_replicas} {replicas} at this moment.")
