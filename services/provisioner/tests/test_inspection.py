"""The question asked before an endpoint is created: can this source run with these routes?"""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_common.contracts.endpoint import BodyParameter, GitSource, RouteSpec
from penstock_common.contracts.questions import InspectSource, SourceInspection
from penstock_provisioner import handlers
from penstock_provisioner.source.inspection import Inspector

from .conftest import MakeRepository, Platform

Ask = Callable[..., Any]


def route(file: str = "predict", function: str = "predict", *names: str, **fields: Any) -> RouteSpec:
    body = tuple(BodyParameter(name=name, type="list") for name in names)
    return RouteSpec(path=fields.pop("path", "/p"), file=file, function=function, body=body, **fields)


@pytest.fixture
async def inspector(platform: Platform) -> AsyncIterator[Inspector]:
    async with platform.host() as host:
        yield host.inspector


@pytest.fixture
def ask(inspector: Inspector) -> Ask:
    async def asking(repository: Any, *routes: RouteSpec, ref: str = "HEAD") -> SourceInspection:
        question = InspectSource(source=GitSource(uri=repository.uri, ref=ref), routes=routes)
        return await handlers.inspect_source(question, inspector)

    return asking


def fields(inspection: SourceInspection) -> dict[str, str]:
    return {problem.field: problem.message for problem in inspection.problems}


async def test_a_good_source_is_pinned(ask: Ask, make_repository: MakeRepository, base_requirements: str) -> None:
    repository = make_repository({"predict.py": "def predict(features): ...\n", "app/more.py": "def f(): ...\n"})
    found = await ask(
        repository, route("predict", "predict", "features"), route("app/more.py", "f", path="/f"), ref="main"
    )
    assert found.problems == ()
    assert found.source is not None
    assert found.source.model_dump() == {
        "uri": repository.uri,
        "ref": "main",
        "commit": repository.git("rev-parse", "HEAD"),
        "requirements": base_requirements,
    }


async def test_everything_wrong_is_said_at_once(
    ask: Ask, make_repository: MakeRepository, wheels: Callable[..., None]
) -> None:
    repository = make_repository(
        {
            "predict.py": "def predict(features): ...\n",
            "broken.py": "def broken(:\n",
            "requirements.txt": "-i https://example.com\n-e .\nno-such-thing\n",
        }
    )
    found = await ask(
        repository,
        route("predict", "predict", "feature"),
        route("predict", "predikt", "features"),
        route("broken", "broken"),
        route("absent", "absent"),
    )
    assert found.source is None
    places = [problem.field for problem in found.problems]
    assert sorted(places) == [
        "requirements.txt line 1",
        "requirements.txt line 2",
        "requirements.txt line 3",
        "routes.0.body",
        "routes.0.body",
        "routes.1.function",
        "routes.2.file",
        "routes.3.file",
    ]
    said = fields(found)
    assert "did you mean predict?" in said["routes.1.function"]
    assert "broken.py is not valid Python: line 1" in said["routes.2.file"]
    assert "no file absent.py" in said["routes.3.file"]
    assert said["requirements.txt line 3"].startswith("cannot be satisfied: Because no-such-thing")


async def test_requirements_that_do_not_resolve_are_said_beside_wrong_routes(
    ask: Ask, make_repository: MakeRepository, wheels: Callable[..., None]
) -> None:
    repository = make_repository({"predict.py": "", "requirements.txt": "no-such-thing\n"})
    assert set(fields(await ask(repository, route()))) == {"routes.0.function", "requirements.txt line 1"}


async def test_a_bad_line_alone_is_the_only_problem(
    ask: Ask, make_repository: MakeRepository, wheels: Callable[..., None]
) -> None:
    wheels("clouds", "1.0")
    repository = make_repository({"predict.py": "def predict(): ...\n", "requirements.txt": "clouds\n--pre\n"})
    found = await ask(repository, route())
    assert fields(found) == {"requirements.txt line 2": "the option --pre is not allowed here: remove it"}
    assert found.source is None


async def test_nothing_of_the_source_is_executed(ask: Ask, make_repository: MakeRepository, tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'trapped')!r}, 'w')\n"
    names = ("conftest", "setup", "sitecustomize", "usercustomize", "ast", "json")
    files = {f"{name}.py": trap for name in names}
    repository = make_repository({**files, "predict.py": trap + "def predict(): ...\n", "uv.toml": "garbage = ["})
    found = await ask(repository, route(), route("ast", "f", path="/a"))
    assert set(fields(found)) == {"routes.1.function"}
    assert "trapped" not in os.listdir(tmp_path)


async def test_a_file_that_breaks_the_parser_breaks_nothing_else(ask: Ask, make_repository: MakeRepository) -> None:
    hostile = "x = " + "not " * 60_000 + "1\n" + "y" + ".a" * 200_000 + "\n"
    repository = make_repository({"predict.py": "def predict(): ...\n", "hostile.py": hostile + "def f(): ...\n"})
    found = await ask(repository, route(), route("hostile", "f", path="/f"))
    assert set(fields(found)) == {"routes.1.file"}
    assert (await ask(repository, route())).source is not None


async def test_a_file_in_a_submodule_is_named_as_such(ask: Ask, make_repository: MakeRepository) -> None:
    inner = make_repository({"model.py": "def predict(): ...\n"}, name="inner")
    repository = make_repository({"main.py": ""})
    repository.git("submodule", "--quiet", "add", inner.uri, "vendor/inner")
    repository.commit_all()
    found = await ask(repository, route("vendor/inner/model"))
    assert "is in the submodule vendor/inner" in fields(found)["routes.0.file"]


async def test_a_wrong_branch_is_the_only_problem_there_can_be(ask: Ask, make_repository: MakeRepository) -> None:
    found = await ask(make_repository({"predict.py": ""}), route(), ref="mian")
    assert set(fields(found)) == {"source.ref"}


async def test_an_inspection_has_a_deadline(
    inspector: Inspector, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InspectSource, "deadline_s", handlers._MARGIN_S)
    question = InspectSource(source=GitSource(uri=make_repository({"p.py": ""}).uri), routes=(route(),))
    found = await handlers.inspect_source(question, inspector)
    assert "looking at the source took longer than" in fields(found)["source.uri"]
