"""Files: replaced whole, removed for sure, measured."""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`, whole or not at all; `durable` makes that hold through a power cut."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def remove_tree(path: Path) -> None:
    """Remove a tree, also where its owner took away the right to write. A missing one is fine."""
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            _make_writable(path)
            shutil.rmtree(path)


def _make_writable(path: Path) -> None:
    path.chmod(0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            entry = Path(folder, name)
            if not entry.is_symlink():
                entry.chmod(0o700)


def make_read_only(path: Path) -> None:
    """Take away everybody's right to write to a tree and all in it. What links lead to stays as it is."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in (*names, "."):
            entry = os.path.join(folder, name)
            mode = os.lstat(entry).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(entry, stat.S_IMODE(mode) & ~0o222)


def tree_bytes(directory: Path) -> int:
    """The sizes of all files below `directory`; what vanishes meanwhile counts as nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total
