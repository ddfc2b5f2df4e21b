"""Writing to the terminal: results to standard output, all else to standard error."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.cli.words import plain

_UNLIMITED_WIDTH = 10_000


class PipeConsole(Console):
    """A console that leaves a closed pipe to the command line, which ends quietly."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """Colours on terminals only, and none with NO_COLOR; lines are cut for terminals only."""
    stream = sys.stderr if stderr else sys.stdout
    cut = stream.isatty() or "COLUMNS" in os.environ
    return PipeConsole(
        stderr=stderr, highlight=False, markup=False, emoji=False, width=None if cut else _UNLIMITED_WIDTH
    )


def line(text: str | Text = "") -> None:
    """A line of the result, never wrapped, shown at once."""
    console().print(text, soft_wrap=True)
    sys.stdout.flush()


def note(text: str | Text) -> None:
    """A line for the person, on standard error."""
    console(stderr=True).print(text, soft_wrap=True)


def document(value: Any) -> None:
    """The one JSON document of a command."""
    sys.stdout.write(json.dumps(jsonable(value), indent=2) + "\n")


def json_line(value: Any) -> None:
    """One of the JSON values of a command that follows something."""
    sys.stdout.write(json.dumps(jsonable(value)) + "\n")
    sys.stdout.flush()


def jsonable(value: Any) -> Any:
    """Results as JSON has them."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: frozenset[str] = frozenset()) -> None:
    """A table of plain text, the columns named in `right` aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
    _show(made)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values in two columns; those without a value are left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line(Text.assemble((name.ljust(width), "bold"), "  ", value if isinstance(value, Text) else plain(value)))


def _show(table: Table) -> None:
    """A table without the blanks that would fill its last column up."""
    out = console()
    with out.capture() as captured:
        out.print(table)
    text = captured.get()
    if not out.is_terminal:
        text = "".join(f"{row.rstrip()}\n" for row in text.splitlines())
    sys.stdout.write(text)


_STATE_STYLES = {
    "running": "green",
    "idle": "green",
    "queued": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "terminating": "yellow",
    "failed": "red",
    "up": "green",
    "ready": "green",
    "lost": "red",
    "unready": "red",
}


def state(text: str) -> Text:
    """A state in its colour."""
    return Text(plain(text), style=_STATE_STYLES.get(text, ""))
