"""Bodies against templates: any JSON, judged as an independent oracle judges it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_runtime.body import (
    UNKNOWN_FIELDS_NAMED_MAX,
    BodyTemplate,
    Parameter,
    ParameterType,
    TemplateError,
    parse_default,
    template_errors,
)
from penstock_runtime.problems import FieldError, Problem

TYPES: dict[ParameterType, type] = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}
NAMES = ("features", "model_config", "__class__", "_private", "class", "copy", "field_0", "x")

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8
)
parameters = st.builds(
    Parameter, name=st.sampled_from(NAMES), type=st.sampled_from(list(TYPES)), optional=st.booleans()
)
templates = st.lists(parameters, max_size=4, unique_by=lambda parameter: parameter.name)
documents = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)


def fits(value: Any, kind: ParameterType) -> bool:
    if kind != "float":
        return type(value) is TYPES[kind]
    if type(value) is int:
        return abs(value) < 2**1024 - 2**970
    return type(value) is float and math.isfinite(value)


def wrong_fields(template: list[Parameter], document: dict[str, Any]) -> set[str]:
    """The oracle: names of the fields that do not match."""
    wrong = set(document) - {parameter.name for parameter in template}
    for parameter in template:
        if parameter.name not in document:
            wrong |= set() if parameter.optional else {parameter.name}
        elif not fits(document[parameter.name], parameter.type):
            wrong |= set() if parameter.optional and document[parameter.name] is None else {parameter.name}
    return wrong


@settings(derandomize=True, deadline=None, max_examples=400)
@given(templates, documents)
def test_a_body_is_taken_exactly_when_the_oracle_takes_it(template: list[Parameter], document: dict[str, Any]) -> None:
    checked = BodyTemplate(template)
    raw = json.dumps(document).encode()
    wrong = wrong_fields(template, document)
    if wrong:
        with pytest.raises(Problem) as caught:
            checked.arguments(raw)
        assert caught.value.status == 422
        assert {error.field for error in caught.value.errors} == wrong
        return
    taken = checked.arguments(raw)
    assert taken == [document.get(parameter.name) for parameter in template]
    for value, parameter in zip(taken, template, strict=True):
        assert value is None or type(value) is TYPES[parameter.type]


def refuse(constant: str) -> None:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(constant)


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_not_a_json_object_are_refused_with_a_problem(raw: bytes) -> None:
    template = BodyTemplate([])
    try:
        document = json.loads(raw.decode(), parse_constant=refuse) if raw else {}
    except ValueError:
        with pytest.raises(Problem) as caught:
            template.arguments(raw)
        assert caught.value.status == 400
        return
    if document == {}:
        assert template.arguments(raw) == []
        return
    with pytest.raises(Problem):
        template.arguments(raw)


def test_every_wrong_field_is_named_at_once_with_what_it_should_be() -> None:
    template = BodyTemplate([Parameter("count", "int"), Parameter("name", "str"), Parameter("rate", "float")])

    with pytest.raises(Problem) as caught:
        template.arguments(b'{"count": "5", "rate": true, "colour": 1}')

    assert caught.value.document() == {
        "type": "urn:penstock:problem:invalid_body",
        "title": "The body does not match the route's template",
        "status": 422,
        "detail": "count must be an integer, not a string; name is required and must be a string; "
        "rate must be a number, not a boolean; "
        "colour is not a field of this route's body: its fields are count, name, rate.",
        "code": "invalid_body",
        "errors": [
            {"field": "count", "message": "must be an integer, not a string"},
            {"field": "name", "message": "is required and must be a string"},
            {"field": "rate", "message": "must be a number, not a boolean"},
            {"field": "colour", "message": "is not a field of this route's body: its fields are count, name, rate"},
        ],
    }


def test_an_integer_is_a_valid_float_and_arrives_as_one() -> None:
    (value,) = BodyTemplate([Parameter("rate", "float")]).arguments(b'{"rate": 3}')
    assert type(value) is float


def test_true_is_no_integer_and_a_whole_float_is_no_integer() -> None:
    template = BodyTemplate([Parameter("count", "int")])
    for text in (b'{"count": true}', b'{"count": 1.0}'):
        with pytest.raises(Problem, match="count must be an integer"):
            template.arguments(text)


@pytest.mark.parametrize("text", [b"[1]", b"1", b'"a"', b"null"])
def test_a_body_that_is_no_object_is_told_what_it_is(text: bytes) -> None:
    with pytest.raises(Problem, match="must be a JSON object, not") as caught:
        BodyTemplate([]).arguments(text)
    assert caught.value.errors[0].field == "body"


@pytest.mark.parametrize("text", [b"{", b"\xff", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": "\\ud800"}', b"[" * 5000])
def test_what_is_not_json_is_a_400(text: bytes) -> None:
    with pytest.raises(Problem) as caught:
        BodyTemplate([Parameter("a", "list")]).arguments(text)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_an_empty_body_is_an_empty_object() -> None:
    assert BodyTemplate([Parameter("a", "int", optional=True, default_value="7")]).arguments(b"") == [7]


def test_a_number_too_large_for_a_float_is_refused() -> None:
    template = BodyTemplate([Parameter("a", "float")])
    for text in (b'{"a": 1e999}', b'{"a": ' + b"9" * 400 + b"}"):
        with pytest.raises(Problem, match="a must be a finite number"):
            template.arguments(text)


def test_a_million_unknown_fields_are_not_a_million_messages() -> None:
    document = json.dumps({f"field {number}": 1 for number in range(50_000)}).encode()

    with pytest.raises(Problem) as caught:
        BodyTemplate([Parameter("wanted", "int")]).arguments(document)

    assert len(caught.value.errors) == UNKNOWN_FIELDS_NAMED_MAX + 1
    assert caught.value.errors[0].field == "wanted"


# --- defaults -------------------------------------------------------------------------------


def test_null_is_taken_only_where_the_default_is_none() -> None:
    template = BodyTemplate(
        [Parameter("a", "int", True, "None"), Parameter("b", "int", True), Parameter("c", "int", True, "5")]
    )
    assert template.arguments(b'{"a": null, "b": null}') == [None, None, 5]
    with pytest.raises(Problem, match="c must be an integer, not null"):
        template.arguments(b'{"c": null}')


def test_without_a_default_value_the_functions_own_default_is_used() -> None:
    template = BodyTemplate([Parameter("top", "int", optional=True)], {"top": 5})
    assert template.arguments(b"{}") == [5]
    with pytest.raises(Problem, match="top must be an integer, not null"):
        template.arguments(b'{"top": null}')


def test_a_default_that_a_model_changes_is_fresh_for_the_next_request() -> None:
    template = BodyTemplate([Parameter("items", "list", True, "[1, {'a': [2]}]")])
    (first,) = template.arguments(b"{}")
    first[1]["a"].append("changed")
    first.append("changed")
    assert template.arguments(b"{}") == [[1, {"a": [2]}]]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", '"a"', "a"),
        ("str", "None", None),
        ("str", r"'\d'", r"\d"),
        ("int", "-5", -5),
        ("float", "1", 1.0),
        ("bool", "True", True),
        ("list", "[1, 'a', None]", [1, "a", None]),
        ("dict", '{"a": [1.5]}', {"a": [1.5]}),
    ],
)
def test_a_default_is_a_python_literal_of_the_fields_type(kind: ParameterType, text: str, value: object) -> None:
    parsed = parse_default(kind, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("str", "null", "Python literal"),
        ("str", "__import__('os').system('true')", "Python literal"),
        ("int", "2 ** 10", "Python literal"),
        ("int", "", "Python literal"),
        ("int", "1\x00", "Python literal"),
        ("list", "[" * 2000 + "]" * 2000, "Python literal"),
        ("list", "[" * 30 + "]" * 30, "at most 16 deep"),
        ("list", "(1, 2)", "must hold only"),
        ("list", "{1, 2}", "must hold only"),
        ("list", "[b'a']", "must hold only"),
        ("dict", "{1: 2}", "string keys"),
        ("float", "1e999", "finite"),
        ("float", "9" * 400, "fits a 64-bit float"),
        ("int", "1.0", "must be None or an integer, not a number with a fraction"),
        ("int", "True", "must be None or an integer, not a boolean"),
        ("str", "[1]", "must be None or a string, not a list"),
        ("str", "'" + "a" * 5000 + "'", "at most 4096 characters"),
    ],
)
def test_a_default_that_is_no_literal_of_the_type_says_why(kind: ParameterType, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_default(kind, text)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(list(TYPES)), st.text(max_size=60) | st.text("[]{}()-~+'\"1,: ", max_size=4096))
def test_any_text_as_a_default_is_a_fitting_value_or_a_value_error(kind: ParameterType, text: str) -> None:
    try:
        value = parse_default(kind, text)
    except ValueError:
        return
    assert value is None or fits(value, kind)


def test_a_template_names_everything_wrong_with_it_at_once() -> None:
    template = [
        Parameter("a", "int", False, "1"),
        Parameter("a", "int"),
        Parameter("b", "str", True, "1"),
    ]
    assert template_errors(template) == [
        FieldError("0.default_value", "needs optional to be true"),
        FieldError("1.name", "is 'a', which an earlier field already has"),
        FieldError("2.default_value", "must be None or a string, not an integer"),
    ]
    with pytest.raises(TemplateError, match=r"body\.1\.name is 'a', which an earlier field already has"):
        BodyTemplate(template)


def test_a_sound_template_has_no_errors() -> None:
    assert template_errors([Parameter("a", "int", True, "1"), Parameter("b", "list")]) == []
