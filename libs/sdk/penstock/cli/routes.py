"""Routes given on the command line: JSON, with errors that say which one and where."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.cli.exits import UsageProblem

_EXAMPLE = '{"verb": "POST", "path": "/predict", "file": "predict", "function": "predict", "body": []}'
_CONTEXT_CHARS = 30


def routes_of(texts: Sequence[str], file: Path | None) -> list[dict[str, Any]]:
    """The routes of `--route` options, then those of `--routes-file`. Raises UsageProblem."""
    routes = [_object(parsed(text, f"--route {number}"), f"--route {number}") for number, text in enumerate(texts, 1)]
    if file is not None:
        routes += _from_file(file)
    if not routes:
        raise UsageProblem("An endpoint needs at least one route.", f"Add --route '{_EXAMPLE}', or --routes-file FILE.")
    return routes


def _from_file(file: Path) -> list[dict[str, Any]]:
    where = "--routes-file"
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{where}: {file} cannot be read ({error}).") from error
    found = parsed(text, f"{where} {file}")
    if isinstance(found, dict) and isinstance(found.get("routes"), list):
        found = found["routes"]
    if not isinstance(found, list):
        raise UsageProblem(f"{where} {file} must hold a JSON list of routes.", f"For example [{_EXAMPLE}]")
    return [_object(route, f"{where} {file}, route {number}") for number, route in enumerate(found, 1)]


def parsed(text: str, where: str) -> Any:
    """JSON. Raises UsageProblem that shows the place of the error."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        start = max(0, error.pos - _CONTEXT_CHARS)
        shown = text[start : error.pos + _CONTEXT_CHARS].replace("\n", " ").replace("\t", " ")
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"character {error.pos + 1}"
        pointer = " " * (error.pos - start) + "^"
        raise UsageProblem(
            f"{where} is not JSON: {error.msg} at {place}:\n  {shown}\n  {pointer}", _hint(text)
        ) from error


def _hint(text: str) -> str:
    if text.strip().startswith("{'") or "': " in text:
        return "JSON wants double quotes around names and text; put the whole in single quotes for the shell."
    return "Put the JSON in single quotes, so that the shell leaves it as it is."


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageProblem(
            f"{where} must be a JSON object, and is {json.dumps(value)[:60]}.", f"For example {_EXAMPLE}"
        )
    return value
