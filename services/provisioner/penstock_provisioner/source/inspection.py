"""Answers whether a source can be run with its routes: everything wrong with it at once, nothing executed."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock_common.contracts.endpoint import GitSource, PinnedSource, RouteSpec
from penstock_common.contracts.questions import FieldProblem, SourceInspection
from penstock_provisioner.helpers import HelperFailed, Helpers
from penstock_provisioner.source import module_facts
from penstock_provisioner.source.fetch import Sources
from penstock_provisioner.source.problems import SourceProblem
from penstock_provisioner.source.requirements import FILE_BYTES_MAX, read_requirements
from penstock_provisioner.source.resolving import Resolver
from penstock_provisioner.source.routes import Module, check_route, file_of, file_problem, module_from_facts
from penstock_provisioner.threads import in_thread

_PARSE_TIMEOUT_S = 30.0


class Inspector:
    """Inspects sources, a few at a time."""

    def __init__(self, sources: Sources, resolver: Resolver, helpers: Helpers, *, parallel: int) -> None:
        self._sources = sources
        self._resolver = resolver
        self._helpers = helpers
        self._slots = asyncio.Semaphore(parallel)

    async def inspect(self, source: GitSource, routes: Sequence[RouteSpec]) -> SourceInspection:
        """Pin the source, check its routes against its code, and resolve its requirements."""
        async with self._slots:
            try:
                commit = await self._sources.pin(source)
                async with self._sources.tree(source.uri, source.ref, commit) as tree, asyncio.TaskGroup() as group:
                    checking = group.create_task(self._route_problems(tree, routes))
                    resolving = group.create_task(self._requirements(tree))
            except SourceProblem as problem:
                return SourceInspection(problems=(problem.as_field_problem(),))
        problems, requirements = checking.result(), resolving.result()
        if not isinstance(requirements, str):
            return SourceInspection(problems=(*problems, *requirements))
        if problems:
            return SourceInspection(problems=problems)
        pinned = PinnedSource(uri=source.uri, ref=source.ref, commit=commit, requirements=requirements)
        return SourceInspection(source=pinned)

    async def _route_problems(self, tree: Path, routes: Sequence[RouteSpec]) -> tuple[FieldProblem, ...]:
        problems = await in_thread(_file_problems, tree, routes)
        to_parse = {number: route for number, route in enumerate(routes) if number not in problems}
        modules = await self._parse(tree, sorted({file_of(route) for route in to_parse.values()}))
        return (*problems.values(), *await in_thread(_checked, to_parse, modules))

    async def _parse(self, tree: Path, files: Sequence[str]) -> dict[str, Module]:
        """What each file defines, found by a process that may crash without harm."""
        if not files:
            return {}
        question = json.dumps({"directory": str(tree), "files": list(files)}).encode()
        try:
            completed = await self._helpers.run(
                [sys.executable, "-I", "-S", str(module_facts.__file__)],
                cwd=Path("/"),
                env={},
                timeout_s=_PARSE_TIMEOUT_S,
                stdin=question,
                output_bytes_max=64 * 1024 * 1024,
            )
        except HelperFailed as failure:
            return dict.fromkeys(files, Module({}, error=f"parsing it {failure}"))
        if completed.code != 0:
            # One file broke the parser: alone, each shows whether it is the one.
            if len(files) > 1:
                return {file: module for one in files for file, module in (await self._parse(tree, [one])).items()}
            return {files[0]: Module({}, error="it is too deeply nested or too large to be parsed")}
        return await in_thread(_modules, completed.stdout)

    async def _requirements(self, tree: Path) -> str | tuple[FieldProblem, ...]:
        """Exact versions, or everything that is wrong with the requirements."""
        found = await in_thread(read_requirements, lambda path: _content(tree / path))
        try:
            pins = await self._resolver.resolve(found)
        except SourceProblem as problem:
            # Also with lines that are wrong in themselves: whoever mends those should not come back for this.
            return (*found.problems, problem.as_field_problem())
        return tuple(found.problems) or pins


def _file_problems(tree: Path, routes: Sequence[RouteSpec]) -> dict[int, FieldProblem]:
    """What is wrong with the files of routes, by the route's number."""
    files, empty_folders = _listing(tree)
    found = ((number, file_problem(route, files, empty_folders)) for number, route in enumerate(routes))
    return {
        number: FieldProblem(field=f"routes.{number}.file", message=sentence)
        for number, sentence in found
        if sentence is not None
    }


def _checked(routes: Mapping[int, RouteSpec], modules: Mapping[str, Module]) -> list[FieldProblem]:
    return [
        problem for number, route in routes.items() for problem in check_route(number, route, modules[file_of(route)])
    ]


def _modules(answer: bytes) -> dict[str, Module]:
    return {file: module_from_facts(facts) for file, facts in json.loads(answer).items()}


def _listing(tree: Path) -> tuple[set[str], set[str]]:
    """The files of an extracted source, and its empty folders, which stand for submodules."""
    files: set[str] = set()
    empty: set[str] = set()
    for folder, names, found in os.walk(tree):
        here = os.path.relpath(folder, tree)
        if not names and not found:
            empty.add(here)
        for name in found:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                files.add(os.path.normpath(os.path.join(here, name)))
    return files, empty


def _content(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)
