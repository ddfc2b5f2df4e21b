"""Creating endpoints: what is asked of whom, and every problem at once; on real servers."""

import asyncio
import shlex
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import httpx
import pytest

from penstock_api.app import Application
from penstock_common.contracts.events import (
    EndpointRequested,
)
from penstock_common.contracts.questions import (
    AskForecast,
    AskPrices,
    FieldProblem,
    ForecastReply,
    InspectSource,
    PricesReply,
    SourceInspection,
)
from penstock_common.errors import DomainError
from penstock_common.ids import is_id
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


# --- creating -------------------------------------------------------------------------------


async def test_a_new_endpoint_is_pinned_priced_and_asked_for(
    client: httpx.AsyncClient, body: dict[str, Any], database: Any, others: Any
) -> None:
    answer = await client.post("/v1/endpoints", json=body)
    made = answer.json()

    assert answer.status_code == 201
    assert is_id("ep", made["id"])
    assert (made["name"], made["slug"], made["workspace"], made["state"]) == (
        "My Model",
        "my-model",
        "default",
        "queued",
    )
    assert made["source"]["commit"] == "8f14e45fceea167a5a36dedd4bea2543e1c2a7b0"
    assert made["source"]["requirements"] == "pydantic==2.11.0\n"
    assert (made["price_micros_per_hour"], made["currency"]) == (900_000, "USD")
    assert made["url"] == "http://127.0.0.1:8080/e/default/my-model"
    assert made["host_url"] == "http://my-model.default.localhost:8080"
    assert shlex.split(made["example_command"])[-1] == made["url"] + "/predict"
    assert made["log_tail"] is None
    assert (await client.get(f"/v1/endpoints/{made['id']}")).json() == made
    [payload] = await emitted(database, EndpointRequested.message_type)
    request = EndpointRequested.model_validate_json(payload)
    assert (request.endpoint_id, request.version, request.slug) == (made["id"], 1, "my-model")
    assert request.source.commit == made["source"]["commit"]
    [inspected] = [question for question in others.asked if isinstance(question, InspectSource)]
    assert inspected.source.uri == body["source"]["uri"]


async def test_a_dry_run_says_what_would_happen_and_makes_nothing(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any, database: Any
) -> None:
    await others.answer(AskForecast, ForecastReply(starts_now=False, position=3, reason="All GPUs are busy."))

    answer = await client.post("/v1/endpoints", params={"dry_run": "true"}, json=body)

    assert answer.status_code == 200
    assert answer.json() == {
        "starts_now": False,
        "position": 3,
        "reason": "All GPUs are busy.",
        "price_micros_per_hour": 900_000,
        "currency": "USD",
        "source": {
            "uri": body["source"]["uri"],
            "ref": "main",
            "commit": "8f14e45fceea167a5a36dedd4bea2543e1c2a7b0",
            "requirements": "pydantic==2.11.0\n",
        },
        "url": "http://127.0.0.1:8080/e/default/my-model",
    }
    assert (await client.get("/v1/endpoints")).json()["items"] == []
    assert await emitted(database, EndpointRequested.message_type) == []


async def test_an_endpoint_that_may_sleep_is_priced_while_its_first_replica_runs(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any
) -> None:
    sleepy = {**body, "scaling": {"min_replicas": 0, "max_replicas": 3}}

    forecast = (await client.post("/v1/endpoints", params={"dry_run": "true"}, json=sleepy)).json()
    made = (await client.post("/v1/endpoints", json=sleepy)).json()

    assert (forecast["price_micros_per_hour"], made["price_micros_per_hour"]) == (900_000, 900_000)
    assert {question.replicas for question in others.asked if isinstance(question, AskForecast)} == {1}
    assert (made["ready_replicas"], made["desired_replicas"], made["scaling_decisions"]) == (0, 1, [])


@pytest.mark.parametrize("dry_run", ["false", "true"])
async def test_everything_that_is_wrong_is_told_at_once(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any, endpoint: dict[str, Any], dry_run: str
) -> None:
    wrong = deepcopy(body)
    wrong["public"] = "maybe"
    wrong["unknown"] = 1
    wrong["routes"] += [
        {"path": "nowhere", "file": "predict", "function": "predict"},
        {"path": "/other", "file": "predict", "function": "nothing"},
    ]
    no_function = FieldProblem(field="routes.1.function", message="there is no function 'nothing' in predict.py")
    no_gpu = FieldProblem(field="gpu.type", message="no host has a 'RTX 4090'")
    await others.answer(InspectSource, SourceInspection(problems=(no_function,)))
    await others.answer(AskForecast, ForecastReply(starts_now=False, reason="", problems=(no_gpu,)))
    await others.answer(AskPrices, PricesReply(prices=()))

    answer = await client.post("/v1/endpoints", params={"dry_run": dry_run}, json=wrong)

    found = errors(answer)
    assert set(found) == {
        "public",
        "unknown",
        "name",
        "routes.1.path",
        "routes.2.function",
        "gpu.type",
    }
    assert "has an endpoint with this name" in found["name"]


