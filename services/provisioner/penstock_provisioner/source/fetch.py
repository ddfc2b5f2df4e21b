"""Sources on this host: pinned to a commit, fetched once, kept read-only in a bounded cache."""

import asyncio
import hashlib
import json
import logging
import os
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock_common.contracts.endpoint import GitSource
from penstock_provisioner.files import remove_tree, tree_bytes
from penstock_provisioner.source.address import LocalAddress, check_ref, parse_address
from penstock_provisioner.source.extract import copy_tree, extract
from penstock_provisioner.source.git import Git, Target, too_big
from penstock_provisioner.source.network import checked_addresses
from penstock_provisioner.source.problems import REF, URI, SourceProblem, listed, near
from penstock_provisioner.source.tree import check_entries, parse_listing
from penstock_provisioner.threads import in_thread

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What is accepted as a source, how much is kept, and how many are fetched at the same time."""

    allow_local: bool
    allow_private: bool
    files_max: int
    bytes_max: int
    cache_bytes_max: int
    timeout_s: float
    parallel: int


class Sources:
    """The sources under `directory`, which belongs to this process alone."""

    def __init__(self, git: Git, directory: Path, limits: SourceLimits) -> None:
        self._git = git
        self._directory = directory
        self._limits = limits
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_use: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(limits.parallel)
        self._copying = asyncio.Semaphore(limits.parallel)
        self._evicting = asyncio.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        for unfinished in directory.glob(".*"):
            remove_tree(unfinished)

    async def pin(self, source: GitSource) -> str:
        """The commit that the source's ref names now. Raises SourceProblem."""
        check_ref(source.ref)
        target = await self._target(source.uri)
        refs = await self._git.refs(target)
        if not refs:
            raise SourceProblem(URI, "the repository is empty: commit the model's code to it and push")
        return await in_thread(_resolve, source.ref, refs)

    @asynccontextmanager
    async def tree(self, uri: str, ref: str, commit: str) -> AsyncIterator[Path]:
        """The files of one commit, read-only, fetched if they are not here yet. Raises SourceProblem."""
        key = hashlib.sha256(f"{uri}\0{commit}".encode()).hexdigest()[:32]
        self._in_use[key] += 1
        try:
            async with self._locks[key]:
                entry = self._directory / key
                if not entry.is_dir():
                    async with self._slots:
                        await self._fetch(uri, ref, commit, entry)
                os.utime(entry)
            yield entry / "tree"
        finally:
            self._in_use[key] -= 1
            if not self._in_use[key]:
                del self._in_use[key]
                self._locks.pop(key, None)

    async def copy(self, uri: str, ref: str, commit: str, target: Path) -> None:
        """Put a writable copy of one commit's files at `target`, in place of what is there."""
        async with self.tree(uri, ref, commit) as tree, self._copying:
            await in_thread(remove_tree, target)
            await in_thread(copy_tree, tree, target)

    async def _target(self, uri: str) -> Target:
        address = parse_address(uri, allow_local=self._limits.allow_local)
        if isinstance(address, LocalAddress):
            # A file would be read as a bundle, which is another transport.
            if not await in_thread(os.path.isdir, address.path):
                raise SourceProblem(URI, f"{address.path} is no directory on this host: check the path")
            return Target(address)
        return Target(address, await checked_addresses(address, allow_private=self._limits.allow_private))

    async def _fetch(self, uri: str, ref: str, commit: str, entry: Path) -> None:
        if not _COMMIT.fullmatch(commit):
            raise SourceProblem(URI, f"{commit!r} is no full commit")
        target = await self._target(uri)
        unfinished = self._directory / f".{entry.name}.{secrets.token_hex(4)}"
        repository = unfinished / "git"
        repository.mkdir(parents=True)
        try:
            await self._fetch_commit(target, repository, ref, commit)
            size = await self._extract(repository, commit, unfinished / "tree")
            await in_thread(remove_tree, repository)
            (unfinished / "source.json").write_text(json.dumps({"uri": uri, "commit": commit, "bytes": size}))
            unfinished.rename(entry)
        finally:
            await in_thread(remove_tree, unfinished)
        try:
            await self._evict()
        except OSError as error:
            log.warning("the cache of sources cannot be tidied", extra={"error": repr(error)})

    async def _fetch_commit(self, target: Target, repository: Path, ref: str, commit: str) -> None:
        if not await self._git.fetch(target, repository, commit):
            # Servers of the older protocol hand out only what a name points to.
            check_ref(ref)
            await self._git.fetch(target, repository, ref)
        if await in_thread(tree_bytes, repository) > self._limits.bytes_max:
            raise too_big(self._limits.bytes_max)
        try:
            kind = await self._git.read(repository, ["cat-file", "-t", commit])
        except SourceProblem:
            raise SourceProblem(
                REF, f"the commit {commit} is not in the repository (any more): give a branch, or push it again"
            ) from None
        if kind.strip() != b"commit":
            raise SourceProblem(REF, f"{ref} names no commit: give a branch, tag or commit")

    async def _extract(self, repository: Path, commit: str, target: Path) -> int:
        listing = await self._git.read(repository, ["ls-tree", "-r", "-z", "-l", "--full-tree", commit])
        entries = await in_thread(parse_listing, listing)
        await in_thread(check_entries, entries, files_max=self._limits.files_max, bytes_max=self._limits.bytes_max)
        await extract(entries, repository, target, env=self._git.environment(), timeout_s=self._limits.timeout_s)
        return sum(entry.size for entry in entries)

    async def _evict(self) -> None:
        """Remove what was used longest ago, until the rest fits; never what is in use."""
        async with self._evicting:
            sizes = await in_thread(_sizes, self._directory)
            # From here to the last renaming nothing else has a turn, so nobody can begin to use one of them; and
            # a half-removed tree is never taken for a whole one.
            excess = sum(size or 0 for size in sizes.values()) - self._limits.cache_bytes_max
            doomed = []
            for entry, size in sizes.items():
                if entry.name not in self._in_use and (excess > 0 or size is None):
                    doomed.append(entry.rename(entry.with_name(f".{entry.name}.{secrets.token_hex(4)}")))
                    excess -= size or 0
        for path in doomed:
            await in_thread(remove_tree, path)


