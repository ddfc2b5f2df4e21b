"""What the platform remembers in its data directory from one start to the next."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.files import write_private

VERSION = 1


@dataclass(slots=True)
class State:
    """Chosen once and then kept. It holds passwords: the file may be read by its owner only."""

    host_id: str
    external_database: bool
    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    """One for each user of NATS, and of PostgreSQL where the user has a database."""
    simulate_gpus: str = ""
    otlp_endpoint: str = ""
    version: int = VERSION

    def complete_passwords(self, users: Iterable[str]) -> None:
        """Make a password for each user that has none."""
        for user in users:
            self.passwords.setdefault(user, secrets.token_hex(24))


def load(path: Path) -> State | None:
    """The state kept at `path`, or None when there is none. Raises LauncherError when it cannot be used."""
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LauncherError(f"{path} cannot be read ({error}): restore it from a backup") from error
    if not isinstance(kept, dict) or kept.get("version") != VERSION:
        raise LauncherError(f"{path} was written by another version of Penstock: use that one, or another --data-dir")
    try:
        return State(**kept)
    except TypeError as error:
        raise LauncherError(f"{path} is damaged ({error}): restore it from a backup") from error


def save(path: Path, state: State) -> None:
    """Replace the file whole. Raises OSError."""
    write_private(path, json.dumps(asdict(state), indent=2) + "\n")
