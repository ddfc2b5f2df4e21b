"""`python -m penstock_launcher up|down|status`: for scripts, and where the command line is not installed."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from penstock_launcher import commands
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import UpOptions

UNAVAILABLE = 6
"""Exit code of `status`, as the `penstock` command has it."""


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; the exit code."""
    chosen = vars(_parser().parse_args(arguments))
    command, as_json = chosen.pop("command"), chosen.pop("json")
    try:
        if command == "up":
            _show_up(commands.up(UpOptions(**chosen), _progress), as_json=as_json)
        elif command == "down":
            _show_down(commands.down(chosen["data_dir"], _progress), as_json=as_json)
        else:
            return _show_status(commands.status(chosen["data_dir"]), as_json=as_json)
    except LauncherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m penstock_launcher", description=__doc__)
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, description in (
        ("up", "start the platform on this machine"),
        ("down", "stop everything that `up` started"),
        ("status", "show what runs; exit code 6 unless every part is ready"),
    ):
        command = parsers.add_parser(name, help=description)
        command.add_argument("--data-dir", type=Path, help="default: $PENSTOCK_HOME, or a folder by your user")
        command.add_argument("--json", action="store_true", help="one line of JSON instead of text")
        if name == "up":
            command.add_argument("--simulate-gpus", metavar="TYPE=COUNT", help='such as "RTX 4090=4"')
            command.add_argument("--gateway-port", type=int, help="default: 8080, or the next that is free")
            command.add_argument("--api-port", type=int, help="default: 8081, or the next that is free")
            command.add_argument("--otlp-endpoint", metavar="URL", help="OTLP/HTTP address that traces go to")
            command.add_argument("--database-url", metavar="URL", help="an external PostgreSQL; or DATABASE_URL")
            command.add_argument("--host-id", help="name of this host in the platform")
    return parser


def _progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _show_up(found: commands.Up, *, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    print(
        f"Penstock is already running in {found.data_dir}"
        if found.already_running
        else f"Penstock is ready after {found.took_s:.1f} s, in {found.data_dir}"
    )
    print(f"  gateway  {found.gateway_url}\n  API      {found.api_url}\n  API key  {found.api_key()}")
    print(f"The `penstock` command finds both in {found.config_file}")


def _show_down(found: commands.Down, *, as_json: bool) -> None:
    if as_json:
        _print_json(found)
    elif found.was_running or found.swept:
        print(f"Penstock is stopped; its data stays in {found.data_dir}")
    else:
        print(f"Penstock was not running in {found.data_dir}")


def _show_status(found: commands.Status, *, as_json: bool) -> int:
    if as_json:
        _print_json(found)
    else:
        print(f"Penstock is {found.state} in {found.data_dir}")
        if found.programs:
            print(f"  gateway  {found.gateway_url}\n  API      {found.api_url}")
        for program in found.programs:
            restarts = f", restarted {program.restarts} times" if program.restarts else ""
            print(f"  {program.name:<12} {program.state:<9} pid {program.pid}{restarts}  {program.log_path}")
    return 0 if found.healthy else UNAVAILABLE


def _print_json(found: commands.Up | commands.Down | commands.Status) -> None:
    print(json.dumps(dataclasses.asdict(found), default=str))


if __name__ == "__main__":
    sys.exit(main())
