"""Whether routes fit the code, without running it."""

from typing import Any

import pytest

from penstock_common.contracts.endpoint import BodyParameter, RouteSpec
from penstock_provisioner.source.module_facts import facts_of
from penstock_provisioner.source.routes import Module, check_route, file_problem, module_from_facts


def module(code: str) -> Module:
    return module_from_facts(facts_of(code.encode()))


def route(*names: str, function: str = "predict", positional: bool = False, **fields: Any) -> RouteSpec:
    body = tuple(BodyParameter(name=name, type="int") for name in names)
    return RouteSpec(path="/p", file="predict", function=function, positional=positional, body=body, **fields)


def problems(code: str, wanted: RouteSpec) -> list[tuple[str, str]]:
    return [(problem.field, problem.message) for problem in check_route(2, wanted, module(code))]


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("def predict(a, b): ...", route("a", "b")),
        ("def predict(a, b): ...", route("b", "a")),
        ("def predict(x, y): ...", route("a", "b", positional=True)),
        ("def predict(x, y=1): ...", route("a", positional=True)),
        ("def predict(*all): ...", route("a", "b", positional=True)),
        ("def predict(**all): ...", route("a", "b")),
        ("def predict(a, *, b=1, c=2): ...", route("a", "c")),
        ("def predict(a, /, b): ...", route("x", "y", positional=True)),
        ("async def predict(): ...", route()),
        ("def predict(a):\n    yield a", route("a")),
        ("predict = lambda a: a", route("a")),
        ("@torch.no_grad()\ndef predict(a): ...", route("a")),
        # What cannot be known without running the code is not held against it.
        ("from elsewhere import predict", route("a")),
        ("import elsewhere as predict", route("a")),
        ("from elsewhere import *", route("a")),
        ("predict = make()", route("a")),
        ("a, (predict, c) = make()", route("a")),
        ("@decorated\ndef predict(): ...", route("a")),
        ("class predict: ...", route("a")),
        ("globals()['predict'] = 1", route("a")),
        ("def __getattr__(name): ...", route("a")),
        ("if (predict := make()): ...", route("a")),
        ("with make() as predict: ...", route("a")),
        ("for predict in [1]: ...", route("a")),
        ("try:\n    from fast import predict\nexcept ImportError:\n    def predict(): ...", route("a")),
        ("if fast:\n    def predict(a): ...\nelse:\n    def predict(b): ...", route("a")),
    ],
)
def test_routes_that_fit_have_no_problems(code: str, wanted: RouteSpec) -> None:
    assert problems(code, wanted) == []


@pytest.mark.parametrize(
    ("code", "wanted", "field", "says"),
    [
        (
            "def predict(a): ...",
            route("a", function="predikt"),
            "function",
            "no function predikt (did you mean predict?)",
        ),
        (
            "def f(): ...\ndef g(): ...",
            route(function="predict"),
            "function",
            "defines no function predict; it has f, g",
        ),
        ("", route(), "function", "predict.py defines no function predict"),
        ("class M:\n    def predict(self): ...", route(), "function", "no function predict"),
        ("def outer():\n    def predict(): ...", route(), "function", "no function predict"),
        ("def predict(feature): ...", route("features"), "body", "no argument features (did you mean feature?)"),
        ("def predict(feature): ...", route("features"), "body", "also needs feature"),
        ("def predict(a, b, c=1): ...", route("a"), "body", "predict in predict.py also needs b: add it to the body"),
        ("def predict(a, /): ...", route("a"), "body", "takes a by position only: set positional to true"),
        (
            "def predict(a): ...",
            route("a", "b", positional=True),
            "body",
            "takes 1 argument by position, and the body has 2",
        ),
        ("def predict(a, b): ...", route("x", positional=True), "body", "also needs b: add a field for it to the end"),
        ("def predict(*, a): ...", route("a", positional=True), "body", "takes 0 arguments by position"),
        ("def predict(*, a): ...", route(positional=True), "body", "takes a by keyword only: set positional to false"),
        ("def predict(x): ...", route(verb="GET"), "body", "also needs x"),
        ("def predict(a):\n  retrun a", route("a"), "file", "predict.py is not valid Python: line 2: invalid syntax"),
        ("x = '\0'", route("a"), "file", "not valid Python"),
        ("(" * 10_000, route("a"), "file", "not valid Python"),
        ("a = 1\n" + "-" * 50_000 + "a", route("a"), "file", "not valid Python"),
    ],
)
def test_what_does_not_fit_is_named_with_its_field_and_its_mend(
    code: str, wanted: RouteSpec, field: str, says: str
) -> None:
    found = problems(code, wanted)
    assert [sentence for where, sentence in found if where == f"routes.2.{field}" and says in sentence], found


def test_everything_wrong_is_said_at_once() -> None:
    assert len(problems("def predict(a, b, /, c, *, d): ...", route("c", "x", "y"))) == 4


def test_a_later_definition_replaces_an_earlier_one() -> None:
    assert problems("def predict(a): ...\ndef predict(b): ...", route("a")) != []


def test_an_encoding_declared_in_the_file_is_honoured() -> None:
    assert "predict" in module_from_facts(facts_of("# coding: latin-1\ndef predict(): 'é'".encode("latin-1"))).names


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("predict", None),
        ("predict.py", None),
        ("app/main", None),
        ("predikt", "the repository has no file predikt.py (did you mean predict.py?)"),
        ("xyz", "the repository has no file xyz.py; it has app/main.py, predict.py"),
        ("vendor/lib/model", "vendor/lib/model.py is in the submodule vendor/lib, and submodules are not fetched"),
    ],
)
def test_the_file_of_a_route_must_be_there(file: str, says: str | None) -> None:
    wanted = RouteSpec(path="/p", file=file, function="f")
    found = file_problem(wanted, {"predict.py", "app/main.py", "README.md"}, {"vendor/lib"})
    assert found == says if says is None else found is not None and found.startswith(says)


def test_a_repository_without_python_says_so() -> None:
    found = file_problem(RouteSpec(path="/p", file="predict", function="f"), {"README.md"}, set())
    assert found == "the repository has no file predict.py, nor any other Python file: add it"
