"""Checking what a commit holds before any of it is written. Pure."""

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock_provisioner.source.problems import URI, SourceProblem, listed

_LINKS_FOLLOWED_MAX = 40
_PATH_BYTES_MAX = 1024
_LINK_BYTES_MAX = 4096

REGULAR = "100644"
EXECUTABLE = "100755"
LINK = "120000"
SUBMODULE = "160000"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a commit's tree. `size` is in bytes; 0 for a submodule."""

    mode: str
    oid: str
    size: int
    path: str


def parse_listing(listing: bytes) -> list[Entry]:
    """The entries in the output of `git ls-tree -r -z -l`."""
    entries = []
    for line in filter(None, listing.split(b"\0")):
        head, _, path = line.partition(b"\t")
        mode, _, oid, size = head.decode("ascii").split()
        entries.append(Entry(mode, oid, int(size) if size.isdigit() else 0, os.fsdecode(path)))
    return entries


def check_entries(entries: Iterable[Entry], *, files_max: int, bytes_max: int) -> None:
    """Raises SourceProblem unless every path is plain, stays inside, and all of it is within the bounds."""
    entries = list(entries)
    if len(entries) > files_max:
        raise SourceProblem(
            URI,
            f"the repository holds {len(entries)} files, and at most {files_max} are allowed: remove what the "
            "model does not need, or raise PENSTOCK_SOURCE_FILES_MAX on the hosts",
        )
    total = sum(entry.size for entry in entries)
    if total > bytes_max:
        raise SourceProblem(
            URI,
            f"the files of the repository take {total // 1024**2} MB, and at most {bytes_max // 1024**2} MB are "
            "allowed: load large files when the model starts, or raise PENSTOCK_SOURCE_MB_MAX on the hosts",
        )
    odd = [entry.path for entry in entries if not _is_plain(entry.path)]
    if odd:
        raise SourceProblem(URI, f"the repository holds paths that cannot be written: {listed(map(ascii, odd), 3)}")
    _check_disjoint(entries)


def check_links(entries: Iterable[Entry], targets: Mapping[str, str]) -> None:
    """Raises SourceProblem naming every link that leads out of the tree. `targets` has what each link says."""
    bad = sorted(path for path in targets if not _stays_inside(path, targets))
    if bad:
        raise SourceProblem(
            URI,
            f"links in the repository lead out of it: {listed(map(ascii, bad), 5)}; "
            "replace them by the files themselves",
        )


def _is_plain(path: str) -> bool:
    parts = path.split("/")
    if len(os.fsencode(path)) > _PATH_BYTES_MAX or any(len(os.fsencode(part)) > 255 for part in parts):
        return False
    return not any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)


def _check_disjoint(entries: Iterable[Entry]) -> None:
    """No path twice, and none below a file or link: a forged tree could write through such a link."""
    paths = [entry.path for entry in entries]
    known = set(paths)
    twice = len(known) != len(paths)
    if twice or any(parent in known for path in paths for parent in _parents(path)):
        raise SourceProblem(URI, "the repository names one path twice: it was damaged or forged")


def _parents(path: str) -> Iterable[str]:
    while path := posixpath.dirname(path):
        yield path


def _stays_inside(link: str, targets: Mapping[str, str]) -> bool:
    """Follow a link as the kernel would, one name at a time, and see that it never climbs above the root."""
    todo = _names(targets[link])
    if todo is None:
        return False
    here = link.split("/")[:-1]
    followed = 1
    while todo:
        name = todo.pop()
        if name == "..":
            if not here:
                return False
            here.pop()
            continue
        here.append(name)
        further = targets.get("/".join(here))
        if further is not None:
            followed += 1
            names = _names(further)
            if names is None or followed > _LINKS_FOLLOWED_MAX:
                return False
            here.pop()
            todo += names
    return True


def _names(target: str) -> list[str] | None:
    """What a link says, as names with the first one last; None if it is absolute or no path at all."""
    if not target or target.startswith("/") or "\0" in target or len(os.fsencode(target)) > _LINK_BYTES_MAX:
        return None
    return [name for name in reversed(target.split("/")) if name not in ("", ".")]
