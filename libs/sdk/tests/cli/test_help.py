"""Every command explains itself, and speaks JSON."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from penstock.cli.main import app


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the tree with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_tree_is_complete() -> None:
    endpoint = {"create", "list", "show", "logs", "events", "stop", "restart", "terminate", "predict", "metrics"}
    assert {words[1] for words in COMMANDS if words[0] == "endpoint"} == endpoint
    assert {words[0] for words in COMMANDS} == {
        "up", "down", "status", "endpoint", "gpu", "usage", "workspace", "member", "key", "admin",
    }  # fmt: skip
    admin = {" ".join(words[1:]) for words in COMMANDS if words[0] == "admin"}
    assert admin == {"hosts", "dead list", "dead retry", "dead drop", "replay", "price list", "price set"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_takes_json(penstock: Any, ok: Any, words: tuple[str, ...]) -> None:
    shown = ok(penstock(*words, "--help"))
    assert (COMMANDS[words].help or "").strip().endswith(".")
    assert "--json" in shown


def test_the_root_tells_every_exit_code(penstock: Any, ok: Any) -> None:
    shown = ok(penstock("--help"))
    for number in (*range(8), 130):
        assert f" {number}  " in shown


@pytest.mark.parametrize("words", [(), ("endpoint",), ("admin", "dead")])
def test_a_group_alone_shows_its_help_and_is_wrong_usage(penstock: Any, words: tuple[str, ...]) -> None:
    result = penstock(*words)
    assert result.exit_code == 2
    assert "Usage: penstock" in result.output


def test_the_version_is_told(penstock: Any, ok: Any) -> None:
    assert ok(penstock("--version")) == "penstock 0.1.0\n"
