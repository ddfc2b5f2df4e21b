"""Showing and changing endpoints, use and GPUs, on real servers."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penstock_api.app import Application
from penstock_common.contracts.events import (
    EndpointFailed,
    EndpointIdle,
    EndpointQueued,
    EndpointRestartRequested,
    EndpointRunning,
    EndpointScaled,
    EndpointStopped,
    EndpointTerminated,
    ReplicaScheduled,
    ReplicaStarted,
)
from penstock_common.contracts.questions import (
    AskPrices,
    AskUsage,
)
from penstock_common.errors import DomainError
from penstock_common.ids import REPLICA, new_id
from tests_support import eventually

pytestmark = pytest.mark.connected

MakeClient = Callable[[str | None], httpx.AsyncClient]


def errors(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


async def emitted(database: Any, kind: str) -> list[str]:
    """Payloads of the facts of this type that the API published, oldest first."""
    rows = await database.fetch(
        "select convert_from(payload, 'utf8') as body from outbox where subject = $1 order by id", kind
    )
    return [row["body"] for row in rows]


def fact(endpoint: dict[str, Any], version: int, **fields: Any) -> dict[str, Any]:
    return {
        "endpoint_id": endpoint["id"],
        "organization_id": endpoint["organization_id"],
        "version": version,
        "at": "2026-03-01T12:00:00Z",
        **fields,
    }


async def in_state(client: httpx.AsyncClient, endpoint: dict[str, Any], state: str) -> dict[str, Any]:
    async def probe() -> Any:
        found = (await client.get(f"/v1/endpoints/{endpoint['id']}")).json()
        assert found["state"] == state, found
        return found

    found: dict[str, Any] = await eventually(probe)
    return found


# --- showing --------------------------------------------------------------------------------


async def test_endpoints_are_found_by_id_name_workspace_and_state(
    client: httpx.AsyncClient, endpoint: dict[str, Any], body: dict[str, Any]
) -> None:
    await client.post("/v1/workspaces", json={"slug": "vision"})
    other = (await client.post("/v1/endpoints", json={**body, "workspace": "vision"})).json()

    async def ids(**parameters: str) -> list[str]:
        return [item["id"] for item in (await client.get("/v1/endpoints", params=parameters)).json()["items"]]

    assert await ids() == [other["id"], endpoint["id"]]
    assert await ids(workspace="default", slug="my-model") == [endpoint["id"]]
    assert await ids(workspace="vision") == [other["id"]]
    assert await ids(state="queued") == [other["id"], endpoint["id"]]
    assert await ids(state="running") == []
    part = (await client.get("/v1/endpoints", params={"limit": 1})).json()
    assert [item["id"] for item in part["items"]] == [other["id"]]
    assert await ids(cursor=part["next_cursor"]) == [endpoint["id"]]
    assert set(errors(await client.get("/v1/endpoints", params={"state": "odd"}))) == {"state"}
    assert set(errors(await client.get("/v1/endpoints", params={"slug": "a\0b"}))) == {"slug"}


async def test_endpoints_of_others_do_not_exist(
    client: httpx.AsyncClient, client_with: MakeClient, endpoint: dict[str, Any]
) -> None:
    made = (await client.post("/v1/organizations", json={"name": "Acme"})).json()
    acme = client_with(made["api_key"]["key"])
    path = f"/v1/endpoints/{endpoint['id']}"

    assert (await acme.get("/v1/endpoints")).json()["items"] == []
    for method, suffix in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/stop"),
        ("POST", "/restart"),
        ("GET", "/events"),
        ("GET", "/logs"),
        ("GET", "/logs?follow=true"),
        ("GET", "/usage"),
        ("GET", "/metrics"),
    ):
        answer = await acme.request(method, path + suffix)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), suffix
    assert (await acme.get("/v1/usage", params={"endpoint_id": endpoint["id"]})).status_code == 404


@pytest.mark.parametrize("identifier", ["ep_nothing", "nothing", "%00", "ep_" + "0" * 26, "x" * 3000, "a b", "%ff"])
async def test_an_id_that_is_none_is_not_found(client: httpx.AsyncClient, identifier: str) -> None:
    answer = await client.get(f"/v1/endpoints/{identifier}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_paths_and_methods_that_do_not_exist_are_problems(client: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/", 404), ("GET", "/docs", 404), ("PUT", "/v1/me", 405)):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_an_endpoint_is_shown_without_a_price_while_billing_is_away(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any, application: Application
) -> None:
    await others.go_away(AskPrices)
    application.api.desk.prices.forget()

    found = (await client.get(f"/v1/endpoints/{endpoint['id']}")).json()

    assert (found["price_micros_per_hour"], found["currency"]) == (None, None)


# --- its life -------------------------------------------------------------------------------


async def test_facts_change_what_is_shown(client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any) -> None:
    replica_id = new_id(REPLICA)
    replica = {"workspace_id": "ws_1", "replica_id": replica_id, "host_id": "host-1", "generation": 1}
    await others.publish(EndpointQueued(**fact(endpoint, 1, position=2, reason="All GPUs are busy.")))
    queued = await eventually(lambda: _with_position(client, endpoint))
    assert (queued["position"], queued["reason"]) == (2, "All GPUs are busy.")

    await others.publish(
        ReplicaScheduled(**fact(endpoint, 2, **replica, gpu_type="RTX 4090", gpu_uuids=("GPU-1", "GPU-2")))
    )
    await others.publish(ReplicaStarted(**fact(endpoint, 3, **replica, gpu_type="RTX 4090", gpu_count=2, cpu_cores=1)))
    await others.publish(EndpointRunning(**fact(endpoint, 4, ready_replicas=1)))

    running = await in_state(client, endpoint, "running")
    assert running["position"] is None
    assert running["started_at"] == "2026-03-01T12:00:00Z"
    [shown] = running["replicas"]
    assert (shown["id"], shown["phase"], shown["gpu_uuids"]) == (replica_id, "ready", ["GPU-1", "GPU-2"])
    events = (await client.get(f"/v1/endpoints/{endpoint['id']}/events")).json()["items"]
    assert [event["type"] for event in events] == [
        "endpoint.requested",
        "endpoint.queued",
        "replica.scheduled",
        "replica.started",
        "endpoint.running",
    ]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)


async def test_scalings_and_sleep_are_shown_with_their_reasons(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any
) -> None:
    await others.publish(EndpointRunning(**fact(endpoint, 1, ready_replicas=1)))
    for version, desired, reason in ((2, 3, "8 requests wait for 1 replica"), (3, 1, "quiet for 60 s")):
        await others.publish(
            EndpointScaled(**fact(endpoint, version, desired_replicas=desired, ready_replicas=1, reason=reason))
        )
    await others.publish(EndpointIdle(**fact(endpoint, 4)))

    idle = await in_state(client, endpoint, "idle")
    assert (idle["idle_since"], idle["desired_replicas"], idle["ready_replicas"]) == ("2026-03-01T12:00:00Z", 0, 0)
    assert [(each["desired_replicas"], each["reason"]) for each in idle["scaling_decisions"]] == [
        (1, "quiet for 60 s"),
        (3, "8 requests wait for 1 replica"),
    ]
    events = (await client.get(f"/v1/endpoints/{endpoint['id']}/events")).json()["items"]
    assert [event["type"] for event in events[-3:]] == ["endpoint.scaled", "endpoint.scaled", "endpoint.idle"]
    assert events[-2]["message"] == "1 replica wanted, 1 ready: quiet for 60 s."
    [listed] = (await client.get("/v1/endpoints")).json()["items"]
    assert listed == idle
    for _ in range(2):  # asked to start, it wakes; that may be asked again
        woken = await client.post(f"/v1/endpoints/{endpoint['id']}/restart")
        assert (woken.status_code, woken.json()["state"], woken.json()["idle_since"]) == (202, "queued", None)


async def _with_position(client: httpx.AsyncClient, endpoint: dict[str, Any]) -> Any:
    found = (await client.get(f"/v1/endpoints/{endpoint['id']}")).json()
    return found if found["position"] else None


async def test_a_failure_shows_its_reason_and_the_last_lines_even_if_they_are_binary(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any
) -> None:
    await others.publish(EndpointFailed(**fact(endpoint, 1, reason="It crashed\0.", log_tail="a\0b" + "x" * 100_000)))

    failed = await in_state(client, endpoint, "failed")

    assert failed["reason"] == "It crashed\N{REPLACEMENT CHARACTER}."
    assert failed["log_tail"].endswith("xxx")
    assert "\0" not in failed["log_tail"]


async def test_stop_restart_and_terminate_are_asked_for_once_each(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any, database: Any
) -> None:
    path = f"/v1/endpoints/{endpoint['id']}"
    await others.publish(EndpointRunning(**fact(endpoint, 1, ready_replicas=1)))
    await in_state(client, endpoint, "running")

    refused = await client.post(f"{path}/restart")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "is running, so nothing was restarted: stop it first" in refused.json()["detail"]
    for _ in range(2):
        answer = await client.post(f"{path}/stop")
        assert (answer.status_code, answer.json()["state"]) == (202, "stopping")
    refused = await client.post(f"{path}/restart")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "restart it once its state is stopped" in refused.json()["detail"]

    await others.publish(EndpointStopped(**fact(endpoint, 2)))
    await in_state(client, endpoint, "stopped")
    for _ in range(2):
        answer = await client.post(f"{path}/restart")
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    for _ in range(2):
        answer = await client.delete(path)
        assert (answer.status_code, answer.json()["state"]) == (202, "terminating")
    assert (await client.post(f"{path}/stop")).status_code == 409

    await others.publish(EndpointTerminated(**fact(endpoint, 3)))
    await in_state(client, endpoint, "terminated")
    assert (await client.delete(path)).status_code == 202
    rows = await database.fetch(
        "select subject, convert_from(payload, 'utf8')::jsonb ->> 'version' as version"
        " from outbox where subject like 'events.%' order by id"
    )
    assert [(row["subject"].split(".")[3], int(row["version"])) for row in rows] == [
        ("requested", 1),
        ("stop_requested", 2),
        ("restart_requested", 3),
        ("terminate_requested", 4),
    ]
    assert len(await emitted(database, EndpointRestartRequested.message_type)) == 1


async def test_the_same_request_many_times_at_once_is_passed_on_once(
    client: httpx.AsyncClient, endpoint: dict[str, Any], database: Any
) -> None:
    answers = await asyncio.gather(*(client.delete(f"/v1/endpoints/{endpoint['id']}") for _ in range(8)))

    assert {answer.status_code for answer in answers} == {202}
    assert await database.fetchval("select count(*) from outbox where subject like '%terminate_requested%'") == 1


async def test_a_failed_endpoint_can_only_be_terminated(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any
) -> None:
    path = f"/v1/endpoints/{endpoint['id']}"
    await others.publish(EndpointFailed(**fact(endpoint, 1, reason="It crashed.")))
    await in_state(client, endpoint, "failed")

    for action in ("stop", "restart"):
        refused = await client.post(f"{path}/{action}")
        assert refused.status_code == 409
        assert "terminate it" in refused.json()["detail"]
    assert (await client.delete(path)).status_code == 202


async def test_the_name_is_free_again_once_the_endpoint_is_gone(
    client: httpx.AsyncClient, endpoint: dict[str, Any], body: dict[str, Any], others: Any
) -> None:
    await client.delete(f"/v1/endpoints/{endpoint['id']}")
    assert set(errors(await client.post("/v1/endpoints", json=body))) == {"name"}
    await others.publish(EndpointTerminated(**fact(endpoint, 1)))
    await in_state(client, endpoint, "terminated")

    assert (await client.post("/v1/endpoints", json=body)).status_code == 201
    gone = (await client.get("/v1/endpoints", params={"state": "terminated"})).json()["items"]
    assert [item["id"] for item in gone] == [endpoint["id"]]
    assert len((await client.get("/v1/endpoints")).json()["items"]) == 1


# --- prices, use and GPUs -------------------------------------------------------------------


async def test_gpus_say_what_is_free_what_it_costs_and_what_could_start(client: httpx.AsyncClient) -> None:
    found = (await client.get("/v1/gpus")).json()

    assert found == {
        "gpus": [
            {
                "type": "RTX 4090",
                "memory_gb": 24,
                "total": 4,
                "free": 3,
                "price_micros_per_hour": 450_000,
                "currency": "USD",
                "can_start": {"1": True, "2": True, "3": True, "4": False},
            }
        ],
        "cpu": {
            "type": "CPU",
            "memory_gb": 0,
            "total": 8,
            "free": 0,
            "price_micros_per_hour": 20_000,
            "currency": "USD",
            "can_start": {"1": False, "2": False, "3": False, "4": False},
        },
    }


async def test_usage_is_asked_of_billing_for_the_callers_organization(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any
) -> None:
    answer = await client.get(
        f"/v1/endpoints/{endpoint['id']}/usage",
        params={"from": "2026-03-01T00:00:00+01:00", "to": "2026-03-02T00:00:00Z", "group_by": "day, gpu_type,day"},
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"][0]["replica_s"] == 1.500001
    assert answer.json()["total_cost_micros"] == 7
    question = others.asked[-1]
    assert (question.organization_id, question.endpoint_id) == (endpoint["organization_id"], endpoint["id"])
    assert question.start.isoformat() == "2026-02-28T23:00:00+00:00"
    assert question.group_by == ("day", "gpu_type")
    whole = await client.get("/v1/usage")
    assert whole.status_code == 200
    assert (others.asked[-1].end - others.asked[-1].start).days == 30


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-03-01T00:00:00"}, "from"),
        ({"to": "2026-03-01T00:00:00"}, "to"),
        ({"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "from"),
        ({"from": "2020-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "from"),
        ({"group_by": "week"}, "group_by"),
    ],
)
async def test_a_wrong_span_or_grouping_names_its_field(
    client: httpx.AsyncClient, parameters: dict[str, str], field: str
) -> None:
    assert set(errors(await client.get("/v1/usage", params=parameters))) == {field}


async def test_a_refusal_of_billing_is_passed_on(client: httpx.AsyncClient, others: Any) -> None:
    await others.answer(AskUsage, DomainError("too_many_rows", "ask for a shorter window"))

    answer = await client.get("/v1/usage")

    assert (answer.status_code, answer.json()["detail"]) == (422, "ask for a shorter window")
