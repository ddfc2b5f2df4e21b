"""Body templates: which fields a route's JSON body must have, checked by a generated pydantic model.

Pure, and imports nothing of the server, so that whoever accepts a template can check it with the very
code that will apply it.
"""

import ast
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json

from penstock_runtime.problems import FieldError, Problem

ParameterType = Literal["str", "int", "float", "bool", "dict", "list"]

DEFAULT_CHARS_MAX = 4096
DEFAULT_DEPTH_MAX = 16
UNKNOWN_FIELDS_NAMED_MAX = 20

_ANNOTATIONS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "dict": dict[str, Any],
    "list": list[Any],
}
_EXPECTED = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "dict": "an object",
    "list": "a list",
}
_FOUND = {
    "str": "a string",
    "int": "an integer",
    "float": "a number with a fraction or exponent",
    "bool": "a boolean",
    "dict": "an object",
    "list": "a list",
    "NoneType": "null",
}


class ParameterLike(Protocol):
    """What this module reads of a template's field."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> ParameterType: ...
    @property
    def optional(self) -> bool: ...
    @property
    def default_value(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a route's body. `default_value` is a Python literal, such as `None`, `"a"` or `[1]`."""

    name: str
    type: ParameterType
    optional: bool = False
    default_value: str | None = None


class TemplateError(ValueError):
    """A template that cannot be applied; `errors` names each field as `<position>.<property>`."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"body.{error.field} {error.message}" for error in errors))
        self.errors = tuple(errors)


def template_errors(parameters: Sequence[ParameterLike]) -> list[FieldError]:
    """Everything wrong with a template, with fields named as `<position>.<property>`, such as `0.default_value`."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for position, parameter in enumerate(parameters):
        if parameter.name in seen:
            errors.append(FieldError(f"{position}.name", f"is {parameter.name!r}, which an earlier field already has"))
        seen.add(parameter.name)
        if parameter.default_value is None:
            continue
        if not parameter.optional:
            errors.append(FieldError(f"{position}.default_value", "needs optional to be true"))
            continue
        try:
            parse_default(parameter.type, parameter.default_value)
        except ValueError as error:
            errors.append(FieldError(f"{position}.default_value", str(error)))
    return errors


def parse_default(type_name: ParameterType, text: str) -> Any:
    """The value of a default written as a Python literal: parsed, never evaluated.

    Raises ValueError, in words that follow the field's name, if it is no literal, too large, or not of the type.
    """
    if len(text) > DEFAULT_CHARS_MAX:
        raise ValueError(f"must have at most {DEFAULT_CHARS_MAX} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an odd escape in a string: the value is still what it says
            value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError('must be a Python literal, such as None, "a" or [1]') from None
    if value is None:
        return None
    if not _is_json(value, DEFAULT_DEPTH_MAX):
        raise ValueError(
            "must hold only None, True, False, finite numbers, strings, lists and dicts with string keys, "
            f"at most {DEFAULT_DEPTH_MAX} deep"
        )
    if type(value) is int and type_name == "float":
        return _as_float(value)
    if type(value).__name__ != type_name:
        raise ValueError(f"must be None or {_EXPECTED[type_name]}, not {_FOUND[type(value).__name__]}")
    return value


class BodyTemplate:
    """A route's template, ready to check bodies.

    A left-out optional field gets its `default_value`; without one, the default of the function's own argument
    (`function_defaults`, by field); without that, None. A field may be null only where its default is None.
    """

    def __init__(
        self, parameters: Sequence[ParameterLike], function_defaults: Mapping[str, object] | None = None
    ) -> None:
        """Raises TemplateError if the template cannot be applied."""
        errors = template_errors(parameters)
        if errors:
            raise TemplateError(errors)
        self.names = tuple(parameter.name for parameter in parameters)
        self._types = {parameter.name: parameter.type for parameter in parameters}
        self._attributes = tuple(f"field_{position}" for position in range(len(parameters)))
        self._model = _generate_model(self._attributes, parameters, function_defaults or {})

    def arguments(self, raw: bytes) -> list[Any]:
        """The values for the function, in template order. An empty body counts as an empty object.

        Raises Problem: 400 `invalid_json` if the body is not JSON, 422 `invalid_body` if it does not match.
        """
        document = parse_json(raw) if raw else {}
        if type(document) is not dict:
            found = _FOUND[type(document).__name__]
            raise _invalid_body([FieldError("body", f"must be a JSON object, not {found}")])
        try:
            fields = self._model.__pydantic_validator__.validate_python(self._bounded(document)).__dict__
        except ValidationError as error:
            raise _invalid_body(self._explain(error, document)) from None
        return [fields[attribute] for attribute in self._attributes]

    def _bounded(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document with a bounded number of unknown fields: a million of them need no million messages."""
        if len(document) <= len(self.names) + UNKNOWN_FIELDS_NAMED_MAX:
            return document
        unknown = [name for name in document if name not in self._types][:UNKNOWN_FIELDS_NAMED_MAX]
        return {name: document[name] for name in (*self.names, *unknown) if name in document}

    def _explain(self, error: ValidationError, document: dict[str, Any]) -> list[FieldError]:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return [self._explain_field(str(one["loc"][0]), one["type"], document) for one in found]

    def _explain_field(self, name: str, kind: str, document: dict[str, Any]) -> FieldError:
        if name not in self._types:
            known = f"its fields are {', '.join(self.names)}" if self.names else "it has none"
            return FieldError(name[:100], f"is not a field of this route's body: {known}")
        expected = _EXPECTED[self._types[name]]
        if kind == "missing":
            return FieldError(name, f"is required and must be {expected}")
        value = document[name]
        if self._types[name] == "float" and type(value) in (int, float):
            return FieldError(name, "must be a finite number that fits a 64-bit float")
        return FieldError(name, f"must be {expected}, not {_FOUND[type(value).__name__]}")


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises Problem 400 `invalid_json` if it is none; NaN is not JSON."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(
            400, "invalid_json", "The body is not JSON", f"The body must be JSON in UTF-8: {error}."
        ) from None


def _generate_model(
    attributes: Sequence[str], parameters: Sequence[ParameterLike], function_defaults: Mapping[str, object]
) -> type[BaseModel]:
    """A pydantic model with one attribute per field; real names are aliases, as a model reserves some names."""
    fields: dict[str, Any] = {}
    for attribute, parameter in zip(attributes, parameters, strict=True):
        annotation = _ANNOTATIONS[parameter.type]
        if not parameter.optional:
            fields[attribute] = (annotation, Field(alias=parameter.name))
            continue
        default = _default_of(parameter, function_defaults)
        fields[attribute] = (
            annotation | None if default is None else annotation,
            Field(alias=parameter.name, default=default),
        )
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return create_model("Body", __config__=config, **fields)


def _default_of(parameter: ParameterLike, function_defaults: Mapping[str, object]) -> object:
    if parameter.default_value is not None:
        return parse_default(parameter.type, parameter.default_value)
    return function_defaults.get(parameter.name)


def _invalid_body(errors: Sequence[FieldError]) -> Problem:
    sentences = "; ".join(f"{error.field} {error.message}" for error in errors)
    title = "The body does not match the route's template"
    return Problem(422, "invalid_body", title, f"{sentences}.", errors=errors)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("must be a number that fits a 64-bit float") from None


def _is_json(value: object, depth_left: int) -> bool:
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if depth_left == 0:
        return False
    if type(value) is list:
        return all(_is_json(item, depth_left - 1) for item in value)
    if type(value) is dict:
        return all(type(key) is str and _is_json(item, depth_left - 1) for key, item in value.items())
    return False
