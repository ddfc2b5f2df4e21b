"""The replica's model server, copied to where replicas import it from and nothing else with it."""

import compileall
import hashlib
import os
import shutil
from pathlib import Path

import penstock_runtime
from penstock_provisioner.files import make_read_only, remove_tree

_PACKAGE = "penstock_runtime"


def copy_runtime(directory: Path) -> Path:
    """Copy the installed `penstock_runtime` below `directory`, unless it is there; returns the folder for PYTHONPATH.

    It is named by its content, so a replica keeps the one it was started with while the platform is
    upgraded around it.
    """
    source = Path(penstock_runtime.__path__[0])
    files = sorted(path for path in source.rglob("*.py") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source)}\0{len(content)}\0".encode() + content)
    target = directory / digest.hexdigest()[:32]
    if target.is_dir():
        return target
    unfinished = directory / f".{target.name}"
    remove_tree(unfinished)
    for path in files:
        copy = unfinished / _PACKAGE / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    # All replicas import it, and none may change it: compiled here, as none can write that beside it either.
    compileall.compile_dir(unfinished, quiet=2, stripdir=str(unfinished), prependdir=str(target))
    make_read_only(unfinished)
    os.rename(unfinished, target)
    return target


def remove_other_copies(directory: Path, current: Path) -> None:
    """Remove the copies of earlier versions; only while nothing runs from them."""
    for entry in directory.iterdir():
        if entry != current:
            remove_tree(entry)
