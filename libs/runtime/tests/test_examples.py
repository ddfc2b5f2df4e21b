"""The examples, as replicas: their routes are valid, and they answer what their README says."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import penstock_runtime
from penstock_common.contracts.endpoint import RouteSpec
from penstock_runtime import config

from .conftest import Start

RUNTIME = Path(config.__file__).parents[1]
EXAMPLES = RUNTIME.parents[1] / "examples"
NAMES = ("iris", "text-stats", "slow-echo")
SPOKEN = re.compile(r"^(GET|POST) (/\S*) ?(.*)\n200 (.*(?:\n    .*)*)", re.MULTILINE)
UNREACHABLE = ("Failed to fetch", "error sending request", "Request failed", "dns error", "Could not connect")


def routes_of(name: str) -> list[dict[str, Any]]:
    return list(json.loads((EXAMPLES / name / "routes.json").read_text()))


def readme_of(name: str) -> str:
    return (EXAMPLES / name / "README.md").read_text()


@pytest.fixture(scope="session")
def iris_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with what the iris example and the runtime require, as a replica's is made."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("uv, which builds the environment of the iris example, is not installed")
    environment = tmp_path_factory.mktemp("iris") / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    requirements = ["-r", str(EXAMPLES / "iris" / "requirements.txt"), *penstock_runtime.REQUIREMENTS]
    installed = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode != 0 and any(sign in installed.stderr for sign in UNREACHABLE):
        pytest.skip(f"no package registry is reachable: {installed.stderr.strip().splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    return python


@pytest.mark.parametrize("name", NAMES)
def test_the_routes_are_ones_that_an_endpoint_takes(name: str) -> None:
    for route in routes_of(name):
        RouteSpec.model_validate(route)


@pytest.mark.parametrize("name", NAMES)
def test_the_replica_takes_the_routes_as_the_platform_writes_them(name: str) -> None:
    routes = [RouteSpec.model_validate(route).model_dump(mode="json") for route in routes_of(name)]
    written = {"directory": str(EXAMPLES / name), "routes": routes, "concurrency": 1, "name": f"team/{name}"}
    taken = config.parse_config(json.dumps(written).encode())
    assert [RouteSpec.model_validate(asdict(route)) for route in taken.routes] == [
        RouteSpec.model_validate(route) for route in routes
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_gives_the_same_routes_to_the_command_line(name: str) -> None:
    assert [json.loads(text) for text in re.findall(r"--route '(.*)'", readme_of(name))] == routes_of(name)


@pytest.mark.parametrize("name", ["text-stats", "slow-echo"])
async def test_every_route_answers_what_the_readme_says(start: Start, name: str) -> None:
    replica = await start(EXAMPLES / name, *routes_of(name)).ready()
    spoken = SPOKEN.findall(readme_of(name))
    assert [(verb, path) for verb, path, _, _ in spoken] == [
        (route["verb"], route["path"]) for route in routes_of(name)
    ]
    for verb, path, body, said in spoken:
        answer = await replica.client.request(verb, path, content=body.encode())
        assert answer.status_code == 200
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines == [json.loads(line) for line in said.splitlines()]


@pytest.mark.timeout(600)
async def test_the_iris_model_answers_what_the_readme_says(start: Start, iris_python: str) -> None:
    replica = await start(
        EXAMPLES / "iris",
        *routes_of("iris"),
        command=(iris_python, "-m", "penstock_runtime"),
        environment={"PYTHONPATH": str(RUNTIME)},
    ).ready()
    ((verb, path, body, said),) = SPOKEN.findall(readme_of("iris"))
    answer = (await replica.client.request(verb, path, content=body.encode())).json()
    assert answer["label"] == json.loads(said)["label"]
    assert answer["probabilities"] == pytest.approx(json.loads(said)["probabilities"], abs=0.02)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=0.001)
