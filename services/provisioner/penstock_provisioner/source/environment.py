"""Python environments: one for each set of exact versions, built once, shared by its replicas, bounded in number.

A finished one is read-only. Its files may be the very ones in uv's cache (uv makes hard links), so
whoever could write to it would write to every environment with that package.
"""

import asyncio
import hashlib
import logging
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from penstock_provisioner.files import make_read_only, remove_tree, write_atomically
from penstock_provisioner.helpers import Completed, HelperFailed
from penstock_provisioner.source.installed import copy_installed
from penstock_provisioner.source.uv import Uv, python, python_tag, reason
from penstock_provisioner.threads import in_thread

log = logging.getLogger(__name__)

_COMPLETE = "penstock-complete"
_CREATE_TIMEOUT_S = 60.0
_COMPILE_TIMEOUT_S = 300.0


class InstallFailed(Exception):
    """The environment cannot be built. The message names the package and the mend where uv says so."""


class Environments:
    """The environments under `directory`, which belongs to this process alone.

    `in_use` gives the environments that replicas of this host are prepared from or run in: they stay.
    """

    def __init__(
        self,
        uv: Uv,
        directory: Path,
        *,
        count_max: int,
        wheels_bytes_max: int,
        parallel: int,
        timeout_s: float,
        allow_builds: bool,
        in_use: Callable[[], Collection[Path]],
    ) -> None:
        self._uv = uv
        self._directory = directory
        self._count_max = count_max
        self._wheels_bytes_max = wheels_bytes_max
        self._slots = asyncio.Semaphore(parallel)
        self._timeout_s = timeout_s
        self._allow_builds = allow_builds
        self._in_use = in_use
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._held: Counter[str] = Counter()
        directory.mkdir(parents=True, exist_ok=True)
        # What an earlier process was building or removing when it ended.
        for path in [path for path in directory.iterdir() if not _is_complete(path)]:
            remove_tree(path)

    def path(self, requirements: str) -> Path:
        """Where the environment for these `name==version` lines is, or would be."""
        lines = "\n".join(sorted(line.strip() for line in requirements.splitlines() if line.strip()))
        return self._directory / hashlib.sha256(f"{python_tag()}\n{lines}".encode()).hexdigest()[:32]

    async def ensure(self, requirements: str) -> Path:
        """The environment with exactly these packages, built if it is not there. Raises InstallFailed."""
        path = self.path(requirements)
        self._held[path.name] += 1
        try:
            async with self._locks[path.name]:
                if not _is_complete(path):
                    async with self._slots:
                        await self._build(path, requirements)
                os.utime(path / _COMPLETE)
        finally:
            self._held[path.name] -= 1
            if not self._held[path.name]:
                del self._held[path.name]
                self._locks.pop(path.name, None)
        return path

    async def _build(self, path: Path, requirements: str) -> None:
        # What an earlier process left unfinished here is without the mark, and worth nothing.
        await in_thread(remove_tree, path)
        try:
            await self._run(["venv", "--quiet", "--python", python(), "--", str(path)], _CREATE_TIMEOUT_S)
            await self._install(path, requirements)
            await self._compile(path)
            await in_thread(_finish, path)
        except BaseException:
            await in_thread(remove_tree, path)
            raise
        try:
            await self._evict()
            await self._uv.bound_cache(self._wheels_bytes_max)
        except (OSError, HelperFailed) as error:
            log.warning("the cache of environments cannot be tidied", extra={"error": repr(error)})

    async def _install(self, path: Path, requirements: str) -> None:
        if await in_thread(copy_installed, requirements, _site_packages(path)):
            return
        lock = path / "requirements.lock"
        lock.write_text(requirements)
        arguments = ["pip", "install", "--quiet", "--no-deps", "--python", str(path / "bin/python")]
        arguments += [] if self._allow_builds else ["--no-build"]
        await self._run([*arguments, "--requirement", str(lock)], self._timeout_s)

    async def _compile(self, path: Path) -> None:
        """Replicas cannot write compiled code beside a module: what is not there, each start compiles again."""
        try:
            compiled = await self._uv.compile_bytecode(path, timeout_s=_COMPILE_TIMEOUT_S)
            log.info("environment built", extra={"path": str(path), "compiled": compiled})
        except HelperFailed as failure:
            log.warning("an environment starts slowly: compiling it %s", failure, extra={"path": str(path)})

    async def _run(self, arguments: list[str], timeout_s: float) -> None:
        try:
            completed: Completed = await self._uv.run(arguments, timeout_s=timeout_s)
        except HelperFailed as failure:
            raise InstallFailed(f"installing the packages {failure}: try again, or pin smaller ones") from failure
        if completed.code != 0:
            raise InstallFailed(f"the packages cannot be installed: {reason(completed)}")

    async def _evict(self) -> None:
        """Remove those used longest ago beyond the bound; never one that is being prepared or that a replica uses."""
        # Up to the last renaming nothing else has a turn, so nobody can begin to use one of them.
        spared = {path.name for path in self._in_use()} | self._held.keys()
        complete = [path for path in self._directory.iterdir() if _is_complete(path)]
        complete.sort(key=lambda path: (path / _COMPLETE).stat().st_mtime)
        doomed = [
            path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
            for path in complete[: max(0, len(complete) - self._count_max)]
            if path.name not in spared
        ]
        for path in doomed:
            await in_thread(remove_tree, path)


def _is_complete(path: Path) -> bool:
    return not path.name.startswith(".") and (path / _COMPLETE).is_file()


def _finish(path: Path) -> None:
    """Make it read-only, and last of all mark it as complete."""
    make_read_only(path)
    path.chmod(0o755)
    write_atomically(path / _COMPLETE, b"")
    (path / _COMPLETE).chmod(0o444)
    path.chmod(0o555)


def _site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))
