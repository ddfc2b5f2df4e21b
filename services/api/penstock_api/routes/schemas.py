"""OpenAPI: what FastAPI cannot find out by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from penstock_api.domain.problems import INVALID, KINDS, Kind, Problem, invalid_field
from penstock_api.handlers.presenting import problem_view
from penstock_api.routes.common import CallerWith
from penstock_api.views.base import Problem as ProblemView

DESCRIPTION = """\
Penstock turns a model in a git repository into a URL.

Every request needs an API key: `Authorization: Bearer psk_…`. Errors are `application/problem+json`
(RFC 9457) and name every field at fault. A `503` or `429` says in `Retry-After` when to try again.
Times are in UTC, money is in millionths of its currency."""
TAGS = [
    {"name": "accounts", "description": "Organizations, workspaces, members and API keys."},
    {"name": "endpoints", "description": "Models behind URLs: their life, their events and their logs."},
    {"name": "usage", "description": "Use and cost, and what the hosts have to offer."},
    {"name": "admin", "description": "For who runs the platform: hosts, dead letters, replay and prices."},
]
_SAYS_NOTHING = "Successful Response"
_MEANINGS = {
    "200": "The answer.",
    "201": "Created.",
    "202": "Asked for; `state` says how far it is.",
    "204": "Done.",
}
_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class ShapeOf:
    """Marks a body that is documented as a model, and taken as it comes."""

    model: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self.model.__pydantic_core_schema__)


def install_openapi(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Make `/openapi.json` complete; `routers` are those that `app` includes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routers)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, routers: Sequence[APIRouter]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        tags=TAGS,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    schemas = document["components"]["schemas"]
    problem = ProblemView.model_json_schema(ref_template=_REF)
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    document["components"]["examples"] = {kind.code: {"value": _example(kind)} for kind in KINDS}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                _complete(route, document)
    return document


def _example(kind: Kind) -> dict[str, Any]:
    """What an answer of this kind looks like; of the one that names fields, with a field."""
    if kind is INVALID:
        message = "no host has a GPU of the type 'RTX 9090': choose one that GET /v1/gpus lists"
        return problem_view(invalid_field("gpu.type", message)).model_dump()
    return problem_view(Problem(kind, f"{kind.title}.")).model_dump()


def _complete(route: APIRoute, document: dict[str, Any]) -> None:
    """Name the scope that a route needs, what its answer means, and the model of a body taken as it comes."""
    for method in route.methods or ():
        operation = document["paths"][route.path_format][method.lower()]
        for dependency in route.dependant.dependencies:
            if isinstance(dependency.call, CallerWith) and dependency.call.scope is not None:
                operation["description"] += f"\n\nNeeds the scope `{dependency.call.scope}`."
        for status, meaning in _MEANINGS.items():
            answer = operation["responses"].get(status)
            if answer is not None and answer["description"] == _SAYS_NOTHING:
                answer["description"] = meaning
        for field in route.dependant.body_params:
            for mark in field.field_info.metadata:
                if isinstance(mark, ShapeOf):
                    reference = {"$ref": _REF.format(model=mark.model.__name__)}
                    operation["requestBody"]["content"]["application/json"]["schema"] = reference
