"""Bad bodies: every field at fault is named, all at once."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_api.domain.draft import Room, place_in_body, read_draft
from penstock_common.contracts.endpoint import GpuRequest, Resources
from penstock_common.contracts.questions import FieldProblem

GOOD: dict[str, Any] = {
    "name": "New Inference Endpoint",
    "source": {"uri": "https://github.com/acme/iris.git"},
    "routes": [{"path": "/predict", "file": "predict", "function": "predict", "body": [{"name": "x", "type": "list"}]}],
}
WINDOW = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "min_replicas": 2}


def changed(path: str, value: object) -> dict[str, Any]:
    body = deepcopy(GOOD)
    place: Any = body
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else place[parent]
    place[last] = value
    return body


def test_a_good_body_has_no_problems() -> None:
    draft = read_draft(GOOD)

    assert draft.problems == ()
    assert draft.spec is not None
    assert (draft.workspace, draft.slug) == ("default", "new-inference-endpoint")
    assert draft.inspectable is not None
    assert (draft.room.gpu, draft.room.replicas) == (None, 1)


@pytest.mark.parametrize(("least", "priced"), [(0, 1), (1, 1), (3, 3)])
def test_room_and_price_are_asked_for_the_least_that_runs_at_all(least: int, priced: int) -> None:
    draft = read_draft(changed("scaling", {"min_replicas": least, "max_replicas": 4, "schedule": [WINDOW]}))

    assert draft.problems == ()
    assert draft.room.replicas == priced


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("name", "", "name", "at least 1 character"),
        ("name", "---", "name", "must contain a letter or digit"),
        ("name", "x" * 64, "name", "at most 63"),
        ("name", "a\0b", "name", "NUL"),
        ("name", 7, "name", "valid string"),
        ("nmae", "x", "nmae", "no such field"),
        ("workspace", "No Such", "workspace", "must match the pattern"),
        ("source", "https://github.com/acme/iris.git", "source", "must be a JSON object"),
        ("source.kind", "svn", "source.kind", "must be 'git'"),
        ("source.uri", "", "source.uri", "at least 1 character"),
        ("source.uri", "https://user:token@github.com/acme/iris.git", "source.uri", "must not hold a user name"),
        ("source.uri", "https://token@github.com/acme/iris.git", "source.uri", "must not hold a user name"),
        ("source.uri", "https://[oops/acme", "source.uri", "is not an address"),
        ("source.ref", "--upload-pack=x", "source.ref", "must match the pattern"),
        ("routes", [], "routes", "at least 1"),
        ("routes", {}, "routes", "valid list"),
        ("routes.0", "predict", "routes.0", "must be a JSON object"),
        ("routes.0.verb", "PUT", "routes.0.verb", "must be 'GET' or 'POST'"),
        ("routes.0.verb", "GET", "routes.0.body", "a GET route takes no body"),
        ("routes.0.path", "predict", "routes.0.path", "must start with /"),
        ("routes.0.path", "/a/../b", "routes.0.path", "must start with /"),
        ("routes.0.path", "/ping", "routes.0.path", "/ping is the health check"),
        ("routes.0.file", "../secret", "routes.0.file", "relative path"),
        ("routes.0.file", "/etc/passwd", "routes.0.file", "relative path"),
        ("routes.0.function", "not a name", "routes.0.function", "must match the pattern"),
        ("routes.0.positional", "perhaps", "routes.0.positional", "valid boolean"),
        ("routes.0.body.0.type", "tuple", "routes.0.body.0.type", "must be 'str', 'int'"),
        ("routes.0.body.0.name", "a b", "routes.0.body.0.name", "must match the pattern"),
        ("routes.0.body.0.default_value", "[1]", "routes.0.body.0", "default_value needs optional"),
        (
            "routes.0.body.0",
            {"name": "x", "type": "list", "optional": True, "default_value": "open('/etc/passwd')"},
            "routes.0.body.0.default_value",
            "must be a Python literal",
        ),
        (
            "routes.0.body.0",
            {"name": "x", "type": "list", "optional": True, "default_value": '"a"'},
            "routes.0.body.0.default_value",
            "must be None or a list",
        ),
        ("routes.0.body", [{"name": "x", "type": "int"}] * 2, "routes.0.body", "names the field 'x' twice"),
        ("routes", [GOOD["routes"][0]] * 2, "routes.1.path", "POST /predict is given twice: each route needs its own"),
        ("gpu", {"type": "A100", "count": 5}, "gpu.count", "less than or equal to 4"),
        ("gpu", {"type": "A100", "count": 0}, "gpu.count", "greater than or equal to 1"),
        ("gpu", {}, "gpu.type", "required"),
        ("resources", {"cpu_cores": 0}, "resources.cpu_cores", "greater than or equal to 1"),
        ("resources", {"memory_gb": "much"}, "resources.memory_gb", "valid integer"),
        ("scaling", {"min_replicas": 3, "max_replicas": 2}, "scaling.max_replicas", "at least min_replicas (3)"),
        ("scaling", {"min_replicas": 3}, "scaling.max_replicas", "at least min_replicas (3)"),
        ("scaling", {"min_replicas": -1}, "scaling.min_replicas", "greater than or equal to 0"),
        ("scaling", {"max_replicas": 0}, "scaling.max_replicas", "greater than or equal to 1"),
        ("scaling", {"idle_timeout_s": 0}, "scaling.idle_timeout_s", "greater than or equal to 1"),
        ("scaling", {"schedule": [WINDOW]}, "scaling.schedule", "raise max_replicas (1)"),
        ("scaling", {"schedule": [{**WINDOW, "start": "8 o'clock"}]}, "scaling.schedule.0.start", "is no cron line"),
        (
            "scaling",
            {"schedule": [{**WINDOW, "time_zone": "Mars"}]},
            "scaling.schedule.0.time_zone",
            "no IANA time zone",
        ),
        ("public", "maybe", "public", "valid boolean"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_wrong(path: str, value: object, field: str, message: str) -> None:
    draft = read_draft(changed(path, value))

    assert draft.spec is None
    assert [problem.field for problem in draft.problems] == [field]
    assert message in draft.problems[0].message


@pytest.mark.parametrize("body", [None, [], "x", 3, True, b"name=x"])
def test_what_is_not_an_object_is_said_to_be_none(body: object) -> None:
    assert [(problem.field, problem.message) for problem in read_draft(body).problems] == [
        ("body", "must be a JSON object, sent with Content-Type: application/json")
    ]


def test_missing_fields_are_named_all_together() -> None:
    assert {problem.field for problem in read_draft({}).problems} == {"name", "source", "routes"}


def test_mistakes_in_different_parts_are_told_at_once_and_the_right_parts_are_kept() -> None:
    body = changed("gpu", {"type": "A100", "count": 9})
    body["name"] = "!"
    body["routes"].append({"path": "nowhere", "file": "predict", "function": "predict"})
    body["routes"].append(GOOD["routes"][0])

    draft = read_draft(body)

    assert {problem.field for problem in draft.problems} == {"gpu.count", "name", "routes.1.path", "routes.2.path"}
    assert draft.room == Room(None, Resources(), 1)
    assert draft.slug is None
    assert draft.workspace == "default"
    assert draft.source is not None
    assert [place for place, _ in draft.routes] == [0, 2]


def test_problems_of_inspected_routes_keep_their_place_in_the_body() -> None:
    body = changed("routes.0.path", "bad")
    body["routes"].append({"path": "/b", "file": "b", "function": "b"})
    draft = read_draft(body)
    found = FieldProblem(field="routes.0.function", message="there is no function b in b.py")

    assert place_in_body(found, draft.routes).field == "routes.1.function"


@pytest.mark.parametrize("field", ["source.uri", "routes", "routes.9.file", "routes.x", "requirements"])
def test_other_problems_of_an_inspection_stay_as_they_are(field: str) -> None:
    problem = FieldProblem(field=field, message="m")

    assert place_in_body(problem, read_draft(GOOD).routes) == problem


def test_a_source_with_a_secret_is_never_asked_about() -> None:
    assert read_draft(changed("source.uri", "https://u:p@h/r.git")).inspectable is None


def test_a_deeply_nested_body_is_only_wrong() -> None:
    body = json.loads("[" * 900 + "]" * 900)

    assert read_draft(changed("gpu", body)).problems


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from([*GOOD, "gpu", "resources", "scaling", "public", "workspace"]), _json)
def test_no_body_breaks_the_reading(field: str, value: object) -> None:
    draft = read_draft({**GOOD, field: value})

    assert (draft.spec is None) == bool(draft.problems)


def test_a_wrong_amount_of_memory_does_not_hide_the_gpus_that_are_asked_for() -> None:
    draft = read_draft({"gpu": {"type": "RTX 9090", "count": 3}, "resources": {"memory_gb": "much"}})
    assert draft.room.gpu == GpuRequest(type="RTX 9090", count=3)
    assert draft.room.resources == Resources()
