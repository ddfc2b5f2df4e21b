"""Choosing ports that nobody else listens on."""

import random
import socket
from collections.abc import Collection

from penstock_launcher.errors import LauncherError

SEARCHED = 100
"""How many ports, from the preferred one on, are tried."""
INTERNAL = range(20000, 32000)
"""For servers that only the platform talks to. It ends below the range from which the kernel takes
the local ports of outgoing connections, so that a server finds its port free when it starts again."""
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now, on any IPv4 address of this machine."""
    with socket.socket() as probe:
        # As servers do: a connection that ended a moment ago is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def public_port(name: str, *, asked: int | None, kept: int | None, preferred: int, used: Collection[int]) -> int:
    """The port asked for; else the one kept from last time, or the first free one from `preferred` on.

    Raises LauncherError when the port asked for is taken, or all that were tried are.
    """
    if asked is not None:
        if asked in used or not is_free(asked):
            raise LauncherError(
                f"port {asked} for the {name} is taken: stop the program that listens on it, or choose another port"
            )
        return asked
    last = min(preferred + SEARCHED, 65536)
    for port in ([kept] if kept is not None else []) + list(range(preferred, last)):
        if port not in used and is_free(port):
            return port
    raise LauncherError(
        f"no free port for the {name}: {preferred} to {last - 1} are all taken: choose one with --{name}-port"
    )


def internal_port(name: str, *, kept: int | None, used: Collection[int]) -> int:
    """The port kept from last time, or a free one of INTERNAL. Raises LauncherError when none is found."""
    # Chosen at random, so that two platforms that start together do not choose alike.
    for port in ([kept] if kept is not None else []) + random.sample(INTERNAL, _TRIES):
        if port not in used and is_free(port):
            return port
    raise LauncherError(
        f"no free port for {name}: {_TRIES} between {INTERNAL.start} and {INTERNAL.stop - 1} were tried "
        "and all are taken: stop some of the programs that listen there"
    )
