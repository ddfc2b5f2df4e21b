"""Loads the model's code: imports each route's file, finds its function, checks that the body fits it."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock_runtime.body import BodyTemplate
from penstock_runtime.config import Config, Route
from penstock_runtime.failures import one_line, place_in

_NAMES_LISTED_MAX = 8
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class LoadError(Exception):
    """The model cannot be served. The message is one sentence: route, function, file, what is wrong, and the mend.

    Its `__cause__` is the exception that the model's own code raised, if it did.
    """


@dataclass(frozen=True, slots=True)
class LoadedRoute:
    """A route with its function at hand. `on_loop` says that the function is async and is called on the loop."""

    verb: str
    path: str
    function: Callable[..., Any]
    template: BodyTemplate
    positional: bool
    on_loop: bool


def load_routes(config: Config) -> tuple[LoadedRoute, ...]:
    """Imports the model's code, each file once and in the order of the routes, with `sys.path` set to its source.

    Runs the model's code, so it takes as long as that takes, and may never return. Raises LoadError.
    """
    directory = Path(config.directory).resolve()
    sys.path.insert(0, str(directory))
    modules: dict[str, ModuleType] = {}
    loaded = []
    for route in config.routes:
        if route.file_name not in modules:
            modules[route.file_name] = _import_file(directory, route)
        loaded.append(_load_route(modules[route.file_name], route))
    return tuple(loaded)


def _load_route(module: ModuleType, route: Route) -> LoadedRoute:
    function = getattr(module, route.function, None)
    if function is None:
        known = [name for name, value in vars(module).items() if _is_own_function(module, name, value)]
        mend = f"name {_one_of(known)} in the route, or add it" if known else "add it"
        raise _load_error(route, f"{route.file_name} has no such function: {mend}")
    if not callable(function):
        raise _load_error(
            route, f"{route.function} is of type {type(function).__name__}: name a function in the route instead"
        )
    names = [parameter.name for parameter in route.body]
    arguments = _arguments_of(function)
    if arguments is not None:
        reason = _positional_misfit(arguments, names) if route.positional else _keyword_misfit(arguments, names)
        if reason:
            raise _load_error(route, reason)
    defaults = _function_defaults(arguments or (), names, route.positional)
    return LoadedRoute(
        verb=route.verb,
        path=route.path,
        function=function,
        template=BodyTemplate(route.body, defaults),
        positional=route.positional,
        on_loop=inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
    )


def _import_file(directory: Path, route: Route) -> ModuleType:
    path = directory / route.file_name
    if not path.is_file():
        known = [str(file.relative_to(directory)) for file in directory.glob("*.py")]
        mend = f"name {_one_of(known)} in the route" if known else "add it, or name another in the route"
        raise _load_error(route, f"the source has no such file: {mend}")
    if not path.resolve().is_relative_to(directory):
        raise _load_error(route, "the file is a link that leads out of the source: put the file itself there")
    try:
        return _import_module(path, ".".join(Path(route.file_name).with_suffix("").parts))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise _load_error(route, _import_failure(error, directory, route)) from error


def _import_module(path: Path, name: str) -> ModuleType:
    """The file as a module: under its own name, so that the model's other files importing it get this very one.

    A file named like a module that is already there, such as json.py, gets a name of its own instead.
    """
    package = name.rpartition(".")[0]
    if package:
        importlib.import_module(package)  # by itself, so that an error in its own code is not mistaken for the below
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):  # the package's name belongs to another module, or to a special one
        spec = None
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path.resolve():
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"penstock_model_{name.replace('.', '_')}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} cannot be imported as Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _import_failure(error: BaseException, directory: Path, route: Route) -> str:
    place = place_in(error, directory)
    where = f" ({place})" if place else ""
    if isinstance(error, SystemExit):
        return (
            f"importing {route.file_name} called exit with {error.code!r}{where}: "
            "move what only a script does under if __name__ == '__main__'"
        )
    raised = f"importing {route.file_name} raised {one_line(error)}{where}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"{raised}: add the package that provides {package} to requirements.txt"
    return f"{raised}: mend the code there, or the data or package that it needs"


def _arguments_of(function: Callable[..., Any]) -> Sequence[inspect.Parameter] | None:
    """The function's arguments, or None for one written in C that does not say: it is checked when called."""
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _keyword_misfit(arguments: Sequence[inspect.Parameter], names: Sequence[str]) -> str | None:
    takes_any = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments)
    by_keyword = {argument.name for argument in arguments if argument.kind in _BY_KEYWORD}
    positional_only = {argument.name for argument in arguments if argument.kind is inspect.Parameter.POSITIONAL_ONLY}
    only = sorted(positional_only & set(names))
    if only and not takes_any:
        return f"its argument {only[0]} can only be passed by position: set positional to true in the route"
    unknown = [name for name in names if name not in by_keyword]
    if unknown and not takes_any:
        has = f"has only {_listed(by_keyword)}" if by_keyword else "takes no arguments by keyword"
        return f"the body gives {_listed(unknown)} and the function {has}: make the names the same"
    missing = [argument.name for argument in arguments if _must_be_given(argument) and argument.name not in names]
    if missing:
        return _missing(missing)
    return None


def _positional_misfit(arguments: Sequence[inspect.Parameter], names: Sequence[str]) -> str | None:
    by_position = [argument for argument in arguments if argument.kind in _BY_POSITION]
    takes_any = any(argument.kind is inspect.Parameter.VAR_POSITIONAL for argument in arguments)
    if len(names) > len(by_position) and not takes_any:
        return (
            f"the body gives {_counted(len(names), 'field')} and the function takes "
            f"{_counted(len(by_position), 'argument')} by position: give each field an argument"
        )
    left = by_position[len(names) :] + [a for a in arguments if a.kind is inspect.Parameter.KEYWORD_ONLY]
    missing = [argument.name for argument in left if _must_be_given(argument)]
    return _missing(missing) if missing else None


def _missing(names: Sequence[str]) -> str:
    return f"the body does not give the function's {_listed(names)}: add it to the body, or give the argument a default"


def _must_be_given(argument: inspect.Parameter) -> bool:
    return argument.default is inspect.Parameter.empty and argument.kind in (*_BY_POSITION, *_BY_KEYWORD)


def _function_defaults(
    arguments: Sequence[inspect.Parameter], names: Sequence[str], positional: bool
) -> dict[str, object]:
    """The defaults of the function's own arguments, by the name of the body's field that each gets."""
    if positional:
        pairs = list(zip(names, (a for a in arguments if a.kind in _BY_POSITION), strict=False))
    else:
        pairs = [(argument.name, argument) for argument in arguments if argument.kind in _BY_KEYWORD]
    return {name: argument.default for name, argument in pairs if argument.default is not inspect.Parameter.empty}


def _is_own_function(module: ModuleType, name: str, value: object) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    return ", ".join(known[:_NAMES_LISTED_MAX]) + (" …" if len(known) > _NAMES_LISTED_MAX else "")


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {_listed(names)}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _load_error(route: Route, reason: str) -> LoadError:
    return LoadError(f"{route.verb} {route.path} needs {route.function} in {route.file_name}, but {reason}.")
