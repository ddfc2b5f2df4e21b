"""Whether routes fit the code they name, from what parsing found in it. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_common.contracts.endpoint import RouteSpec
from penstock_common.contracts.questions import FieldProblem
from penstock_provisioner.source.problems import listed, near


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a function, as far as callers care."""

    by_position: tuple[str, ...]
    positional_only: frozenset[str]
    keyword_only: tuple[str, ...]
    with_default: frozenset[str]
    more_positional: bool
    more_keywords: bool

    @property
    def by_keyword(self) -> tuple[str, ...]:
        return (*(name for name in self.by_position if name not in self.positional_only), *self.keyword_only)

    def required(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.with_default]


@dataclass(frozen=True, slots=True)
class Module:
    """What a file defines. A signature is None where it cannot be known; `error` says why it does not parse."""

    names: Mapping[str, Signature | None]
    is_open: bool = False
    error: str | None = None


def module_from_facts(facts: Mapping[str, Any]) -> Module:
    """The answer of module_facts about one file."""
    if "error" in facts:
        return Module({}, error=str(facts["error"]))
    names = {name: None if found is None else _signature(found) for name, found in facts["names"].items()}
    return Module(names, is_open=facts["open"])


def file_of(route: RouteSpec) -> str:
    """The path of the route's file, always with `.py`."""
    return route.file if route.file.endswith(".py") else f"{route.file}.py"


def file_problem(route: RouteSpec, files: Collection[str], submodules: Collection[str]) -> str | None:
    """What is wrong with the route's file as such; None if the source has it."""
    wanted = file_of(route)
    if wanted in files:
        return None
    inside = next((path for path in submodules if wanted.startswith(f"{path}/")), None)
    if inside is not None:
        return f"{wanted} is in the submodule {inside}, and submodules are not fetched: put the file itself there"
    python = sorted(path for path in files if path.endswith(".py"))
    if not python:
        return f"the repository has no file {wanted}, nor any other Python file: add it"
    return f"the repository has no file {wanted}{near(wanted, python) or f'; it has {listed(python, 5)}'}"


def check_route(number: int, route: RouteSpec, module: Module) -> list[FieldProblem]:
    """Everything wrong between one route and the module that its file is."""
    file = file_of(route)
    field = f"routes.{number}"
    if module.error is not None:
        return [FieldProblem(field=f"{field}.file", message=f"{file} is not valid Python: {module.error}")]
    if route.function not in module.names:
        if module.is_open:
            return []
        functions = [name for name, signature in module.names.items() if signature is not None]
        hint = near(route.function, module.names) or (f"; it has {listed(functions, 5)}" if functions else "")
        message = f"{file} defines no function {route.function}{hint}"
        return [FieldProblem(field=f"{field}.function", message=message)]
    signature = module.names[route.function]
    if signature is None:
        return []
    names = [parameter.name for parameter in route.body]
    call = f"{route.function} in {file}"
    sentences = _by_position(call, signature, names) if route.positional else _by_keyword(call, signature, names)
    return [FieldProblem(field=f"{field}.body", message=sentence) for sentence in sentences]


def _by_position(call: str, signature: Signature, names: Sequence[str]) -> list[str]:
    takes = len(signature.by_position)
    problems = []
    if len(names) > takes and not signature.more_positional:
        problems.append(
            f"{call} takes {_arguments(takes)} by position, and the body has {len(names)}: "
            "remove fields, or add arguments to the function"
        )
    missing = signature.required(signature.by_position[len(names) :])
    if missing:
        problems.append(
            f"{call} also needs {listed(missing)}: add a field for it to the end of the body, "
            "or give the argument a default"
        )
    only_keyword = signature.required(signature.keyword_only)
    if only_keyword:
        problems.append(
            f"{call} takes {listed(only_keyword)} by keyword only: set positional to false, "
            "or give the argument a default"
        )
    return problems


def _by_keyword(call: str, signature: Signature, names: Sequence[str]) -> list[str]:
    problems = []
    only_position = signature.required(name for name in signature.by_position if name in signature.positional_only)
    if only_position:
        problems.append(f"{call} takes {listed(only_position)} by position only: set positional to true")
    if not signature.more_keywords:
        problems += [
            f"{call} has no argument {name}{near(name, signature.by_keyword)}: "
            "the field needs the argument's name, or the route needs positional to be true"
            for name in names
            if name not in signature.by_keyword and name not in only_position
        ]
    missing = [name for name in signature.required(signature.by_keyword) if name not in names]
    if missing:
        problems.append(f"{call} also needs {listed(missing)}: add it to the body, or give the argument a default")
    return problems


def _signature(found: Mapping[str, Any]) -> Signature:
    return Signature(
        by_position=tuple(found["by_position"]),
        positional_only=frozenset(found["positional_only"]),
        keyword_only=tuple(found["keyword_only"]),
        with_default=frozenset(found["with_default"]),
        more_positional=found["more_positional"],
        more_keywords=found["more_keywords"],
    )


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"