async def test_an_unknown_workspace_is_named_with_those_there_are(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    found = errors(await client.post("/v1/endpoints", json={**body, "workspace": "nowhere"}))

    assert set(found) == {"workspace"}
    assert "use one of yours (default)" in found["workspace"]


async def test_a_missing_price_is_an_error_of_the_gpu_type(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any
) -> None:
    await others.answer(AskPrices, PricesReply(prices=()))

    assert set(errors(await client.post("/v1/endpoints", json=body))) == {"gpu.type"}


async def test_without_a_host_a_new_endpoint_must_wait(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any
) -> None:
    await others.go_away(InspectSource)

    answer = await client.post("/v1/endpoints", json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "no_host_connected")
    assert "No host is connected" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert set(errors(await client.post("/v1/endpoints", json={**body, "public": "x"}))) == {"public"}


@pytest.mark.parametrize(
    ("question", "service"), [(AskForecast, "scheduler"), (AskPrices, "billing")], ids=["scheduler", "billing"]
)
async def test_without_the_scheduler_or_billing_a_new_endpoint_must_wait(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any, question: Any, service: str
) -> None:
    await others.go_away(question)

    answer = await client.post("/v1/endpoints", json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert service in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


async def test_a_service_that_fails_is_as_good_as_away(
    client: httpx.AsyncClient, body: dict[str, Any], others: Any
) -> None:
    await others.answer(AskForecast, DomainError("internal", "the service failed to answer"))

    answer = await client.post("/v1/endpoints", json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_a_name_that_races_is_given_once(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answers = await asyncio.gather(
        *(client.post("/v1/endpoints", json={**body, "name": name}) for name in ("A b", "a-B", "A  B", "a b"))
    )

    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422]
    assert all(set(errors(answer)) == {"name"} for answer in answers if answer.status_code == 422)


async def test_the_same_creation_again_gets_the_same_answer_even_at_once(
    client: httpx.AsyncClient, body: dict[str, Any], database: Any
) -> None:
    async def create(**changes: Any) -> httpx.Response:
        return await client.post("/v1/endpoints", json={**body, **changes}, headers={"Idempotency-Key": "k"})

    answers = [*await asyncio.gather(*(create() for _ in range(4))), await create()]

    assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
    assert len(await emitted(database, EndpointRequested.message_type)) == 1
    other = await create(public=True)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_creation_that_failed_may_be_mended_under_the_same_idempotency_key(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": "k"}

    assert set(errors(await client.post("/v1/endpoints", json={**body, "name": "!"}, headers=headers))) == {"name"}
    assert (await client.post("/v1/endpoints", json=body, headers=headers)).status_code == 201


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"1" * 5000, "application/json", 400),
        (b"", "application/json", 422),
        (b"null", "application/json", 422),
        (b"{}", "text/plain", 422),
        (b'{"name": "\\ud800"}', "application/json", 422),
        (b'{"name": "\\u0000", "x\\u0000": "\\ud800"}', "application/json", 422),
        (b'{"name": NaN}', "application/json", 422),
    ],
    ids=["cut", "bytes", "deep", "digits", "empty", "null", "plain", "surrogate", "nul", "nan"],
)
@pytest.mark.parametrize("path", ["/v1/endpoints", "/v1/workspaces"])
async def test_bytes_that_are_no_request_are_a_problem_and_not_a_failure(
    client: httpx.AsyncClient, path: str, content: bytes, content_type: str, status: int
) -> None:
    answer = await client.post(path, content=content, headers={"Content-Type": content_type})

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    for content in (b" " * 2_000_000, chunks()):
        answer = await client.post("/v1/endpoints", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_too_many_creations_at_once_are_asked_to_come_back(
    client: httpx.AsyncClient, body: dict[str, Any], application: Application
) -> None:
    async with asyncio.TaskGroup() as group:
        held = [group.create_task(application.api.desk.checks.acquire()) for _ in range(16)]
        await asyncio.wait(held)

    answer = await client.post("/v1/endpoints", json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert answer.headers["retry-after"]


async def test_one_organization_cannot_hold_every_inspection(
    client: httpx.AsyncClient, client_with: MakeClient, body: dict[str, Any], others: Any
) -> None:
    acme = client_with((await client.post("/v1/organizations", json={"name": "Acme"})).json()["api_key"]["key"])
    workspace = (await acme.post("/v1/workspaces", json={"slug": "acme"})).json()["slug"]
    good, let_go, inspected = others.answers[InspectSource], asyncio.Event(), []

    async def slow(question: InspectSource) -> Any:
        inspected.append(question.source.uri)
        if "mine" in question.source.uri:
            await let_go.wait()
        return await good(question)

    await others.answer(InspectSource, slow)
    mine = [
        asyncio.create_task(client.post("/v1/endpoints", json={**body, "name": f"m{n}", "source": {"uri": f"mine{n}"}}))
        for n in range(5)
    ]
    await eventually(lambda: len(inspected) == 2)

    theirs = await acme.post("/v1/endpoints", json={**body, "workspace": workspace})
    assert theirs.status_code == 201, theirs.text
    assert len(inspected) == 3  # two of mine, and theirs
    let_go.set()
    assert {answer.status_code for answer in await asyncio.gather(*mine)} == {201}
