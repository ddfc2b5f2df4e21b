"""`penstock`: the root of all commands, and the one place where errors become exit codes."""

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from penstock.cli import account, admin, capacity, endpoint, platform
from penstock.cli.exits import EPILOG, INTERRUPTED, OK, exit_code_of
from penstock.errors import PenstockError
from penstock.version import __version__


class Root(TyperGroup):
    """Ends every command with its exit code, and every error with words on standard error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except PenstockError as error:
            from penstock.cli.complaint import complain

            complain(error)
            raise typer.Exit(exit_code_of(error)) from error
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has had enough, as `head` has: that is no failure.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OK) from None


app = typer.Typer(
    name="penstock",
    cls=Root,
    help="Turn models into URLs on your own GPU machines.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
platform.register(app, panel="This machine")
app.add_typer(endpoint.app, name="endpoint", rich_help_panel="Models")
capacity.register(app, panel="Models")
account.register(app, panel="Account")
app.add_typer(admin.app, name="admin", rich_help_panel="Operation")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit(OK)


@app.callback()
def root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = None,
) -> None:
    """Nothing happens before a command is named."""


def main() -> None:
    """The entry point of the `penstock` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="penstock")
