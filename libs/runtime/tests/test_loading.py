"""Loading a model's code: what is found, and the sentence that says why it is not."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock_runtime.body import Parameter
from penstock_runtime.config import Config, Route
from penstock_runtime.loading import LoadedRoute, LoadError, load_routes

Load = Callable[..., LoadedRoute]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Loads one route from source files, and forgets the imported modules with the test."""
    modules, path = dict(sys.modules), list(sys.path)

    def load(
        source: str | Mapping[str, str],
        function: str = "predict",
        *names: str,
        file: str = "predict",
        positional: bool = False,
        optional: bool = False,
    ) -> LoadedRoute:
        for name, text in {"predict.py": source}.items() if isinstance(source, str) else source.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        body = tuple(Parameter(name, "int", optional) for name in names)
        route = Route(path="/predict", file=file, function=function, positional=positional, body=body)
        (loaded,) = load_routes(Config(directory=str(tmp_path), routes=(route,), concurrency=1, name="team/model"))
        return loaded

    yield load
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def refused(load: Load, *arguments: Any, **more: Any) -> str:
    """The sentence of the LoadError."""
    with pytest.raises(LoadError) as caught:
        load(*arguments, **more)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# --- what is found --------------------------------------------------------------------------


def test_files_of_the_source_import_each_other_and_are_loaded_once(load: Load) -> None:
    source = {
        "predict.py": "import helper\ncalls = helper.calls\ncalls.append(__name__)\ndef predict(): return calls\n",
        "helper.py": "calls = []\n",
        "other.py": "import predict\n",
    }
    assert load(source).function() == ["predict"]
    assert __import__("other").predict.calls == ["predict"]


def test_a_file_in_a_package_may_import_its_neighbours(load: Load) -> None:
    source = {"app/__init__.py": "", "app/main.py": "from .names import NAME\ndef predict(): return NAME\n"}
    assert load({**source, "app/names.py": "NAME = 'x'\n"}, file="app/main.py").function() == "x"


@pytest.mark.parametrize(
    "file", ["json", "time", "sys", "penstock_runtime", "my-model", "json/decoder", "sys/a", "2024"]
)
def test_a_file_may_have_the_name_of_any_module(load: Load, file: str) -> None:
    loaded = load({f"{file}.py": "def predict(): return __file__\n"}, file=file)
    assert loaded.function().endswith(f"/{file}.py")


def test_async_functions_and_async_generators_are_called_on_the_loop(load: Load) -> None:
    source = "async def one(): ...\nasync def many(): yield 1\ndef plain(): ...\ndef stream(): yield 1\n"
    assert [load(source, name).on_loop for name in ("one", "many", "plain", "stream")] == [True, True, False, False]


def test_any_callable_will_do(load: Load) -> None:
    source = """
import functools, operator
class Model:
    def __call__(self, a): return a
    def method(self, a): return a
instance = Model()
method = instance.method
part = functools.partial(lambda b, a: a, 1)
in_c = operator.neg
"""
    assert [load(source, name, "a", positional=True).function(3) for name in ("instance", "method", "part")] == [
        3,
        3,
        3,
    ]
    assert load(source, "in_c", "a", positional=True).function(3) == -3


@pytest.mark.parametrize("positional", [True, False])
def test_left_out_fields_without_a_default_value_get_the_functions_own(load: Load, positional: bool) -> None:
    loaded = load("def predict(a=3, b=None): ...\n", "predict", "a", "b", positional=positional, optional=True)
    assert loaded.template.arguments(b"{}") == [3, None]


@pytest.mark.parametrize(
    ("arguments", "names", "positional"),
    [
        ("a, b", ["a", "b"], False),
        ("a, b", ["b", "a"], False),
        ("x, y", ["a", "b"], True),
        ("a, b=1", ["a"], False),
        ("a, b=1", ["a"], True),
        ("a, *, b", ["a", "b"], False),
        ("**fields", ["a", "class"], False),
        ("*values", ["a", "b"], True),
        ("a, /, *rest, b=1", ["a", "b", "c"], True),
        ("", [], False),
        ("", [], True),
    ],
)
def test_a_body_that_fits_the_function_is_loaded(
    load: Load, arguments: str, names: list[str], positional: bool
) -> None:
    load(f"def predict({arguments}): ...\n", "predict", *names, positional=positional)


