"""Requests that cannot be granted: each is refused with the field, the cause and the mend, and leaves nothing."""

import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import AsyncPenstock
from penstock.errors import InvalidRequest
from tests_support.people import Repositories, git
from tests_support.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CODE = """
def predict(features, scale=1):
    return features

def exactly(a, /, b, *, c):
    return a
"""
PREDICT = {"path": "/predict", "file": "predict", "function": "predict", "body": [{"name": "features", "type": "list"}]}


def body_of(repository: str, **changes: Any) -> dict[str, Any]:
    """A request that would be granted, but for the changes."""
    return {"name": "Refused", "source": {"uri": repository}, "routes": [PREDICT], **changes}


def route(**changes: Any) -> dict[str, Any]:
    return {**PREDICT, **changes}


def fields(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "type": "list"} for name in names]


class Refusals:
    """Asks for endpoints that cannot be, and sees that nothing comes of it."""

    def __init__(self, client: AsyncPenstock, platform: Platform) -> None:
        self._client = client
        self._platform = platform

    async def of(self, body: dict[str, Any]) -> dict[str, list[str]]:
        """Field → what is said of it; the same for a dry run as for the request itself."""
        before = [endpoint.id async for endpoint in self._client.endpoints.list()]
        key = {"Authorization": f"Bearer {self._platform.api_key}"}
        async with httpx.AsyncClient(base_url=self._platform.api_url, headers=key, timeout=60) as http:
            forecast = await http.post("/v1/endpoints", params={"dry_run": "true"}, json=body)
            answer = await http.post("/v1/endpoints", json=body)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == "invalid_request"
        assert forecast.json()["errors"] == problem["errors"]
        assert [endpoint.id async for endpoint in self._client.endpoints.list()] == before
        found: dict[str, list[str]] = {}
        for error in problem["errors"]:
            found.setdefault(error["field"], []).append(error["message"])
        return found


@pytest.fixture
def refusals(client: AsyncPenstock, running_platform: Platform) -> Refusals:
    return Refusals(client, running_platform)


@pytest.fixture
def repository(repositories: Repositories) -> str:
    return repositories.make({"predict.py": CODE})


def assert_says(found: dict[str, list[str]], expected: dict[str, str]) -> None:
    """Exactly these fields are at fault, and each message matches its pattern."""
    assert set(found) == set(expected), found
    for field, pattern in expected.items():
        assert re.search(pattern, "\n".join(found[field])), (field, found[field])


async def test_every_wrong_and_every_unknown_field_is_named_at_once(refusals: Refusals) -> None:
    parameter = {"name": "1st", "type": "string", "optional": "perhaps", "colour": "red"}
    body = {
        "name": "  !  ",
        "workspace": "Not A Slug",
        "source": {"kind": "svn", "uri": "", "ref": "--upload-pack=x", "branch": "main"},
        "routes": [
            {"verb": "PUT", "path": "predict", "file": "../predict", "function": "1", "body": [parameter], "x": 1},
            {"path": "/ping"},
        ],
        "gpu": {"type": 4090, "count": 5, "memory": 24},
        "resources": {"cpu_cores": 0, "memory_gb": "much", "disk_gb": 0},
        "scaling": {
            "min_replicas": -1,
            "max_replicas": 0,
            "idle_timeout_s": 0,
            "schedule": [{"start": "at eight", "end": "0 18 * * *", "time_zone": "Mars/Olympus", "min_replicas": 1}],
            "queue_limit": -1,
            "queue_timeout_s": 0,
            "target_concurrency": 0,
        },
        "public": "perhaps",
        "color": "red",
    }
    assert_says(
        await refusals.of(body),
        {
            "name": "must contain a letter or digit",
            "workspace": "must match the pattern",
            "source.kind": "must be 'git'",
            "source.uri": "at least 1 character",
            "source.ref": "must match the pattern",
            "source.branch": "no such field: check its spelling",
            "routes.0.verb": "must be 'GET' or 'POST'",
            "routes.0.path": "must start with /",
            "routes.0.file": "relative path of a Python file",
            "routes.0.function": "must match the pattern",
            "routes.0.body.0.name": "must match the pattern",
            "routes.0.body.0.type": "must be 'str', 'int', 'float', 'bool', 'dict' or 'list'",
            "routes.0.body.0.optional": "valid boolean",
            "routes.0.body.0.colour": "no such field: check its spelling",
            "routes.0.x": "no such field: check its spelling",
            "routes.1.path": "/ping is the health check of every endpoint: choose another path",
            "routes.1.file": "this field is required",
            "routes.1.function": "this field is required",
            "gpu.type": "valid string",
            "gpu.count": "less than or equal to 4",
            "gpu.memory": "no such field: check its spelling",
            "resources.cpu_cores": "greater than or equal to 1",
            "resources.memory_gb": "valid integer",
            "resources.disk_gb": "greater than or equal to 1",
            "scaling.min_replicas": "greater than or equal to 0",
            "scaling.max_replicas": "greater than or equal to 1",
            "scaling.idle_timeout_s": "greater than or equal to 1",
            "scaling.schedule.0.start": "is no cron line.*write five fields such as 0 8",
            "scaling.schedule.0.time_zone": "is no IANA time zone: write one such as UTC",
            "scaling.queue_limit": "greater than or equal to 0",
            "scaling.queue_timeout_s": "greater than or equal to 1",
            "scaling.target_concurrency": "greater than or equal to 1",
            "public": "valid boolean",
            "color": "no such field: check its spelling",
        },
    )