def _sizes(directory: Path) -> dict[Path, int | None]:
    """Bytes of every complete entry, the one used longest ago first; None for one that a power cut has damaged."""
    entries = sorted(
        (entry for entry in directory.iterdir() if not entry.name.startswith(".")),
        key=lambda entry: entry.stat().st_mtime,
    )
    return {entry: _size(entry) for entry in entries}


def _size(entry: Path) -> int | None:
    try:
        return int(json.loads((entry / "source.json").read_text())["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _resolve(ref: str, refs: dict[str, str]) -> str:
    """The commit that `ref` names, as git itself would decide. Raises SourceProblem."""
    # `^{}` is the commit behind an annotated tag.
    for name in (ref, f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
        if name in refs:
            return refs[f"{name}^{{}}"] if f"{name}^{{}}" in refs else refs[name]
    if _COMMIT.fullmatch(ref.lower()):
        return ref.lower()
    if ref == "HEAD":
        raise SourceProblem(REF, "the repository has no default branch: name the branch to use")
    known = [
        name.partition("/")[2].partition("/")[2]
        for name in refs
        if name.startswith(("refs/heads/", "refs/tags/")) and not name.endswith("^{}")
    ]
    hint = near(ref, known) or f"; it has {listed(known, 5)}"
    if _SHORT_COMMIT.fullmatch(ref.lower()):
        hint += "; a commit has to be given in full, with 40 characters"
    raise SourceProblem(REF, f"the repository has no branch or tag {ref!r}{hint}")
