"""From requirements to exact versions, together with the runtime's own, so that conflicts show at creation."""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

import penstock_runtime
from penstock_provisioner.files import remove_tree
from penstock_provisioner.helpers import Completed, HelperFailed
from penstock_provisioner.source.installed import installed_pins
from penstock_provisioner.source.problems import SourceProblem, listed
from penstock_provisioner.source.requirements import REQUIREMENTS_FILE, Line, Requirements
from penstock_provisioner.source.uv import Uv, python, python_tag, reason
from penstock_provisioner.threads import in_thread

_CACHED_S = 3600.0
_CACHED_MAX = 256
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")
_INDEX_AWAY = re.compile(
    r"failed to fetch|error sending request|connection|timed out|dns error|network|certificate", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Resolved:
    pins: str
    at: float


class Resolver:
    """Resolves requirement sets, and remembers the answers of the last hour."""

    def __init__(
        self,
        uv: Uv,
        directory: Path,
        *,
        timeout_s: float,
        allow_builds: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uv = uv
        self._directory = directory
        self._timeout_s = timeout_s
        self._allow_builds = allow_builds
        self._clock = clock
        self._cache: OrderedDict[str, _Resolved] = OrderedDict()
        remove_tree(directory)
        directory.mkdir(parents=True)

    async def resolve(self, requirements: Requirements) -> str:
        """Exact `name==version` lines, sorted, for this host's Python, the runtime's own included.

        Lines that could not be read have no say in it. Raises SourceProblem, with the first line at fault as
        its field, when no set of versions satisfies all, or the index cannot be reached.
        """
        lines = _own_lines()
        if not requirements.lines:
            pins = await in_thread(installed_pins, lines)
            if pins is not None:
                return pins
        wanted = [line.text for line in requirements.lines]
        constraints = [line.text for line in requirements.constraints]
        key = hashlib.sha256("\n".join([python_tag(), *lines, "", *wanted, "", *constraints]).encode()).hexdigest()
        known = self._cache.get(key)
        if known is not None and self._clock() - known.at < _CACHED_S:
            return known.pins
        pins = await self._compile(requirements, wanted, constraints)
        self._cache[key] = _Resolved(pins, self._clock())
        self._cache.move_to_end(key)
        if len(self._cache) > _CACHED_MAX:
            self._cache.popitem(last=False)
        return pins

    async def _compile(self, requirements: Requirements, wanted: Sequence[str], constraints: Sequence[str]) -> str:
        folder = self._directory / secrets.token_hex(8)
        folder.mkdir()
        try:
            (folder / "runtime.in").write_text("\n".join(_own_lines()) + "\n")
            (folder / "requirements.in").write_text("\n".join(wanted) + "\n")
            (folder / "constraints.in").write_text("\n".join(constraints) + "\n")
            arguments = ["pip", "compile", "runtime.in", "requirements.in", "--constraint", "constraints.in"]
            arguments += ["--no-header", "--no-annotate", "--quiet", "--python", python()]
            arguments += [] if self._allow_builds else ["--no-build"]
            completed = await self._uv.run(arguments, timeout_s=self._timeout_s, cwd=folder)
        except HelperFailed as failure:
            raise SourceProblem(
                REQUIREMENTS_FILE, f"resolving its versions {failure}: pin more of them in it"
            ) from failure
        finally:
            remove_tree(folder)
        if completed.code != 0:
            raise _explained(completed, requirements)
        return _pins(completed.stdout.decode())


def _own_lines() -> tuple[str, ...]:
    return penstock_runtime.REQUIREMENTS


def _pins(output: str) -> str:
    """The lines of uv's answer. Raises SourceProblem for anything but exact versions of the index."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("#", "-"))]
    odd = [line for line in lines if not _PIN.fullmatch(line)]
    if odd:
        message = f"it leads to {listed(odd, 3)}, which is no version of the index: name another package or version"
        raise SourceProblem(REQUIREMENTS_FILE, message)
    return "".join(f"{line}\n" for line in sorted(lines))


def _explained(completed: Completed, requirements: Requirements) -> SourceProblem:
    said = reason(completed)
    if _INDEX_AWAY.search(said) and "No solution found" not in said:
        message = f"the package index cannot be reached from this host: try again later ({said[:300]})"
        return SourceProblem(REQUIREMENTS_FILE, message)
    said = said.removeprefix("No solution found when resolving dependencies").strip(" :")
    places = _places(said, requirements.lines)
    others = f" together with {listed(places[1:], 5)}" if len(places) > 1 else ""
    own = [line for line in _own_lines() if re.split(r"[<>=!~]", line)[0] in said and "you require" in said]
    mend = f"; Penstock itself needs {listed(own)}" if own else ""
    if "building source distributions is disabled" in said.lower() or "no usable wheels" in said.lower():
        mend += "; only packages with a wheel are installed: choose a version that has one"
    where = places[0] if places else REQUIREMENTS_FILE
    return SourceProblem(where, f"cannot be satisfied{others}: {said}{mend}")


def _places(said: str, lines: Sequence[Line]) -> list[str]:
    """Where the packages that uv speaks of stand in the user's files."""
    words = {canonicalize_name(word) for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", said)}
    return [line.place for line in lines if canonicalize_name(line.name) in words]