async def test_mistakes_of_the_body_the_account_the_hosts_and_the_source_come_in_one_answer(
    refusals: Refusals, repository: str
) -> None:
    body = body_of(
        repository,
        workspace="elsewhere",
        gpu={"type": "RTX 4080"},
        routes=[route(function="predikt"), route(path="no-slash"), route(path="/other", file="models/predict")],
    )
    assert_says(
        await refusals.of(body),
        {
            "workspace": r"no workspace 'elsewhere' .*use one of yours \(default\) or create it",
            "gpu.type": "no host has RTX 4080; there are: A100 80GB, RTX 4090",
            "routes.0.function": r"predict.py defines no function predikt \(did you mean predict\?\)",
            "routes.1.path": "must start with /",
            "routes.2.file": r"no file models/predict.py \(did you mean predict.py\?\)",
        },
    )


async def test_a_name_that_is_taken(client: AsyncPenstock, refusals: Refusals, repository: str) -> None:
    await client.endpoints.create(name="Taken Name", git_uri=repository, routes=[PREDICT], gpu_type="RTX 4090")
    found = await refusals.of(body_of(repository, name="taken  NAME"))
    assert_says(found, {"name": "has an endpoint with this name .*choose another name, or terminate"})


@pytest.mark.parametrize(
    ("wrong", "field", "pattern"),
    [
        ({"function": "predikt"}, "function", r"predict.py defines no function predikt \(did you mean predict\?\)"),
        ({"file": "predictor"}, "file", r"no file predictor.py \(did you mean predict.py\?\)"),
        ({"body": fields("feature")}, "body", r"no argument feature \(did you mean features\?\).*name"),
        ({"body": []}, "body", "also needs features: add it to the body, or give the argument a default"),
        (
            {"positional": True, "body": fields("a", "b", "c")},
            "body",
            "takes 2 arguments by position, and the body has 3: remove fields, or add arguments",
        ),
        ({"positional": True, "body": []}, "body", "also needs features: add a field for it"),
        (
            {"function": "exactly", "body": fields("a", "b", "c")},
            "body",
            "takes a by position only: set positional to true",
        ),
        (
            {"function": "exactly", "positional": True, "body": fields("a", "b")},
            "body",
            "takes c by keyword only: set positional to false",
        ),
        (
            {"body": [{"name": "features", "type": "list", "optional": True, "default_value": "[1"}]},
            "body.0.default_value",
            r"Python literal",
        ),
    ],
)
async def test_a_route_that_does_not_fit_its_code(
    refusals: Refusals, repository: str, wrong: dict[str, Any], field: str, pattern: str
) -> None:
    found = await refusals.of(body_of(repository, routes=[route(**wrong)]))
    assert_says(found, {f"routes.0.{field}": pattern})


async def test_a_route_given_twice(refusals: Refusals, repository: str) -> None:
    found = await refusals.of(body_of(repository, routes=[PREDICT, route(path="/other"), PREDICT]))
    assert_says(found, {"routes.2.path": "POST /predict is given twice: each route needs its own path or verb"})


async def test_code_that_is_not_python(refusals: Refusals, repositories: Repositories) -> None:
    broken = repositories.make({"predict.py": "def predict(features:\n    return 1\n"})
    found = await refusals.of(body_of(broken))
    assert_says(found, {"routes.0.file": "predict.py is not valid Python: .*line 1"})


