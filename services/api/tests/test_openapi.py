"""The OpenAPI document: everything described, every error listed, every example right."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from penstock_api.app import make_http
from penstock_api.domain.problems import KINDS
from penstock_api.settings import ApiSettings

DOCUMENT: dict[str, Any] = make_http(ApiSettings()).openapi()
OPERATIONS = [
    pytest.param(method, path, operation, id=operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
SCHEMAS = [pytest.param(schema, id=name) for name, schema in DOCUMENT["components"]["schemas"].items()]


def parts_of(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from parts_of(child)
    elif isinstance(node, list):
        for child in node:
            yield from parts_of(child)


def check(value: object, schema: dict[str, Any]) -> None:
    jsonschema.validate(value, {**schema, "components": DOCUMENT["components"]})


def test_operation_ids_are_unique_and_plain() -> None:
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]

    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() for name in ids)


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_every_operation_is_described_and_lists_its_errors(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert operation["security"]
    expected = {"401", "403", "422", "429", "500", "503"}
    expected |= {"404"} if "{" in path else set()
    expected |= {"400", "413"} if "requestBody" in operation else set()
    assert expected <= set(operation["responses"])
    for status, answer in operation["responses"].items():
        assert answer["description"]
        assert answer["description"] != "Successful Response"
        if int(status) >= 400:
            content = answer["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["examples"]


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_every_operation_but_the_first_names_its_scope(method: str, path: str, operation: dict[str, Any]) -> None:
    assert path == "/v1/me" or "Needs the scope `" in operation["description"]


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_every_parameter_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        assert parameter.get("description"), parameter["name"]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_and_every_field_is_described(schema: dict[str, Any]) -> None:
    assert schema.get("description")
    for name, field in schema["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_example_fits_its_field(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        for example in field.get("examples", []):
            check(example, field)


def test_the_example_of_a_new_endpoint_fits_its_model() -> None:
    body = DOCUMENT["paths"]["/v1/endpoints"]["post"]["requestBody"]["content"]["application/json"]

    assert body["schema"] == {"$ref": "#/components/schemas/EndpointSpec"}
    for example in body["examples"].values():
        check(example["value"], body["schema"])


def test_the_example_of_every_problem_fits_the_model() -> None:
    assert set(DOCUMENT["components"]["examples"]) == {kind.code for kind in KINDS}
    for example in DOCUMENT["components"]["examples"].values():
        check(example["value"], {"$ref": "#/components/schemas/Problem"})


def test_every_reference_leads_somewhere() -> None:
    for part in parts_of(DOCUMENT):
        reference = part.get("$ref")
        if isinstance(reference, str):
            _, kind, name = reference.rsplit("/", 2)
            assert name in DOCUMENT["components"][kind]


def test_only_the_document_itself_is_served_and_no_page_that_loads_from_elsewhere() -> None:
    http = make_http(ApiSettings())

    assert (http.docs_url, http.redoc_url, http.openapi_url) == (None, None, "/openapi.json")
