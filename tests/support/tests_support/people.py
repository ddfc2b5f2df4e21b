"""What users of the platform have: repositories with models, the command line, and an account to look at."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock import AsyncPenstock
from tests_support.platform import Platform

_GIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@localhost")


class Repositories:
    """Makes git repositories below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, files: Mapping[str, str | bytes], *, name: str = "model") -> str:
        """The path of a new repository with these files, on the branch `main`."""
        folder = self._folder / name
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        self.commit(str(folder), files)
        return str(folder)

    def commit(self, repository: str, files: Mapping[str, str | bytes]) -> str:
        """Write these files and commit them; returns the commit."""
        for name, content in files.items():
            path = Path(repository, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        git(Path(repository), "add", "-A")
        git(Path(repository), "commit", "-q", "-m", "A model")
        return git(Path(repository), "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    """What git prints when it is called in `folder`."""
    done = subprocess.run([*_GIT, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str


async def command_line(platform: Platform, *arguments: str) -> Ran:
    """`penstock` with these arguments, as the user who started the platform calls it."""
    address = {"PENSTOCK_API_URL": platform.api_url, "PENSTOCK_API_KEY": platform.api_key}
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("penstock")),
        *arguments,
        env={**os.environ, **address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def nothing_runs(client: AsyncPenstock, platform: Platform) -> bool:
    """Nothing is reserved, no model server runs, and no bill is open. Raises AssertionError."""
    capacity = await client.gpus.list()
    assert capacity.cpu is not None
    assert [gpu.type for gpu in (*capacity.gpus, capacity.cpu) if gpu.free != gpu.total] == []
    assert platform.replicas_running() == {}
    assert (await client.usage()).running_replicas == 0
    return True