# --- what is not ----------------------------------------------------------------------------

NEEDS = "POST /predict needs predict in predict.py, but "


@pytest.mark.parametrize(
    ("arguments", "names", "positional", "reason"),
    [
        ("a", ["a", "b"], False, "the body gives b and the function has only a: make the names the same"),
        ("", ["a"], False, "the body gives a and the function takes no arguments by keyword: make the names the same"),
        ("a, b", ["a"], False, "the body does not give the function's b: add it to the body, or give the argument a"),
        ("a, *, b", ["a"], True, "the body does not give the function's b: add it"),
        ("a, b, c", ["a"], True, "the body does not give the function's b, c: add it"),
        ("a", ["a", "b"], True, "the body gives 2 fields and the function takes 1 argument by position: give each"),
        ("a, /", ["a"], False, "its argument a can only be passed by position: set positional to true in the route"),
        ("a, /, **rest", ["b"], False, "the body does not give the function's a: add it"),
    ],
)
def test_a_body_that_does_not_fit_says_how(
    load: Load, arguments: str, names: list[str], positional: bool, reason: str
) -> None:
    sentence = refused(load, f"def predict({arguments}): ...\n", "predict", *names, positional=positional)
    assert sentence.startswith(NEEDS + reason)


def test_a_missing_file_names_those_there_are(load: Load) -> None:
    sentence = refused(load, {"model.py": "", "util.py": ""})
    assert sentence == NEEDS + "the source has no such file: name one of model.py, util.py in the route."


def test_a_missing_file_in_an_empty_source_asks_for_it(load: Load) -> None:
    assert refused(load, {}) == NEEDS + "the source has no such file: add it, or name another in the route."


def test_a_missing_function_names_those_there_are(load: Load) -> None:
    sentence = refused(load, "from json import loads\ndef predict_image(): ...\ndef _hidden(): ...\n")
    assert sentence == NEEDS + "predict.py has no such function: name predict_image in the route, or add it."


def test_a_missing_function_in_an_empty_file_asks_for_it(load: Load) -> None:
    assert refused(load, "") == NEEDS + "predict.py has no such function: add it."


def test_a_name_that_is_no_function_says_what_it_is(load: Load) -> None:
    assert refused(load, "predict = 3\n") == NEEDS + "predict is of type int: name a function in the route instead."


def test_a_missing_package_is_asked_for_in_requirements(load: Load) -> None:
    assert refused(load, "\nimport nosuchpackage.part\n") == (
        NEEDS + "importing predict.py raised ModuleNotFoundError: No module named 'nosuchpackage' (predict.py line 2): "
        "add the package that provides nosuchpackage to requirements.txt."
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('two\\nlines')", "raised ValueError: two lines (predict.py line 1)"),
        ("def f(:", "raised SyntaxError: invalid syntax (predict.py, line 1): mend"),
        ("raise SystemExit(2)", "called exit with 2 (predict.py line 1): move what only a script does"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt (predict.py line 1)"),
        ("import json\njson.loads('x')", "raised JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("class E(Exception):\n  def __str__(self): return 1 / 0\nraise E", "raised E: (its message cannot be shown"),
    ],
)
def test_code_that_raises_at_import_is_named_with_its_line(load: Load, source: str, reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(source)
    assert str(caught.value).startswith(f"{NEEDS}importing predict.py {reason}")
    assert caught.value.__cause__ is not None


def test_an_error_in_a_package_of_the_file_is_named_there(load: Load) -> None:
    source = {"app/__init__.py": "raise ValueError('x')\n", "app/main.py": "def predict(): ...\n"}
    sentence = refused(load, source, file="app/main")
    assert "importing app/main.py raised ValueError: x (app/__init__.py line 1)" in sentence


def test_a_link_that_leads_out_of_the_source_is_refused(load: Load, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "predict.py"
    elsewhere.write_text("def predict(): ...\n")
    source = tmp_path_factory.mktemp("source")
    (source / "predict.py").symlink_to(elsewhere)
    route = Route(path="/predict", file="predict", function="predict")
    with pytest.raises(LoadError, match="a link that leads out of the source"):
        load_routes(Config(directory=str(source), routes=(route,), concurrency=1, name="team/model"))
