"""The packages installed beside the provisioner: a source that needs nothing else needs no network."""

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed_pins(requirements: Iterable[str]) -> str | None:
    """`name==version` lines for `requirements` and all they need, as installed here; None if something is missing."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return None
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            return None
        pins[name] = distribution.version
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        todo += _needs(distribution, requirement.extras)
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def copy_installed(requirements: str, site_packages: Path) -> bool:
    """Copy the packages of `name==version` lines into `site_packages`; whether all are installed here as files."""
    sources: list[tuple[Path, Path]] = []
    for line in requirements.splitlines():
        name, _, version = line.partition("==")
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return False
        files = distribution.files
        if distribution.version != version or not files or (distribution.read_text("direct_url.json") is not None):
            return False
        # Commands lie outside of site-packages and name this interpreter: they are left out.
        inside = (Path(file) for file in files if ".." not in file.parts and not Path(file).is_absolute())
        wanted = {path for file in inside for path in _with_compiled(file)}
        sources += [(Path(str(distribution.locate_file(str(path)))), path) for path in wanted]
    for path, relative in sources:
        if path.is_file():
            target = site_packages / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            # With its times, as compiled code is valid only for the time of its source.
            shutil.copy2(path, target)
    return True


def _with_compiled(file: Path) -> Iterator[Path]:
    """The file, and where its compiled code would be."""
    yield file
    if file.suffix == ".py":
        yield Path(importlib.util.cache_from_source(str(file)))


def _needs(distribution: importlib.metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in distribution.requires or []:
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if requirement.marker is None or any(requirement.marker.evaluate(one) for one in environments):
            yield requirement
