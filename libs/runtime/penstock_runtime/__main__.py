"""Starts a replica's model server: `python -m penstock_runtime --config FILE (--fd N | --listen HOST:PORT)`.

Exit codes: 0 stopped by SIGTERM after draining; 3 the model could not be loaded, the last line on standard
error says why; 4 the configuration or the arguments are wrong; 1 the model's code ended the process.
"""

import argparse
import gc
import os
import signal
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import NoReturn

from penstock_runtime.config import ConfigError, parse_config
from penstock_runtime.failures import model_traceback, one_line
from penstock_runtime.loading import LoadError, load_routes
from penstock_runtime.log import complain, say
from penstock_runtime.server import ModelServer
from penstock_runtime.serving import address_of, adopt_listener, open_listener, serve

EXIT_OK = 0
EXIT_ENDED_BY_MODEL = 1
EXIT_NOT_LOADED = 3
EXIT_BAD_CONFIG = 4


def main() -> int:
    """Loads the model and serves it. Returns the exit code."""
    try:
        arguments = _arguments()
        config = parse_config(Path(arguments.config).read_bytes())
        listener = adopt_listener(arguments.fd) if arguments.listen is None else open_listener(arguments.listen)
    except ConfigError as error:
        complain("\n".join(error.errors))
        complain("The configuration is wrong: " + error.errors[0])
        return EXIT_BAD_CONFIG
    except (OSError, ValueError) as error:
        complain(f"The model server cannot start: {error}")
        return EXIT_BAD_CONFIG
    _prepare_process(Path(config.directory).resolve())
    try:
        routes = load_routes(config)
    except LoadError as error:
        if error.__cause__ is not None:
            complain(model_traceback(error.__cause__))
        complain(str(error))
        return EXIT_NOT_LOADED
    gc.freeze()  # what a model loads stays for ever: looking through it again and again would delay requests
    listed = ", ".join(f"{route.verb} {route.path}" for route in routes)
    say(f"{config.name}: serving {listed} on {address_of(listener)}")
    try:
        serve(ModelServer(routes, config.concurrency, config.max_body_bytes), listener)
    except (SystemExit, KeyboardInterrupt) as error:
        complain(model_traceback(error))
        complain(f"The model's code ended the server: a task that it had started raised {one_line(error)}.")
        return EXIT_ENDED_BY_MODEL
    return EXIT_OK


def _arguments() -> argparse.Namespace:
    parser = _Parser(prog="penstock_runtime", description="Serves a model's functions over HTTP.")
    parser.add_argument("--config", required=True, metavar="FILE", help="configuration, a JSON file")
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--fd", type=int, metavar="N", help="serve on the inherited socket with this number")
    listen.add_argument("--listen", metavar="HOST:PORT", help="serve on this address; port 0 takes any free one")
    return parser.parse_args()


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are a wrong configuration to whoever starts us: the same exit code."""

    def error(self, message: str) -> NoReturn:
        complain(f"{self.format_usage()}{message}")
        raise SystemExit(EXIT_BAD_CONFIG)


def _prepare_process(directory: Path) -> None:
    """Makes the process what the model's code expects: its source is the working directory, prints appear at once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    if not sys.flags.safe_path:
        sys.path.pop(0)  # python -m puts the caller's working directory there, which is nothing of the model's
    os.chdir(directory)

    def leave(signal_number: int, frame: FrameType | None) -> None:
        places = [place for place, _ in traceback.walk_stack(frame) if _is_within(place, directory)]
        at = f"; it was at {Path(places[0].f_code.co_filename).name} line {places[0].f_lineno}" if places else ""
        complain(f"Stopped before the model was loaded{at}.")
        os._exit(EXIT_OK)  # an exception could be caught by the model's code, and there is nothing to drain

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)


def _is_within(frame: FrameType, directory: Path) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(directory)


if __name__ == "__main__":
    sys.exit(main())
