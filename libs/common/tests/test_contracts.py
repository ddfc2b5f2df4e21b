"""Contracts keep their promises: every version ever published parses for ever."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from penstock_common.contracts import examples
from penstock_common.contracts.base import Event, Message
from penstock_common.contracts.endpoint import EndpointSpec, RouteSpec, Scaling, slug_of
from penstock_common.contracts.events import MESSAGES
from penstock_common.contracts.permissions import SERVICES, permissions
from penstock_common.contracts.topology import CONSUMERS, STREAMS

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_golden_file_of_every_version_still_parses(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_text()
    assert MESSAGES[name].model_validate_json(golden) == examples.MESSAGES[name]


def test_no_golden_file_is_without_its_message() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_readers_ignore_fields_of_later_versions(name: str) -> None:
    fields = json.loads((GOLDEN / f"{name}.json").read_text())
    assert MESSAGES[name].model_validate({**fields, "added_later": 1}) == examples.MESSAGES[name]


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES.values() if issubclass(kind, Event)])
def test_a_fact_is_named_as_the_rule_says(kind: type[Message]) -> None:
    assert re.fullmatch(r"events\.(api|scheduler|provisioner)\.[a-z]+\.[a-z_]+\.v[1-9]", kind.message_type)
    _, owner, entity, fact, _ = kind.message_type.split(".")
    assert kind.__name__ == entity.title() + fact.title().replace("_", "")
    assert f"events.{owner}.>" in permissions(owner).publish


def test_consumers_read_streams_that_exist_and_belong_to_a_service() -> None:
    streams = {stream.name for stream in STREAMS}
    for consumer in CONSUMERS:
        assert consumer.stream in streams
        assert consumer.service in SERVICES
        assert len(consumer.backoff_s) == consumer.max_deliver - 1


def test_only_the_owner_may_write_a_bucket() -> None:
    writers = {
        bucket: [name for name in SERVICES if f"$KV.{bucket}.>" in permissions(name).publish]
        for bucket in ("assignments", "routes", "api_keys")
    }
    assert writers == {"assignments": ["scheduler"], "routes": ["scheduler"], "api_keys": ["api"]}


@pytest.mark.parametrize(
    ("name", "slug"), [("New Inference Endpoint", "new-inference-endpoint"), ("  A__b! ", "a-b"), ("ß", "")]
)
def test_a_name_makes_its_part_of_the_url(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@pytest.mark.parametrize(
    "change",
    [
        {"path": "predict"},
        {"path": "/ping"},
        {"path": "/a/../b"},
        {"path": "/a?b"},
        {"path": "/predict\n"},
        {"file": "predict.py\n"},
        {"file": "../predict"},
        {"file": "/etc/passwd"},
        {"function": "predict()"},
        {"verb": "GET"},
        {"body": [{"name": "a", "type": "int"}, {"name": "a", "type": "str"}]},
        {"body": [{"name": "a", "type": "integer"}]},
        {"body": [{"name": "a", "type": "int", "default_value": "1"}]},
        {"colour": "red"},
    ],
)
def test_a_wrong_route_is_refused(change: dict[str, object]) -> None:
    right = {"path": "/predict", "file": "predict", "function": "predict", "body": [{"name": "a", "type": "int"}]}
    RouteSpec.model_validate(right)
    with pytest.raises(ValidationError):
        RouteSpec.model_validate({**right, **change})


def test_two_routes_may_not_answer_the_same_request() -> None:
    fields = examples.SPEC.model_dump()
    with pytest.raises(ValidationError, match="POST /predict is given twice"):
        EndpointSpec.model_validate({**fields, "routes": [fields["routes"][0]] * 2})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "at least min_replicas"),
        ({"min_replicas": 3}, "at least min_replicas"),
        ({"schedule": [{"start": "0 8 * *", "end": "0 9 * * *", "min_replicas": 1}]}, "is no cron line"),
        (
            {"schedule": [{"start": "0 8 * * *", "end": "0 9 * * *", "time_zone": "Mars", "min_replicas": 1}]},
            "is no IANA time zone",
        ),
        (
            {"max_replicas": 2, "schedule": [{"start": "0 8 * * *", "end": "0 9 * * *", "min_replicas": 3}]},
            "raise max_replicas",
        ),
    ],
)
def test_scaling_that_contradicts_itself_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Scaling.model_validate(fields)
