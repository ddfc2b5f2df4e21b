"""Python environments: one for each set of exact versions, built once, shared by its replicas, bounded in number."""

import asyncio
import contextlib
import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from penstock_provisioner.files import remove_tree, write_atomically
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

    `in_use` gives the requirement sets of replicas on this host: their environments stay.
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
        in_use: Callable[[], Collection[str]],
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
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, requirements: str) -> Path:
        """Where the environment for these `name==version` lines is, or would be."""
        lines = "\n".join(sorted(line.strip() for line in requirements.splitlines() if line.strip()))
        return self._directory / hashlib.sha256(f"{python_tag()}\n{lines}".encode()).hexdigest()[:32]

    async def ensure(self, requirements: str) -> Path:
        """The environment with exactly these packages, built if it is not there. Raises InstallFailed."""
        path = self.path(requirements)
        async with self._locks[path.name]:
            if not (path / _COMPLETE).is_file():
                async with self._slots:
                    await self._build(path, requirements)
            with contextlib.suppress(FileNotFoundError):
                os.utime(path / _COMPLETE)
        return path

    async def warm(self, requirements: str) -> None:
        """Build an environment that most replicas will want, and compile it, so that the first starts fast."""
        path = await self.ensure(requirements)
        compiled = await self._uv.compile_bytecode(path, timeout_s=_COMPILE_TIMEOUT_S)
        log.info("base environment ready", extra={"path": str(path), "compiled": compiled})

    async def _build(self, path: Path, requirements: str) -> None:
        # What an earlier process left unfinished here is without the mark, and worth nothing.
        await in_thread(remove_tree, path)
        try:
            await self._run(["venv", "--quiet", "--python", python(), "--", str(path)], _CREATE_TIMEOUT_S)
            await self._install(path, requirements)
        except BaseException:
            await in_thread(remove_tree, path)
            raise
        write_atomically(path / _COMPLETE, b"")
        try:
            await in_thread(self._evict, keep=path)
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

    async def _run(self, arguments: list[str], timeout_s: float) -> None:
        try:
            completed: Completed = await self._uv.run(arguments, timeout_s=timeout_s)
        except HelperFailed as failure:
            raise InstallFailed(f"installing the packages {failure}: try again, or pin smaller ones") from failure
        if completed.code != 0:
            raise InstallFailed(f"the packages cannot be installed: {reason(completed)}")

    def _evict(self, keep: Path) -> None:
        """Remove those used longest ago beyond the bound; never one that a replica of this host uses."""
        spared = {self.path(requirements) for requirements in self._in_use()} | {keep}
        complete = [path for path in self._directory.iterdir() if (path / _COMPLETE).is_file()]
        complete.sort(key=lambda path: (path / _COMPLETE).stat().st_mtime)
        for path in complete[: max(0, len(complete) - self._count_max)]:
            if path not in spared:
                (path / _COMPLETE).unlink()
                remove_tree(path)


def _site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))
