"""Reading a repository's requirements.txt: package names with versions, and nothing that leads elsewhere. Pure."""

import codecs
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement

from penstock_common.contracts.questions import FieldProblem

REQUIREMENTS_FILE = "requirements.txt"
FILE_BYTES_MAX = 1024 * 1024
_FILES_MAX = 32
_LINES_MAX = 5000
_ARCHIVE = re.compile(r"\.(whl|zip|tar\.gz|tgz|tar\.bz2)(\s|;|$)", re.IGNORECASE)
_ADDRESS = re.compile(r"^([a-z+]+:|[./~\\]|[a-z]:\\)|://", re.IGNORECASE)

_INDEX_OPTION = re.compile(r"-i|-f|--(\S+-)?index(-\S+)?|--find-links|--trusted-host")

ReadFile = Callable[[str], bytes | None]
"""Gives the content of a file by its path in the tree, or None when there is no such file."""


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement, and where it stands."""

    file: str
    number: int
    text: str
    name: str

    @property
    def place(self) -> str:
        return place(self.file, self.number)


@dataclass(slots=True)
class Requirements:
    """What was read: requirements, constraints, and a problem with its file and line for all that cannot be used."""

    lines: list[Line] = field(default_factory=list)
    constraints: list[Line] = field(default_factory=list)
    problems: list[FieldProblem] = field(default_factory=list)


class _Unusable(Exception):
    """A line that cannot be used, with the reason and the mend."""


def read_requirements(read_file: ReadFile) -> Requirements:
    """The requirements of a source, with the files they refer to; empty when it has none."""
    reader = _Reader(read_file)
    if read_file(REQUIREMENTS_FILE) is not None:
        reader.read(REQUIREMENTS_FILE, reader.found.lines)
    return reader.found


def place(file: str, number: int) -> str:
    """How a line is named to its author."""
    return f"{file} line {number}"


class _Reader:
    def __init__(self, read_file: ReadFile) -> None:
        self.found = Requirements()
        self._read_file = read_file
        self._seen: set[str] = set()

    def read(self, file: str, into: list[Line]) -> None:
        """Add the lines of `file` to `into`, or a problem."""
        self._seen.add(file)
        try:
            text = self._text(file)
        except _Unusable as problem:
            self._refuse(file, str(problem))
            return
        for number, line in _logical_lines(text):
            if len(self.found.lines) + len(self.found.constraints) + len(self.found.problems) >= _LINES_MAX:
                self._refuse(file, f"there are more than {_LINES_MAX} requirements: remove some")
                return
            try:
                if line.startswith("-"):
                    self._read_option(file, line, into)
                else:
                    into.append(Line(file, number, line, _package_name(line)))
            except _Unusable as problem:
                self._refuse(place(file, number), str(problem))

    def _refuse(self, where: str, message: str) -> None:
        self.found.problems.append(FieldProblem(field=where, message=message))

    def _text(self, file: str) -> str:
        if len(self._seen) > _FILES_MAX:
            raise _Unusable(f"requirements refer to more than {_FILES_MAX} files: put them into one")
        content = self._read_file(file)
        if content is None:
            raise _Unusable("there is no such file in the repository: add it, or remove the line that names it")
        text = _decoded(content)
        if text is None or len(content) > FILE_BYTES_MAX:
            raise _Unusable(f"it is no text in UTF-8 of at most {FILE_BYTES_MAX // 1024} KB")
        return text

    def _read_option(self, file: str, line: str, into: list[Line]) -> None:
        option, value = _split_option(line)
        if option in ("-r", "--requirement", "-c", "--constraint"):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(file), value))
            if not value or "://" in value or other.startswith(("..", "/")):
                raise _Unusable(f"{value or option} is not in the repository: put what it holds there")
            if other not in self._seen:
                self.read(other, self.found.constraints if option in ("-c", "--constraint") else into)
        elif option in ("-e", "--editable"):
            raise _Unusable(f"{line[:100]} would install from a folder: name a package of the index instead")
        elif _INDEX_OPTION.fullmatch(option):
            raise _Unusable(
                f"{option} is not allowed, as the operator chooses the package index: remove the line "
                "(operators set UV_INDEX or UV_DEFAULT_INDEX on the hosts)"
            )
        else:
            raise _Unusable(f"the option {option} is not allowed here: remove it")


def _package_name(line: str) -> str:
    if re.search(r"\s--hash\b", line):
        raise _Unusable(
            "hashes are not checked here, as versions are pinned by Penstock: leave them out "
            "(uv export --no-hashes, or pip-compile without --generate-hashes)"
        )
    if re.search(r"\s--", line):
        raise _Unusable("options of a requirement are not allowed: remove them")
    if _ADDRESS.search(line) or _ARCHIVE.search(line):
        raise _Unusable(f"{line[:100]} is a path or an address: name a package of the index instead")
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        raise _Unusable(f"{line[:100]!r} is no requirement: {str(error).splitlines()[0]}") from None
    if requirement.url is not None:
        raise _Unusable(f"{requirement.name} comes from an address: name a version of the index instead")
    return requirement.name


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued lines joined, with the number of their first."""
    number, pending = 0, ""
    for position, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s+)#.*$", "", raw)
        if not pending:
            number = position
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole = f"{pending}{line}".strip()
        pending = ""
        if whole:
            yield number, whole
    if pending.strip():
        yield number, pending.strip()


def _split_option(line: str) -> tuple[str, str]:
    """An option and its value: `-r a.txt`, `-ra.txt`, `--requirement=a.txt`."""
    match = re.match(r"(--[\w-]+|-\w)\s*=?\s*(.*)", line)
    return (match[1], match[2].strip().strip("'\"")) if match else (line.split()[0], "")


def _decoded(content: bytes) -> str | None:
    """UTF-8, or UTF-16 with its mark, as a redirected `pip freeze` on Windows is."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None
