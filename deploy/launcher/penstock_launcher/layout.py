"""Where things lie in the data directory, and whether it can be used."""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from penstock_launcher.errors import LauncherError

FREE_MB_MIN = 500
"""An empty platform takes about 150 MB; the rest is room for logs, the write-ahead log and one model."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one data directory."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        return self.root / "run" / "supervisor.lock"

    @property
    def report(self) -> Path:
        return self.root / "run" / "report.json"

    @property
    def api_key(self) -> Path:
        return self.root / "api.key"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"


def layout_of(data_dir: Path) -> Layout:
    """The layout of `data_dir`, which need not exist; links are followed, so one place has one name."""
    return Layout(data_dir.expanduser().resolve())


def prepare(layout: Layout, *, own_postgres: bool) -> None:
    """Make the folders. Raises LauncherError when the directory cannot hold a platform."""
    if own_postgres and os.geteuid() == 0:
        _check_reachable(layout.root)
    try:
        _make(layout.root)
        for folder in (layout.lock.parent, layout.log("any").parent):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LauncherError(
            f"the data directory {layout.root} cannot be made ({error.strerror}: {error.filename}): "
            "choose another with --data-dir or PENSTOCK_HOME"
        ) from error
    if not os.access(layout.root, os.W_OK | os.X_OK) or not os.access(layout.lock.parent, os.W_OK | os.X_OK):
        raise LauncherError(
            f"the data directory {layout.root} is not writable for this user: "
            "choose another with --data-dir or PENSTOCK_HOME"
        )
    owner = layout.lock.parent.stat().st_uid
    if owner != os.geteuid():
        raise LauncherError(
            f"the data directory {layout.root} belongs to another user (uid {owner}): "
            "run this as that user, or choose another with --data-dir or PENSTOCK_HOME"
        )
    free_mb = shutil.disk_usage(layout.root).free // 1024**2
    if free_mb < FREE_MB_MIN:
        raise LauncherError(
            f"the disk is full: {free_mb} MB are free at {layout.root}, and at least {FREE_MB_MIN} MB are needed: "
            "make room, or choose another place with --data-dir or PENSTOCK_HOME"
        )


def _make(folder: Path) -> None:
    if folder.is_dir():
        return
    _make(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        # Another start made it meanwhile, unless it is no folder.
        if not os.path.isdir(folder):
            raise
        return
    # Whatever the umask: PostgreSQL's user passes through. What is private inside says so itself.
    folder.chmod(0o755)


def _check_reachable(root: Path) -> None:
    """PostgreSQL refuses to run as root, so it runs as `nobody`, who must be able to come here."""
    for folder in (root, *root.parents):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            raise LauncherError(
                f"root starts PostgreSQL as the user nobody, who may not enter {folder}: choose a data directory "
                f"such as /var/lib/penstock with --data-dir or PENSTOCK_HOME, or allow it with `chmod o+x {folder}`"
            )
