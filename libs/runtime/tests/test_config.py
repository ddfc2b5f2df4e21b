"""The configuration file: taken as it is meant, refused with everything that is wrong in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_runtime.body import Parameter
from penstock_runtime.config import BODY_BYTES_MAX_DEFAULT, Config, ConfigError, Route, parse_config

PREDICT = {"verb": "POST", "path": "/predict", "file": "predict", "function": "predict", "positional": True}


def text(source: Path, **changes: Any) -> bytes:
    config = {"directory": str(source), "routes": [PREDICT], "concurrency": 2, "name": "team/model", **changes}
    return json.dumps({name: value for name, value in config.items() if value is not ...}).encode()


def test_a_configuration_is_read_into_routes_and_parameters(tmp_path: Path) -> None:
    body = [{"name": "features", "type": "list"}, {"name": "top", "type": "int", "optional": True}]
    config = parse_config(text(tmp_path, routes=[{**PREDICT, "body": body}]))
    assert config == Config(
        directory=str(tmp_path),
        routes=(
            Route(
                verb="POST",
                path="/predict",
                file="predict",
                function="predict",
                positional=True,
                body=(Parameter("features", "list"), Parameter("top", "int", optional=True)),
            ),
        ),
        concurrency=2,
        name="team/model",
        max_body_bytes=BODY_BYTES_MAX_DEFAULT,
    )


@pytest.mark.parametrize("file", ["predict", "predict.py"])
def test_a_file_may_be_named_with_or_without_its_suffix(tmp_path: Path, file: str) -> None:
    assert parse_config(text(tmp_path, routes=[{**PREDICT, "file": file}])).routes[0].file_name == "predict.py"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"directory": ...}, "directory: Field required"),
        ({"directory": "relative"}, "directory: must be the absolute path of an existing directory"),
        ({"directory": "/no/such/place"}, "directory: must be the absolute path of an existing directory"),
        ({"concurrency": 0}, "concurrency: must be at least 1"),
        ({"concurrency": "2"}, "concurrency: Input should be a valid integer"),
        ({"concurrency": True}, "concurrency: Input should be a valid integer"),
        ({"max_body_bytes": 0}, "max_body_bytes: must be at least 1"),
        ({"port": 80}, "port: "),
        ({"routes": []}, "routes: must hold at least one route"),
        ({"routes": [PREDICT, PREDICT]}, "routes.1.path: POST /predict is there twice"),
        ({"routes": [{**PREDICT, "verb": "PUT"}]}, "routes.0.verb: Input should be 'GET' or 'POST'"),
        ({"routes": [{**PREDICT, "path": "predict"}]}, "routes.0.path: must start with /"),
        ({"routes": [{**PREDICT, "path": "/ping"}]}, "routes.0.path: /ping is the health check"),
        ({"routes": [{**PREDICT, "file": "../predict"}]}, "routes.0.file: must be the relative path"),
        ({"routes": [{**PREDICT, "file": "/etc/predict"}]}, "routes.0.file: must be the relative path"),
        ({"routes": [{**PREDICT, "function": "a.b"}]}, "routes.0.function: must be the name of a function"),
        ({"routes": [{**PREDICT, "verb": "GET", "body": [{"name": "a", "type": "int"}]}]}, "a GET route takes no body"),
        ({"routes": [{**PREDICT, "body": [{"name": "a", "type": "tuple"}]}]}, "routes.0.body.0.type: Input should be"),
        (
            {"routes": [{**PREDICT, "body": [{"name": "a", "type": "int", "optional": True, "default_value": "x"}]}]},
            "routes.0.body.0.default_value: must be a Python literal",
        ),
    ],
)
def test_a_wrong_configuration_names_the_field(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text(tmp_path, **changes))
    assert any(sentence in error for error in caught.value.errors), caught.value.errors


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text(tmp_path, concurrency=0, routes=[{**PREDICT, "path": "x", "function": "1"}]))
    assert len(caught.value.errors) == 3


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_json_object_is_refused(broken: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_config(broken)
