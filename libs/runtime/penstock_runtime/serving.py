"""Runs the application on uvicorn, on a socket that is already bound, until SIGTERM."""

import logging
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock_runtime.server import ModelServer

DRAIN_S = 30
"""How long requests in flight may take to finish after SIGTERM."""
LEAVE_S = 5
"""How long the model's own threads and exit handlers may take after that."""
KEEP_ALIVE_S = 300
"""How long an idle connection is kept: longer than whoever calls keeps it, so that no request meets a closing one."""

_UNFINISHED_STREAM = "ASGI callable returned without completing response."


class _Server(uvicorn.Server):
    """Bounds how long stopping may take, whatever the model's code does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            _leave_within(DRAIN_S + LEAVE_S)
        super().handle_exit(sig, frame)


def serve(app: ModelServer, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is in flight, within DRAIN_S."""
    # uvicorn puts the handlers that it found back when it is done, and raises the signal once more:
    # with Python's own handler that would end the process with -15 instead of 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _already_stopped)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    config = uvicorn.Config(
        app,
        http=HttpToolsProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    _Server(config).run(sockets=[listener])
    _leave_within(LEAVE_S)


def open_listener(address: str) -> socket.socket:
    """A bound socket for `HOST:PORT` (`[HOST]:PORT` for IPv6; port 0 takes any). Raises OSError, ValueError.

    It does not listen yet, so that a client is refused rather than left waiting while the model loads.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    family, kind, protocol, _, place = socket.getaddrinfo(
        host, int(port), type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    # The protocol is written out because asyncio switches Nagle's delay off only where it sees TCP.
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(place)
    return listener


def adopt_listener(descriptor: int) -> socket.socket:
    """The socket inherited under this number. Raises OSError if there is none, ValueError if it cannot listen."""
    listener = socket.socket(fileno=descriptor)
    if listener.type != socket.SOCK_STREAM:
        raise ValueError(f"file descriptor {descriptor} is not a stream socket")
    listener.set_inheritable(False)  # a process that the model starts must not keep the port
    return listener


def address_of(listener: socket.socket) -> str:
    """The socket's address as `HOST:PORT`."""
    name: Any = listener.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _leave_within(bound_s: float) -> None:
    """Ends the process after this time if it has not ended by then, whatever threads the model's code keeps."""
    bound = threading.Timer(bound_s, os._exit, (0,))
    bound.daemon = True
    bound.start()


def _already_stopped(signal_number: int, frame: FrameType | None) -> None:
    """Nothing is left to do: the server has drained."""


def _is_news(record: logging.LogRecord) -> bool:
    """A stream that ends without its proper end was our doing, and is in the log already."""
    return record.msg != _UNFINISHED_STREAM
