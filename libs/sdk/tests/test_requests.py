"""What the clients send, and what they make of the answers: the same for both."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock import (
    Ambiguous,
    NotFound,
    Parameter,
    Route,
    ScheduledMinimum,
    UnexpectedAnswer,
)

ROUTE = {"path": "/predict", "file": "predict", "function": "predict"}


def test_a_minimal_endpoint_leaves_all_else_to_the_platform(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(201, make.endpoint()))
    platform.run(lambda client: client.endpoints.create(name="Iris", git_uri="https://x.test/i.git", routes=[ROUTE]))
    (request,) = script.requests
    assert (request.method, str(request.url)) == ("POST", "http://api.test/v1/endpoints")
    assert script.bodies() == [
        {"name": "Iris", "source": {"kind": "git", "uri": "https://x.test/i.git"}, "routes": [ROUTE]}
    ]
    assert request.headers["authorization"] == "Bearer psk_test"
    assert request.headers["user-agent"].startswith("penstock-python/")


def test_every_option_has_its_place_in_the_body(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(201, make.endpoint()))
    platform.run(
        lambda client: client.endpoints.create(
            name="Iris",
            git_uri="u",
            git_ref="main",
            routes=[Route(**ROUTE, body=(Parameter(name="x", type="list"),))],
            workspace="vision",
            gpu_type="RTX 4090",
            gpu_count=2,
            cpu_cores=4,
            memory_gb=16,
            disk_gb=50,
            replicas=3,
            target_concurrency=8,
            queue_limit=0,
            queue_timeout_s=30,
            public=True,
            idempotency_key="mine",
        )
    )
    assert script.requests[0].headers["idempotency-key"] == "mine"
    assert script.bodies() == [
        {
            "name": "Iris",
            "workspace": "vision",
            "source": {"kind": "git", "uri": "u", "ref": "main"},
            "routes": [{**ROUTE, "body": [{"name": "x", "type": "list"}]}],
            "gpu": {"type": "RTX 4090", "count": 2},
            "resources": {"cpu_cores": 4, "memory_gb": 16, "disk_gb": 50},
            "scaling": {
                "min_replicas": 3,
                "max_replicas": 3,
                "target_concurrency": 8,
                "queue_limit": 0,
                "queue_timeout_s": 30,
            },
            "public": True,
        }
    ]


def test_every_option_of_scaling_has_its_place_in_the_body(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(201, make.endpoint()))
    window = {"start": "0 8 * * *", "end": "0 9 * * *", "min_replicas": 3}
    platform.run(
        lambda client: client.endpoints.create(
            name="Iris",
            git_uri="u",
            routes=[],
            min_replicas=0,
            max_replicas=4,
            idle_timeout_s=30,
            scale_down_delay_s=0,
            queue_wait_target_s=0.5,
            schedule=[
                window,
                ScheduledMinimum(start="0 8 * * 1-5", end="0 18 * * 1-5", time_zone="Europe/Berlin", min_replicas=2),
            ],
        )
    )
    assert script.bodies()[0]["scaling"] == {
        "min_replicas": 0,
        "max_replicas": 4,
        "idle_timeout_s": 30,
        "scale_down_delay_s": 0,
        "queue_wait_target_s": 0.5,
        "schedule": [
            window,
            {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "time_zone": "Europe/Berlin", "min_replicas": 2},
        ],
    }


@pytest.mark.parametrize("other", ["min_replicas", "max_replicas"])
def test_the_number_of_replicas_is_given_once(platform: Any, script: Any, other: str) -> None:
    with pytest.raises(ValueError, match="replicas sets both min_replicas and max_replicas"):
        platform.run(
            lambda client: client.endpoints.create(name="Iris", git_uri="u", routes=[], replicas=2, **{other: 2})
        )
    assert script.requests == []


def test_a_path_object_becomes_an_absolute_path(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(201, make.endpoint()))
    platform.run(lambda client: client.endpoints.create(name="Iris", git_uri=Path("iris"), routes=[]))
    assert script.bodies()[0]["source"]["uri"] == str(Path("iris").absolute())


def test_an_unknown_option_is_a_mistake_of_the_caller(platform: Any) -> None:
    with pytest.raises(TypeError, match="gpus"):
        platform.run(lambda client: client.endpoints.create(name="Iris", git_uri="u", routes=[], gpus=1))


def test_a_dry_run_creates_nothing_and_needs_no_key(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, {"starts_now": False, "position": 2, "reason": "No GPU is free.", "url": "http://u"}))
    forecast = platform.run(lambda client: client.endpoints.create(dry_run=True, name="Iris", git_uri="u", routes=[]))
    assert (forecast.starts_now, forecast.position) == (False, 2)
    assert script.requests[0].url.query == b"dry_run=true"
    assert "idempotency-key" not in script.requests[0].headers


def test_an_endpoint_is_found_by_its_id_without_a_search(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()))
    found = platform.run(lambda client: client.endpoints.get(make.endpoint_id))
    assert script.requests[0].url.path == f"/v1/endpoints/{make.endpoint_id}"
    assert (found.full_name, found.created_at) == ("default/iris", datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("vision/iris", {"slug": "iris", "workspace": "vision"}),
        ("New Inference Endpoint!", {"slug": "new-inference-endpoint"}),
        ("ep_short", {"slug": "ep-short"}),
    ],
)
def test_an_endpoint_is_found_by_its_name(
    platform: Any, script: Any, make: Any, name: str, query: dict[str, str]
) -> None:
    script.add(make.page(make.endpoint()))
    assert platform.run(lambda client: client.endpoints.get(name)).id == make.endpoint_id
    sent = dict(script.requests[0].url.params)
    assert sent.pop("limit") == "200"
    assert sent == query


def test_a_name_that_nothing_has_is_not_found(platform: Any, script: Any, make: Any) -> None:
    script.add(make.page())
    with pytest.raises(NotFound, match=r"no endpoint 'iris'.*penstock endpoint list"):
        platform.run(lambda client: client.endpoints.get("iris"))
    with pytest.raises(NotFound):
        platform.run(lambda client: client.endpoints.get("!!"))


def test_a_name_in_two_workspaces_is_ambiguous_and_both_are_named(platform: Any, script: Any, make: Any) -> None:
    script.add(make.page(make.endpoint(), make.endpoint(workspace="vision")))
    with pytest.raises(Ambiguous, match=r"default/iris .*, vision/iris .*workspace/slug"):
        platform.run(lambda client: client.endpoints.stop("iris"))


def test_lists_are_fetched_page_by_page_as_they_are_taken(platform: Any, script: Any, make: Any) -> None:
    script.add(make.page(*[{"slug": f"a{n}"} for n in range(3)], next_cursor="c1"), make.page({"slug": "b"}))
    found = platform.run(lambda client: client.workspaces.list())
    assert [each.slug for each in found] == ["a0", "a1", "a2", "b"]
    assert [request.url.params.get("cursor") for request in script.requests] == [None, "c1"]


def test_a_limit_bounds_the_items_and_the_pages(platform: Any, script: Any, make: Any) -> None:
    endpoints = [make.endpoint(slug=f"e{n}") for n in range(3)]
    script.add(make.page(*endpoints[:2], next_cursor="c1"), make.page(endpoints[2], next_cursor="c2"))
    found = platform.run(lambda client: client.endpoints.list(workspace="vision", state="running", limit=3))
    assert [each.slug for each in found] == ["e0", "e1", "e2"]
    assert [dict(request.url.params)["limit"] for request in script.requests] == ["3", "1"]
    assert script.requests[0].url.params["state"] == "running"


def test_a_list_that_points_at_itself_ends(platform: Any, script: Any, make: Any) -> None:
    script.add(make.page({"slug": "a"}, next_cursor="c"), make.page({"slug": "b"}, next_cursor="c"))
    assert len(platform.run(lambda client: client.workspaces.list())) == 2


def test_an_action_brings_the_very_object_up_to_date(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint(state="running")), make.reply(202, make.endpoint(state="stopping")))
    seen: list[Any] = []

    def stop(endpoint: Any) -> Any:
        seen.append(endpoint)
        return endpoint.stop()

    assert platform.on_endpoint(stop) is seen[0]
    assert seen[0].state == "stopping"


def test_predictions_go_to_the_endpoint_with_the_key(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.reply(200, {"class": 2}))
    # Fields may have the names of any argument of ours.
    answer = platform.on_endpoint(lambda endpoint: endpoint.predict("predict", path="p", self=1, timeout_s="é"))
    request = script.requests[1]
    assert answer == {"class": 2}
    assert (request.method, str(request.url)) == ("POST", "http://gateway.test/e/default/iris/predict")
    assert request.headers["authorization"] == "Bearer psk_test"
    assert json.loads(request.content) == {"path": "p", "self": 1, "timeout_s": "é"}


def test_a_public_endpoint_is_not_sent_the_key(platform: Any, script: Any, make: Any) -> None:
    public = {**make.endpoint()["spec"], "public": True}
    script.add(make.reply(200, make.endpoint(spec=public)), make.reply(200, 1))
    platform.on_endpoint(lambda endpoint: endpoint.predict("/predict"))
    assert "authorization" not in script.requests[1].headers


def test_a_route_declared_as_get_is_called_with_get(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.reply(200, ["setosa"]))
    assert platform.on_endpoint(lambda endpoint: endpoint.predict("/labels")) == ["setosa"]
    assert (script.requests[1].method, script.requests[1].content) == ("GET", b"")


def test_any_request_can_be_made_to_an_endpoint(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()), make.reply(200, {"status": "ok"}, x_trace="t1"))
    answer = platform.on_endpoint(
        lambda endpoint: endpoint.request("get", "/ping", query={"deep": True}, headers={"x-mine": "1"})
    )
    request = script.requests[1]
    assert (request.method, request.url.query, request.headers["x-mine"]) == ("GET", b"deep=true", "1")
    assert (answer.status, answer.json(), answer.headers["x-trace"]) == (200, {"status": "ok"}, "t1")


def test_logs_are_pages_newest_first(platform: Any, script: Any, make: Any) -> None:
    line = {"id": 2, "at": "2026-03-01T12:00:00Z", "replica_id": "rep_1", "text": "hello"}
    script.add(make.reply(200, make.endpoint()), make.page(line, {**line, "id": 1}))
    lines = platform.on_endpoint(lambda endpoint: endpoint.logs(limit=2, replica_id="rep_1"))
    assert [line.id for line in lines] == [2, 1]
    assert dict(script.requests[1].url.params) == {"replica_id": "rep_1", "limit": "2"}


def test_usage_takes_days_times_and_groups(platform: Any, script: Any, make: Any) -> None:
    usage = {"rows": [], "total_cost_micros": 5, "currency": "USD", "as_of": "2026-03-01T12:00:00Z"}
    script.add(make.reply(200, usage), make.reply(200, make.endpoint()), make.reply(200, usage))
    total = platform.run(
        lambda client: client.usage(
            start=date(2026, 3, 1), end=datetime(2026, 3, 2, tzinfo=UTC), group_by=("endpoint", "day")
        )
    )
    assert total.total_cost_micros == 5
    assert dict(script.requests[0].url.params) == {
        "from": "2026-03-01T00:00:00Z",
        "to": "2026-03-02T00:00:00+00:00",
        "group_by": "endpoint,day",
    }
    platform.on_endpoint(lambda endpoint: endpoint.usage())
    assert script.requests[2].url.path == f"/v1/endpoints/{make.endpoint_id}/usage"


def test_metrics_take_a_span_and_a_step(platform: Any, script: Any, make: Any) -> None:
    point = {"at": "2026-03-01T12:00:00Z", "requests": 3, "latency_ms": {"p50": 1, "p90": 2, "p99": 3.5}}
    measured = {
        "endpoint_id": make.endpoint_id,
        "start": "2026-03-01T12:00:00Z",
        "end": "2026-03-01T12:01:00Z",
        "step_s": 60,
        "points": [point],
        "total": {**point, "at": "2026-03-01T12:00:00Z", "in_flight": None},
    }
    script.add(*[make.reply(200, make.endpoint()), make.reply(200, measured)] * 2)
    found = platform.on_endpoint(lambda endpoint: endpoint.metrics(start=date(2026, 3, 1), end="2026-03-02", step_s=60))
    assert (found.step_s, found.total.latency_ms.p99, found.points[0].queue_wait_ms) == (60, 3.5, None)
    request = script.requests[1]
    assert request.url.path == f"/v1/endpoints/{make.endpoint_id}/metrics"
    assert dict(request.url.params) == {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02", "step": "60s"}
    platform.on_endpoint(lambda endpoint: endpoint.metrics())
    assert dict(script.requests[3].url.params) == {}


def test_how_an_endpoint_scales_is_read(platform: Any, script: Any, make: Any) -> None:
    decision = {"at": "2026-03-01T12:00:00Z", "desired_replicas": 3, "ready_replicas": 1, "reason": "8 requests wait"}
    scaling = {
        "min_replicas": 0,
        "max_replicas": 4,
        "target_concurrency": 1,
        "queue_limit": 1,
        "queue_timeout_s": 1,
        "schedule": [{"start": "0 8 * * *", "end": "0 9 * * *", "time_zone": "UTC", "min_replicas": 1}],
    }
    spec = {**make.endpoint()["spec"], "scaling": scaling}
    told = {"ready_replicas": 1, "desired_replicas": 3, "idle_since": None, "scaling_decisions": [decision]}
    script.add(make.reply(200, make.endpoint(spec=spec, **told)))
    found = platform.run(lambda client: client.endpoints.get(make.endpoint_id))
    assert (found.ready_replicas, found.desired_replicas) == (1, 3)
    assert found.scaling_decisions[0].reason == "8 requests wait"
    assert found.spec.scaling.schedule[0].min_replicas == 1


def test_a_time_without_a_zone_is_a_mistake_of_the_caller(platform: Any) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        platform.run(lambda client: client.usage(start=datetime(2026, 3, 1)))  # noqa: DTZ001


def test_gpus_say_which_counts_can_start(platform: Any, script: Any, make: Any) -> None:
    capacity = {"type": "A", "memory_gb": 24, "total": 4, "free": 1, "can_start": {"1": True, "2": False}}
    script.add(make.reply(200, {"gpus": [capacity], "cpu": {**capacity, "type": "CPU"}}))
    found = platform.run(lambda client: client.gpus.list())
    assert found.gpus[0].can_start == {1: True, 2: False}
    assert found.cpu.type == "CPU"


def test_the_account_is_managed(platform: Any, script: Any, make: Any) -> None:
    member = {"id": "mem_1", "email": "ada@acme.test", "name": "ada", "role": "developer"}
    key = {"id": "key_1", "name": "ci", "key": "psk_secret", "scopes": ["endpoints:read"]}
    script.add(
        make.reply(201, member),
        make.reply(200, {**member, "role": "admin"}),
        make.reply(204),
        make.reply(201, key),
        make.reply(204),
        make.reply(204),
    )
    made = platform.run(lambda client: client.members.create(email="ada@acme.test"))
    changed = platform.run(lambda client: client.members.update(made.id, role="admin"))
    platform.run(lambda client: client.members.delete(made.id))
    new = platform.run(lambda client: client.api_keys.create("ci", scopes=["endpoints:read"], expires_at="2027-01-01"))
    platform.run(lambda client: client.api_keys.revoke(new.id))
    platform.run(lambda client: client.workspaces.delete("a/b"))
    assert (changed.role, new.key) == ("admin", "psk_secret")
    assert "psk_secret" not in repr(new)
    assert script.bodies() == [
        {"email": "ada@acme.test", "role": "developer", "name": "ada"},
        {"role": "admin"},
        {"name": "ci", "scopes": ["endpoints:read"], "expires_at": "2027-01-01"},
    ]
    assert script.requests[-1].url.raw_path == b"/v1/workspaces/a%2Fb"


def test_operators_see_hosts_and_dead_letters_and_set_prices(platform: Any, script: Any, make: Any) -> None:
    host = {"id": "gpu-1", "state": "up", "last_seen_at": "2026-03-01T12:00:00Z", "gpus": {"A": 2}}
    letter = {"sequence": 3, "at": "2026-03-01T12:00:00Z", "error": "boom"}
    price = {"gpu_type": "CPU", "micros_per_hour": 20_000, "currency": "USD"}
    script.add(
        make.reply(200, {"items": [host]}),
        make.reply(200, {"items": [letter], "next_before": 3}),
        make.reply(200, {"items": [{**letter, "sequence": 2}], "next_before": None}),
        make.reply(200, letter),
        make.reply(204),
        make.reply(200, {"services": {"api": {"events": 1, "records": 2}}}),
        make.reply(200, {"items": [price]}),
    )
    assert platform.run(lambda client: client.admin.hosts())[0].gpus == {"A": 2}
    assert [each.sequence for each in platform.run(lambda client: client.admin.dead.list())] == [3, 2]
    platform.run(lambda client: client.admin.dead.retry(3))
    platform.run(lambda client: client.admin.dead.drop(2))
    replayed = platform.run(lambda client: client.admin.replay(date(2026, 3, 1)))
    assert replayed.services["api"].records == 2
    assert platform.run(lambda client: client.admin.prices.set("CPU", micros_per_hour=20_000))[0].gpu_type == "CPU"
    paths = [f"{request.method} {request.url.path}" for request in script.requests]
    assert paths[2:5] == ["GET /v1/admin/dead", "POST /v1/admin/dead/3/retry", "DELETE /v1/admin/dead/2"]
    assert script.requests[2].url.params["before"] == "3"


def test_an_organization_comes_with_its_owner_and_first_key(platform: Any, script: Any, make: Any) -> None:
    made = {
        "organization": {"id": "org_1", "name": "Acme"},
        "owner": {"id": "mem_1", "email": "o@acme.test", "role": "owner"},
        "api_key": {"id": "key_1", "name": "first", "key": "psk_secret"},
    }
    script.add(make.reply(201, made), make.page(made["organization"]))
    new = platform.run(lambda client: client.admin.organizations.create("Acme", owner_email="o@acme.test"))
    assert new.api_key.key == "psk_secret"
    assert script.bodies() == [{"name": "Acme", "owner_email": "o@acme.test"}]
    assert platform.run(lambda client: client.admin.organizations.list())[0].name == "Acme"


@pytest.mark.parametrize("body", [{"items": [{"no": "slug"}]}, {"items": 3}, ["x"], "text"])
def test_an_answer_of_another_shape_says_so(platform: Any, script: Any, make: Any, body: Any) -> None:
    script.add(make.reply(200, body))
    with pytest.raises(UnexpectedAnswer, match="Check that the address is a Penstock API"):
        platform.run(lambda client: client.workspaces.list())


def test_a_client_does_not_show_its_key(platform: Any, script: Any, make: Any) -> None:
    script.add(make.reply(200, make.endpoint()))
    shown: list[str] = []

    def show(client: Any) -> Any:
        shown.append(repr(client))
        return client.endpoints.get(make.endpoint_id)

    platform.run(show)
    assert shown[0].endswith("Penstock('http://api.test')")
