"""Reading the specification of a new endpoint: whole when it is right, in parts when it is not.

A user with three mistakes wants to hear of three. So each part of a wrong body that is right by
itself is still checked further: against the database, the hosts, the prices and the source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from penstock_api.domain.money import least_running
from penstock_api.domain.problems import PROBLEMS_MAX, field_problems
from penstock_common.contracts.endpoint import (
    EndpointSpec,
    GitSource,
    GpuRequest,
    Resources,
    RouteSpec,
    Scaling,
    given_twice,
    slug_of,
)
from penstock_common.contracts.questions import FieldProblem, InspectSource
from penstock_runtime.body import template_errors


def _field_adapter(field: FieldInfo) -> TypeAdapter[Any]:
    shape: Any = Annotated[field.annotation, field]
    return TypeAdapter(shape)


_FIELDS = {name: _field_adapter(field) for name, field in EndpointSpec.model_fields.items()}
_ROUTE = TypeAdapter(RouteSpec)
_ROUTES_MAX = 64
_PATH_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of a body. A part that is wrong is None (or, of the routes, left out)."""

    spec: EndpointSpec | None
    problems: tuple[FieldProblem, ...]
    workspace: str | None
    slug: str | None
    source: GitSource | None
    room: "Room"
    routes: tuple[tuple[int, RouteSpec], ...]
    """Each readable route with its place in the body."""

    @property
    def inspectable(self) -> InspectSource | None:
        """The question whether the readable routes fit the source; None when there is nothing to ask."""
        if self.source is None or not self.routes:
            return None
        return InspectSource(source=self.source, routes=tuple(route for _, route in self.routes))


@dataclass(frozen=True, slots=True)
class Room:
    """What the replicas need, as far as it could be read."""

    gpu: GpuRequest | None
    resources: Resources
    replicas: int


def read_draft(body: object) -> Draft:
    """Read a request body, and collect everything that is wrong with it by itself."""
    try:
        spec: EndpointSpec | None = EndpointSpec.model_validate(body)
        problems: list[FieldProblem] = []
    except ValidationError as error:
        spec = None
        problems = list(field_problems(error.errors(include_url=False)))
    fields: dict[str, Any] = body if isinstance(body, dict) else {}
    name: str | None = _part(fields, "name")
    source: GitSource | None = _part(fields, "source")
    routes = _readable_routes(fields.get("routes"))
    problems += islice(_nul_characters(body), PROBLEMS_MAX)
    problems += _templates(routes)
    problems += _scaling(_part(fields, "scaling"))
    if spec is None:
        problems = _with_routes_given_twice(problems, routes)
    if source is not None:
        problems += _credentials(source)
    return Draft(
        spec=None if problems else spec,
        problems=tuple(problems),
        workspace=_part(fields, "workspace"),
        slug=(slug_of(name) or None) if name else None,
        source=None if source is None or _credentials(source) else source,
        room=_room(fields),
        routes=routes,
    )


def place_in_body(problem: FieldProblem, routes: tuple[tuple[int, RouteSpec], ...]) -> FieldProblem:
    """A problem of the routes that were inspected, with their places in the user's body."""
    parts = problem.field.split(".")
    if len(parts) < 2 or parts[0] != "routes" or not parts[1].isdecimal() or int(parts[1]) >= len(routes):
        return problem
    place = routes[int(parts[1])][0]
    return FieldProblem(field=".".join(["routes", str(place), *parts[2:]]), message=problem.message)


def _part(fields: dict[str, Any], name: str) -> Any:
    """One field's value, or its default; None when it is wrong or missing."""
    if name not in fields:
        field = EndpointSpec.model_fields[name]
        return None if field.is_required() else field.get_default(call_default_factory=True)
    try:
        return _FIELDS[name].validate_python(fields[name])
    except ValidationError:
        return None


def _room(fields: dict[str, Any]) -> Room:
    """A part that is wrong is told of anyway; with its default the others are checked all the same."""
    gpu: GpuRequest | None = _part(fields, "gpu")
    resources: Resources | None = _part(fields, "resources")
    scaling: Scaling | None = _part(fields, "scaling")
    return Room(gpu, resources or Resources(), least_running(scaling or Scaling()))


def _readable_routes(given: object) -> tuple[tuple[int, RouteSpec], ...]:
    if not isinstance(given, list):
        return ()
    found: list[tuple[int, RouteSpec]] = []
    for place, route in enumerate(given[:_ROUTES_MAX]):
        try:
            found.append((place, _ROUTE.validate_python(route)))
        except ValidationError:
            continue
    return tuple(found)


def _with_routes_given_twice(
    problems: list[FieldProblem], readable: tuple[tuple[int, RouteSpec], ...]
) -> list[FieldProblem]:
    """The contract says of all routes that some are the same, if it can read all; this says which, of any."""
    twice = list(_routes_given_twice(readable))
    said = {problem.message for problem in twice}
    return [*(problem for problem in problems if problem.field != "routes" or problem.message not in said), *twice]


def _routes_given_twice(readable: tuple[tuple[int, RouteSpec], ...]) -> Iterator[FieldProblem]:
    seen: set[tuple[str, str]] = set()
    for place, route in readable:
        if (route.verb, route.path) in seen:
            yield FieldProblem(field=f"routes.{place}.path", message=given_twice(route))
        seen.add((route.verb, route.path))


def _templates(routes: tuple[tuple[int, RouteSpec], ...]) -> Iterator[FieldProblem]:
    """What the runtime would find wrong with the body templates, such as a default of another type."""
    for place, route in routes:
        for error in template_errors(route.body):
            yield FieldProblem(field=f"routes.{place}.body.{error.field}", message=error.message)


def _scaling(scaling: Scaling | None) -> list[FieldProblem]:
    """A maximum that is left out is not compared by the contract."""
    if scaling is None or scaling.max_replicas >= scaling.min_replicas:
        return []
    message = f"must be at least min_replicas ({scaling.min_replicas}): it is {scaling.max_replicas} if left out"
    return [FieldProblem(field="scaling.max_replicas", message=message)]


def _credentials(source: GitSource) -> list[FieldProblem]:
    try:
        parts = urlsplit(source.uri)
        secret = parts.scheme in ("http", "https") and (parts.password or parts.username)
    except ValueError:
        return [FieldProblem(field="source.uri", message="is not an address: check the part after ://")]
    if not secret:
        return []
    message = "must not hold a user name, password or token: answers and logs would show it"
    return [FieldProblem(field="source.uri", message=message)]


def _nul_characters(body: object) -> Iterator[FieldProblem]:
    """PostgreSQL cannot store this one character. No recursion: bodies may be nested deeply.

    A path is put together only for what is wrong: paths of everything could be far larger than the body.
    """
    waiting: list[tuple[_Step | None, object]] = [(None, body)]
    while waiting:
        step, value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            yield FieldProblem(field=_path(step) or "body", message="must not hold the character NUL")
        elif isinstance(value, dict):
            waiting += [(_Step(step, str(key)), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(_Step(step, str(place)), item) for place, item in enumerate(value)]


class _Step(NamedTuple):
    """One step of the way to a field."""

    before: "_Step | None"
    name: str


def _path(step: _Step | None) -> str:
    names: list[str] = []
    length = 0
    while step is not None and length <= _PATH_CHARACTERS_MAX:
        names.append(step.name)
        length += len(step.name) + 1
        step = step.before
    return ".".join(reversed(names))[:_PATH_CHARACTERS_MAX]
