"""What a person may choose when starting the platform, and the defaults."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_launcher.errors import LauncherError

HOME = "PENSTOCK_HOME"
DATABASE_URL = "DATABASE_URL"
_HOST_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """Options of `up`. What is None is taken from an earlier `up` of the same data directory, or a default.

    An empty `simulate_gpus` or `otlp_endpoint` clears what an earlier `up` was given.
    `simulate_gpus` reads `RTX 4090=4`, several separated by commas. `database_url` is the
    administrator's address of an external PostgreSQL; with one, none is started.
    """

    data_dir: Path | None = None
    simulate_gpus: str | None = None
    gateway_port: int | None = None
    api_port: int | None = None
    otlp_endpoint: str | None = None
    database_url: str | None = None
    host_id: str | None = None


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$PENSTOCK_HOME`; else `/var/lib/penstock` for root and `$XDG_DATA_HOME/penstock` for others."""
    environ = os.environ if environ is None else environ
    if environ.get(HOME):
        return Path(environ[HOME])
    if os.geteuid() == 0:
        return Path("/var/lib/penstock")
    base = Path(environ.get("XDG_DATA_HOME", ""))
    # The specification of base directories says to ignore a relative path.
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "penstock"


def check(options: UpOptions) -> None:
    """Raises LauncherError for a choice that cannot be granted."""
    for name, port in (("gateway", options.gateway_port), ("api", options.api_port)):
        if port is not None and not 1 <= port <= 65535:
            raise LauncherError(f"--{name}-port {port} is not a port: choose one from 1 to 65535")
    if options.gateway_port is not None and options.gateway_port == options.api_port:
        raise LauncherError(f"the gateway and the API cannot both listen on port {options.api_port}: choose two ports")
    if options.host_id is not None and not _HOST_ID.fullmatch(options.host_id):
        raise LauncherError(
            f"--host-id {options.host_id!r} cannot name a host: use up to 63 lower-case letters, digits and dashes"
        )
    if options.database_url is not None and not options.database_url.startswith(("postgresql://", "postgres://")):
        raise LauncherError(f"{DATABASE_URL} must look like postgresql://user:password@host:5432/database")


def host_id_from(hostname: str) -> str:
    """The host's name as an identifier that may stand in a message subject."""
    cleaned = re.sub(r"[^a-z0-9-]+", "-", hostname.partition(".")[0].lower()).strip("-")[:63].rstrip("-")
    return cleaned or "host"
