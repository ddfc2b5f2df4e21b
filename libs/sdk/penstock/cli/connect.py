"""The client that commands use, and how a shell gets at its key."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from penstock import config
from penstock.cli.output import note
from penstock.cli.words import duration, plain
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.client import Endpoint, Penstock

_WAIT_TOLD_S = 0.5


def client() -> "Penstock":
    """A client of the configured platform, which tells when it tries something again. Raises NotConfigured."""
    from penstock.client import Penstock

    return Penstock(on_wait=_tell)


def _tell(error: PenstockError, delay_s: float) -> None:
    """Short waits are nobody's concern; longer ones would look like a hang."""
    if delay_s >= _WAIT_TOLD_S:
        note(Text(f"{plain(error.message)} Trying again in {duration(delay_s)}.", style="dim"))


@contextmanager
def named(reference: str) -> "Iterator[Endpoint]":
    """The endpoint of a name, `workspace/name` or id, while its client is open. Raises NotFound, Ambiguous."""
    with client() as penstock:
        yield penstock.endpoints.get(reference)


def pasteable(command: str, environ: dict[str, str] | None = None) -> str:
    """The API's example command, made to work in a shell where PENSTOCK_API_KEY may not be set.

    The key itself is never shown: the command reads it from where this one read it.
    """
    environ = dict(os.environ) if environ is None else environ
    found = config.load(environ=environ)
    if found.key_from_environment:
        return command
    return command.replace(f"${config.API_KEY}", f"$({_key_command(found)})")


def _key_command(found: config.Config) -> str:
    if found.key_file is not None:
        return f"cat {shlex.quote(str(found.key_file))}"
    here = "penstock" if shutil.which("penstock") else shlex.quote(os.path.abspath(sys.argv[0]))
    return f"{here} key current"


def complete_endpoint(incomplete: str) -> list[str]:
    """Names for shell completion; none when the platform does not answer at once."""
    from penstock.client import Penstock
    from penstock.errors import PenstockError
    from penstock.retry import RetryPolicy

    try:
        with Penstock(retry=RetryPolicy(attempts=1), timeout_s=2) as penstock:
            names = [endpoint.full_name for endpoint in penstock.endpoints.list(limit=200)]
    except PenstockError:
        return []
    return [name for name in names if name.startswith(incomplete)]