@pytest.mark.parametrize(
    ("uri", "pattern"),
    [
        ("https://penstock-nowhere.invalid/model.git", "penstock-nowhere.invalid cannot be reached.*check the address"),
        ("https://127.0.0.1:1/model.git", "PENSTOCK_ALLOW_PRIVATE_SOURCES"),
        ("https://user:secret@example.com/model.git", "must not hold a user name, password or token"),
        ("git@example.com:acme/model.git", "ssh addresses are not fetched: give the repository's https address"),
        ("ext::sh -c true", "no repository address: give one such as https://"),
        ("http://example.com/model.git", "http addresses are not fetched: give the repository's https address"),
        ("/nowhere/at/all", "is no directory on this host: check the path"),
    ],
)
async def test_a_repository_that_cannot_be_reached(refusals: Refusals, uri: str, pattern: str) -> None:
    found = await refusals.of(body_of(uri))
    assert_says(found, {"source.uri": pattern})
    assert "secret" not in str(found)


async def test_a_folder_that_is_no_repository(refusals: Refusals, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "predict.py").write_text(CODE)
    found = await refusals.of(body_of(str(tmp_path / "plain")))
    assert_says(found, {"source.uri": "no git repository"})


async def test_a_repository_without_commits(refusals: Refusals, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    found = await refusals.of(body_of(str(tmp_path / "empty")))
    assert_says(found, {"source.uri": "the repository is empty: commit the model's code"})


@pytest.mark.parametrize("ref", ["mian", "0" * 40])
async def test_a_branch_or_commit_that_is_missing(refusals: Refusals, repository: str, ref: str) -> None:
    found = await refusals.of(body_of(repository, source={"uri": repository, "ref": ref}))
    pattern = r"no branch or tag 'mian' \(did you mean main\?\)" if ref == "mian" else "not in the repository"
    assert_says(found, {"source.ref": pattern})


async def test_a_huge_repository(refusals: Refusals, repositories: Repositories) -> None:
    huge = repositories.make({"predict.py": CODE, "weights.bin": os.urandom(5 * 1024**2)})
    found = await refusals.of(body_of(huge))
    assert_says(found, {"source.uri": "4 MB.*load .* when the model starts, or raise PENSTOCK_SOURCE_MB_MAX"})


@pytest.mark.parametrize(
    ("requirements", "pattern"),
    [
        ("penstock-no-such-package-zzz==1.0\n", "cannot be satisfied.*penstock-no-such-package-zzz"),
        ("idna==3.7\nidna==3.6\n", "cannot be satisfied together with requirements.txt line 2.*idna"),
        ("pydantic<2\n", "cannot be satisfied.*Penstock itself needs pydantic"),
    ],
)
async def test_requirements_that_do_not_resolve(
    refusals: Refusals, repositories: Repositories, requirements: str, pattern: str
) -> None:
    source = repositories.make({"predict.py": CODE, "requirements.txt": requirements})
    found = await refusals.of(body_of(source))
    assert_says(found, {"requirements.txt line 1": f"(?s){pattern}"})


async def test_requirements_that_lead_elsewhere(refusals: Refusals, repositories: Repositories) -> None:
    lines = [
        "--index-url https://example.com/packages",
        "--extra-index-url=https://example.com/packages",
        "-e .",
        "idna @ https://example.com/idna.whl",
        "./local-package",
        "git+https://example.com/acme/package",
        "-r ../outside.txt",
        "idna --global-option=x",
        "not a requirement!",
    ]
    source = repositories.make({"predict.py": CODE, "requirements.txt": "\n".join(lines)})
    found = await refusals.of(body_of(source))
    assert set(found) == {f"requirements.txt line {number}" for number in range(1, len(lines) + 1)}


async def test_gpus_that_no_host_has(refusals: Refusals, repository: str) -> None:
    found = await refusals.of(body_of(repository, gpu={"type": "A100 80GB", "count": 3}))
    assert_says(found, {"gpu.count": "needs 3 × A100 80GB on one host.*no host has more than 1: ask for 1 or fewer"})
    found = await refusals.of(body_of(repository, gpu={"type": "RTX 4O90"}))
    assert_says(found, {"gpu.type": "no host has RTX 4O90; there are: A100 80GB, RTX 4090"})
    found = await refusals.of(body_of(repository, resources={"cpu_cores": 128}))
    assert_says(found, {"resources.cpu_cores": "needs 128 CPU cores on one host, but no host .* has more than"})


async def test_the_sdk_raises_what_the_api_says(client: AsyncPenstock, repository: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await client.endpoints.create(
            name="Refused", git_uri=repository, routes=[route(function="predikt")], gpu_type="RTX 4O90"
        )
    assert [error.field for error in raised.value.errors] == ["gpu.type", "routes.0.function"]
    assert "did you mean predict?" in str(raised.value)
