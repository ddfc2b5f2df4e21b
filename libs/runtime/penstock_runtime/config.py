"""The replica's configuration: one JSON file, written by whoever starts the replica."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from penstock_runtime.body import Parameter, template_errors

PING_PATH = "/ping"
BODY_BYTES_MAX_DEFAULT = 100 * 1024 * 1024

_STRICT = ConfigDict(strict=True, extra="forbid")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*(\.py)?")


class ConfigError(ValueError):
    """A configuration that cannot be used; each of `errors` names the field and what is wrong with it."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Route:
    """Which function of the model's code answers which request."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    path: str
    file: str
    function: str
    verb: Literal["GET", "POST"] = "POST"
    positional: bool = False
    body: tuple[Parameter, ...] = ()

    @property
    def file_name(self) -> str:
        """The file's path in the source, always with `.py`."""
        return self.file if self.file.endswith(".py") else f"{self.file}.py"


@dataclass(frozen=True, slots=True)
class Config:
    """What one replica serves. `concurrency` is how many requests the model works on at the same time."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    directory: str
    routes: tuple[Route, ...]
    concurrency: int
    name: str
    max_body_bytes: int = BODY_BYTES_MAX_DEFAULT


def parse_config(text: bytes) -> Config:
    """The configuration in a JSON text. Raises ConfigError naming everything that is wrong with it."""
    try:
        config = TypeAdapter(Config).validate_json(text)
    except ValidationError as error:
        raise ConfigError([_sentence(one["loc"], one["msg"]) for one in error.errors(include_url=False)]) from None
    errors = _errors_of(config)
    if errors:
        raise ConfigError(errors)
    return config


def _errors_of(config: Config) -> list[str]:
    errors = []
    if not Path(config.directory).is_absolute() or not Path(config.directory).is_dir():
        errors.append("directory: must be the absolute path of an existing directory")
    if config.concurrency < 1:
        errors.append("concurrency: must be at least 1")
    if config.max_body_bytes < 1:
        errors.append("max_body_bytes: must be at least 1")
    if not config.routes:
        errors.append("routes: must hold at least one route")
    seen: set[tuple[str, str]] = set()
    for position, route in enumerate(config.routes):
        errors.extend(f"routes.{position}.{sentence}" for sentence in _errors_of_route(route))
        if (route.verb, route.path) in seen:
            errors.append(f"routes.{position}.path: {route.verb} {route.path} is there twice")
        seen.add((route.verb, route.path))
    return errors


def _errors_of_route(route: Route) -> list[str]:
    errors = [f"body.{error.field}: {error.message}" for error in template_errors(route.body)]
    if not route.path.startswith("/"):
        errors.append("path: must start with /")
    if route.path == PING_PATH:
        errors.append(f"path: {PING_PATH} is the health check: choose another path")
    if not _FILE.fullmatch(route.file):
        errors.append("file: must be the relative path of a Python file, such as predict or app/main.py")
    if not route.function.isidentifier():
        errors.append("function: must be the name of a function")
    if route.verb == "GET" and route.body:
        errors.append("body: a GET route takes no body: use POST, or leave body empty")
    return errors


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(str(part) for part in location) or 'config'}: {message}"
