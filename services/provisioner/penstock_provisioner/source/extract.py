"""Writing a commit's files from git's object store, exactly as they were committed."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from penstock_provisioner.source.problems import URI, SourceProblem
from penstock_provisioner.source.tree import EXECUTABLE, LINK, SUBMODULE, Entry, check_links
from penstock_provisioner.threads import in_thread, settled

_CHUNK_BYTES = 256 * 1024
_FILE_MODE = 0o444
_EXECUTABLE_MODE = 0o555
_FOLDER_MODE = 0o555


async def extract(
    entries: Iterable[Entry], repository: Path, target: Path, *, env: Mapping[str, str], timeout_s: float
) -> None:
    """Write `entries` below `target`, read-only. Nothing is filtered, expanded or executed.

    The paths must have been checked. Raises SourceProblem when a link leads out of the tree, the
    repository is damaged, or it takes too long.
    """
    process = _open_objects(repository, env)
    writing = asyncio.create_task(asyncio.to_thread(_write_all, list(entries), process, target))
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(writing)
    except TimeoutError:
        raise SourceProblem(
            URI, f"unpacking the repository takes longer than {timeout_s:g} s: use a smaller one"
        ) from None
    finally:
        # Without git the thread comes to its end at once; nobody else may touch the folder before.
        process.kill()
        try:
            await settled(writing)
        finally:
            await in_thread(_close, process)


def _open_objects(repository: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["git", "cat-file", "--batch"],
        cwd=repository,
        env={**env, "GIT_DIR": str(repository)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _close(process: "subprocess.Popen[bytes]") -> None:
    """Leave neither pipes nor a dead child behind."""
    # What was meant for a git that has gone is still in the pipe's buffer.
    with contextlib.suppress(BrokenPipeError), process:
        pass


def copy_tree(source: Path, target: Path) -> None:
    """Copy an extracted tree for one replica, which may write to its copy. Replaces what is at `target`."""
    for folder, names, files in os.walk(source):
        to = target / os.path.relpath(folder, source)
        to.mkdir(parents=True, exist_ok=True)
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in (*files, *links):
            original, copy = os.path.join(folder, name), to / name
            if os.path.islink(original):
                os.symlink(os.readlink(original), copy)
            else:
                shutil.copyfile(original, copy)
                copy.chmod(0o755 if os.access(original, os.X_OK) else 0o644)


def _write_all(entries: list[Entry], process: "subprocess.Popen[bytes]", target: Path) -> None:
    if process.stdin is None or process.stdout is None:
        raise TypeError("git was started without pipes")
    target.mkdir(parents=True)
    links = {entry.path: os.fsdecode(_read(process, entry)) for entry in entries if entry.mode == LINK}
    check_links(entries, links)
    for entry in entries:
        path = target / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.mode == SUBMODULE:
            path.mkdir()
        elif entry.mode != LINK:
            _write_file(process, entry, path)
    # Links come last, so that no file is ever written through one.
    for name, says in links.items():
        os.symlink(says, target / name)
    for folder, _, _ in os.walk(target, topdown=False):
        os.chmod(folder, _FOLDER_MODE)


def _write_file(process: "subprocess.Popen[bytes]", entry: Entry, path: Path) -> None:
    mode = _EXECUTABLE_MODE if entry.mode == EXECUTABLE else _FILE_MODE
    stream = _open_object(process, entry)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        left = entry.size
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise _damaged()
            file.write(chunk)
            left -= len(chunk)
    _end_object(stream)


def _read(process: "subprocess.Popen[bytes]", entry: Entry) -> bytes:
    stream = _open_object(process, entry)
    data = stream.read(entry.size)
    _end_object(stream)
    return data


def _open_object(process: "subprocess.Popen[bytes]", entry: Entry) -> IO[bytes]:
    """Ask for one object; the stream then holds its bytes and a line feed."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise TypeError("git was started without pipes")
    try:
        stdin.write(f"{entry.oid}\n".encode())
        stdin.flush()
    except BrokenPipeError:
        raise _damaged() from None
    if stdout.readline() != f"{entry.oid} blob {entry.size}\n".encode():
        raise _damaged()
    return stdout


def _end_object(stream: IO[bytes]) -> None:
    if stream.read(1) != b"\n":
        raise _damaged()


def _damaged() -> SourceProblem:
    return SourceProblem(URI, "the repository is damaged: its objects cannot be read")
