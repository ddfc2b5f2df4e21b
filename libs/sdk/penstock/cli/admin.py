"""`penstock admin …`: for operators of the platform."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import client
from penstock.cli.words import ago, micros_of, moment_of, money, timestamp
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.models.admin import Price

app = typer.Typer(help="Run the platform: hosts, dead letters, replay, prices.", no_args_is_help=True)
dead_app = typer.Typer(help="Messages that a service gave up on.", no_args_is_help=True)
price_app = typer.Typer(help="What GPUs and CPU cores cost.", no_args_is_help=True)
app.add_typer(dead_app, name="dead")
app.add_typer(price_app, name="price")

Sequence = Annotated[
    int, typer.Argument(metavar="NUMBER", help="Its number, from `penstock admin dead list`.", show_default=False)
]


@app.command()
def hosts(as_json: take.AsJson = False) -> None:
    """List hosts, and how they are."""
    with client() as penstock:
        found = penstock.admin.hosts()
    if as_json:
        output.document(found)
        return
    now = datetime.now(UTC)
    output.table(
        ("HOST", "STATE", "SEEN", "CPU", "MEMORY", "GPUS", "GPUS USED", "REPLICAS", "DRIVER"),
        (
            (
                host.id,
                output.state(host.state),
                ago(host.last_seen_at, now),
                host.cpu_cores,
                f"{host.memory_gb} GB",
                ", ".join(f"{count} × {kind}" for kind, count in host.gpus.items())
                + (" (simulated)" if host.simulated and host.gpus else ""),
                host.gpus_used,
                host.replicas,
                host.driver,
            )
            for host in found
        ),
        right=frozenset({"CPU", "MEMORY", "GPUS USED", "REPLICAS"}),
    )


@dead_app.command("list")
def list_dead(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show this many of the newest.")] = 50,
    as_json: take.AsJson = False,
) -> None:
    """List dead letters, newest first, each with the error that killed it."""
    with client() as penstock:
        found = list(penstock.admin.dead.list(limit=limit))
    if as_json:
        output.document(found)
        return
    if not found:
        output.note("There are no dead letters.")
        return
    now = datetime.now(UTC)
    output.table(
        ("NUMBER", "DIED", "CONSUMER", "MESSAGE", "TRIES", "ERROR"),
        (
            (letter.sequence, ago(letter.at, now), letter.consumer, letter.type, letter.deliveries, letter.error)
            for letter in found
        ),
        right=frozenset({"NUMBER", "TRIES"}),
    )


@dead_app.command("retry", epilog="Example:  penstock admin dead retry 3")
def retry_dead(number: Sequence, as_json: take.AsJson = False) -> None:
    """Send a dead letter to its consumer again, once the cause is mended."""
    with client() as penstock:
        penstock.admin.dead.retry(number)
    output.document({"retried": number}) if as_json else output.line(f"Dead letter {number} is sent again.")


@dead_app.command("drop")
def drop_dead(number: Sequence, as_json: take.AsJson = False) -> None:
    """Throw a dead letter away for good."""
    with client() as penstock:
        penstock.admin.dead.drop(number)
    output.document({"dropped": number}) if as_json else output.line(f"Dead letter {number} is dropped.")


@app.command(epilog="Example:  penstock admin replay --since 2h")
def replay(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="A time, or how long ago, like 2h.", show_default=False)
    ],
    as_json: take.AsJson = False,
) -> None:
    """Publish all facts since a time again, and every bucket record; consumers skip what they know."""
    with client() as penstock:
        found = penstock.admin.replay(moment_of(since, "--since", datetime.now(UTC)))
    if as_json:
        output.document(found)
    else:
        output.table(
            ("SERVICE", "EVENTS", "RECORDS", "ERROR"),
            ((name, done.events, done.records, done.error or "") for name, done in sorted(found.services.items())),
            right=frozenset({"EVENTS", "RECORDS"}),
        )
    failed = sorted(name for name, done in found.services.items() if done.error)
    if failed:
        raise PenstockError(f"Not every service could replay: {', '.join(failed)}.", "Mend it, then replay again.")


@price_app.command("list")
def list_prices(as_json: take.AsJson = False) -> None:
    """List the prices in force now."""
    with client() as penstock:
        _show_prices(penstock.admin.prices.list(), as_json)


@price_app.command(
    "set",
    epilog="""\
Examples:
  penstock admin price set "RTX 4090" 0.45
  penstock admin price set CPU 0.02 --currency EUR --from 2026-04-01""",
)
def set_price(
    gpu_type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE", help="GPU type, CPU (for one core), or * for any other type.", show_default=False
        ),
    ],
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="For one and hour, such as 0.45.", show_default=False)
    ],
    currency: Annotated[str, typer.Option("--currency", help="As ISO 4217 names it.")] = "USD",
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="When it begins to hold; now if left out.")
    ] = None,
    as_json: take.AsJson = False,
) -> None:
    """Set the price of one GPU of a type, or of one CPU core, and hour."""
    micros = micros_of(amount, "AMOUNT")
    valid_from = moment_of(since, "--from", datetime.now(UTC)) if since else None
    with client() as penstock:
        found = penstock.admin.prices.set(gpu_type, micros_per_hour=micros, currency=currency, valid_from=valid_from)
    _show_prices(found, as_json)


def _show_prices(prices: "tuple[Price, ...]", as_json: bool) -> None:
    if as_json:
        output.document(prices)
        return
    output.table(
        ("TYPE", "PRICE AN HOUR", "SINCE"),
        (
            (
                price.gpu_type,
                money(price.micros_per_hour, price.currency),
                timestamp(price.valid_from) if price.valid_from else "",
            )
            for price in prices
        ),
        right=frozenset({"PRICE AN HOUR"}),
    )
