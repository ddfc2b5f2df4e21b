"""`penstock endpoint predict`: calls a route from the command line."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import named
from penstock.cli.exits import UsageProblem
from penstock.cli.routes import parsed
from penstock.cli.words import plain

EXAMPLES = """\
Examples:
  penstock endpoint predict iris /predict --data '{"features": [5.1, 3.5, 1.4, 0.2]}'
  penstock endpoint predict iris /predict --data @body.json
  penstock endpoint predict text-stats /words --data '{"text": "to be or not"}' --stream"""


def predict(
    endpoint: take.Reference,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path of the route.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", metavar="JSON", help="The body, a JSON object; @FILE reads it, @- from standard input."
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print each part of the answer as it comes.")] = False,
    as_json: take.AsJson = False,
) -> None:
    """Call a route and print its answer. A 503 is tried again with a growing wait."""
    body = body_of(data)
    with named(endpoint) as found:
        if not stream:
            _show(found.predict(path, **body), as_json)
            return
        part: Any = ""
        for part in found.stream(path, **body):
            if as_json or not isinstance(part, str | bytes):
                output.json_line(_as_text(part))
            else:
                _write(part)
        if isinstance(part, str) and not as_json and sys.stdout.isatty():
            _write("\n")  # for the prompt that comes next


def body_of(data: str | None) -> dict[str, Any]:
    """The body. Raises UsageProblem when it is not a JSON object."""
    if data is None:
        return {}
    where = "--data"
    if data.startswith("@"):
        where = f"--data {data}"
        try:
            data = sys.stdin.read() if data == "@-" else Path(data[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageProblem(f"{where} cannot be read ({error}).") from error
    body = parsed(data, where)
    if not isinstance(body, dict):
        raise UsageProblem(f"{where} must be a JSON object.", """For example --data '{"features": [1, 2]}'""")
    return body


def _show(answer: Any, as_json: bool) -> None:
    if as_json or not isinstance(answer, str | bytes):
        output.document(_as_text(answer))
    elif isinstance(answer, str):
        _write(answer if answer.endswith("\n") else answer + "\n")
    else:
        _write(answer)


def _write(part: str | bytes) -> None:
    """Text and bytes as they are, for pipes; for a terminal, text without control characters."""
    if isinstance(part, bytes):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    sys.stdout.write(plain(part) if sys.stdout.isatty() else part)
    sys.stdout.flush()


def _as_text(value: Any) -> Any:
    """Bytes as text, since JSON has no bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
