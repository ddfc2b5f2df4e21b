"""`penstock up`, `down` and `status`: the platform on this machine, by way of its launcher."""

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.exits import OK, UNAVAILABLE
from penstock.cli.words import duration, plain
from penstock.errors import PenstockError

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where it keeps its data; $PENSTOCK_HOME, or a folder by your user."
    ),
]


class PlatformFailed(PenstockError):
    """The platform could not be started or stopped."""


def register(app: typer.Typer, panel: str) -> None:
    """Add these commands."""
    app.command(
        rich_help_panel=panel,
        epilog="""\
Examples:
  penstock up
  penstock up --simulate-gpus "RTX 4090=4"   to try scheduling and billing without GPUs""",
    )(up)
    app.command(rich_help_panel=panel)(down)
    app.command(rich_help_panel=panel)(status)


def up(
    data_dir: DataDir = None,
    simulate_gpus: Annotated[
        str | None,
        typer.Option("--simulate-gpus", metavar="TYPE=COUNT", help='Made-up GPUs, such as "RTX 4090=4,A100=2".'),
    ] = None,
    gateway_port: Annotated[
        int | None,
        typer.Option("--gateway-port", metavar="PORT", help="8080 or the next that is free, if left out."),
    ] = None,
    api_port: Annotated[
        int | None, typer.Option("--api-port", metavar="PORT", help="8081 or the next that is free, if left out.")
    ] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option("--otlp-endpoint", metavar="URL", help="OTLP/HTTP address that traces go to.")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url", metavar="URL", help="An external PostgreSQL, as its administrator; or DATABASE_URL."
        ),
    ] = None,
    host_id: Annotated[str | None, typer.Option("--host-id", metavar="NAME", help="Name of this host.")] = None,
    as_json: take.AsJson = False,
) -> None:
    """Start the platform on this machine, and configure these commands for it."""
    with _launcher_errors():
        from penstock_launcher import commands
        from penstock_launcher.options import UpOptions

        found = commands.up(
            UpOptions(
                data_dir=data_dir,
                simulate_gpus=simulate_gpus,
                gateway_port=gateway_port,
                api_port=api_port,
                otlp_endpoint=otlp_endpoint,
                database_url=database_url,
                host_id=host_id,
            ),
            _progress,
        )
    if as_json:
        output.document(dataclasses.asdict(found))
        return
    how = "is already running" if found.already_running else f"is ready after {duration(found.took_s)}"
    output.line(f"Penstock {how}, in {found.data_dir}")
    output.fields((("Gateway", found.gateway_url), ("API", found.api_url), ("API key in", found.api_key_file)))
    output.note(f"Next: {_this_command()} endpoint create --help")


def _this_command() -> str:
    """`penstock` as the user's shell finds it: by its path where it is not on PATH."""
    beside = Path(sys.executable).with_name("penstock")
    return "penstock" if shutil.which("penstock") or not beside.exists() else shlex.quote(str(beside))


def down(data_dir: DataDir = None, as_json: take.AsJson = False) -> None:
    """Stop everything that `penstock up` started. Its data stays."""
    with _launcher_errors():
        from penstock_launcher import commands

        found = commands.down(data_dir, _progress)
    if as_json:
        output.document(dataclasses.asdict(found))
    elif found.was_running or found.swept:
        output.line(f"Penstock is stopped; its data stays in {found.data_dir}")
    else:
        output.line(f"Penstock was not running in {found.data_dir}")


def status(data_dir: DataDir = None, as_json: take.AsJson = False) -> None:
    """Show what runs on this machine. Exits 6 unless every part is ready."""
    with _launcher_errors():
        from penstock_launcher import commands

        found = commands.status(data_dir)
    if as_json:
        output.document({**dataclasses.asdict(found), "healthy": found.healthy})
    else:
        _show(found)
    raise typer.Exit(OK if found.healthy else UNAVAILABLE)


def _show(found: Any) -> None:
    """A `penstock_launcher.commands.Status`, whose type is not there where the launcher is not."""
    output.fields(
        (
            ("Platform", output.state(found.state)),
            ("Data", found.data_dir),
            ("Gateway", found.gateway_url),
            ("API", found.api_url),
            ("Started", found.started_at),
        )
    )
    if found.programs:
        output.line()
        output.table(
            ("PROGRAM", "STATE", "PID", "RESTARTS", "LOG"),
            ((p.name, output.state(p.state), p.pid or "", p.restarts, p.log_path) for p in found.programs),
            right=frozenset({"PID", "RESTARTS"}),
        )


def _progress(line: str) -> None:
    output.note(Text(f"  {plain(line)}", style="dim"))


@contextmanager
def _launcher_errors() -> Iterator[None]:
    """The launcher's errors as ours, its absence included."""
    try:
        from penstock_launcher.errors import LauncherError
    except ModuleNotFoundError as error:
        raise PlatformFailed(
            "The platform is not installed here; this is only its client.",
            "Install it with `pip install 'penstock[platform]'`, or set PENSTOCK_API_URL and PENSTOCK_API_KEY "
            "to use one that runs elsewhere.",
        ) from error
    try:
        yield
    except LauncherError as error:
        raise PlatformFailed(str(error)) from error
