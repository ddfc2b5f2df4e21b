"""What only who runs the platform may do: hosts, dead letters, replay and prices."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from penstock_api.app import Application
from penstock_api.domain.keys import sha256_of
from penstock_common.contracts.events import EndpointRunning, EndpointStopRequested, LogBatch, LogLine
from penstock_common.contracts.questions import AskHosts, PricesReply, Replay, ReplayReply, SetPrice
from penstock_common.contracts.topology import log_subject, replay_subject
from penstock_common.ids import EVENT, new_id
from penstock_common.rpc import Answering
from tests_support import eventually

pytestmark = pytest.mark.connected

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def dead(client: httpx.AsyncClient, **parameters: Any) -> Any:
    answer = await client.get("/v1/admin/dead", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def letters(client: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    async def probe() -> Any:
        found = (await dead(client))["items"]
        assert len(found) == count, found
        return (found,)

    found: tuple[list[dict[str, Any]]] = await eventually(probe)
    return found[0]


async def bury(nats: Client, **headers: str) -> int:
    """Put a letter into DEAD, as delivery would; returns its number."""
    whole = {"ce-id": new_id(EVENT), "ce-type": EndpointStopRequested.message_type, **headers}
    acknowledged = await nats.jetstream().publish("dead.scheduler-api-endpoint", b'{"version": 2}', headers=whole)
    return acknowledged.seq


async def test_hosts_are_shown(client: httpx.AsyncClient) -> None:
    [host] = (await client.get("/v1/admin/hosts")).json()["items"]

    assert (host["id"], host["state"], host["gpus"]) == ("host-1", "up", {"RTX 4090": 4})


async def test_a_fact_that_cannot_be_handled_is_kept_shown_and_handled_when_sent_again(
    client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any, database: Any
) -> None:
    fact = EndpointRunning(
        endpoint_id=endpoint["id"], organization_id="org_1", version=1, at=AT, reason="private words", ready_replicas=1
    )
    # The API's database is behind the scheduler's: it does not know this endpoint yet.
    await database.execute("delete from endpoint_events")
    row = await database.fetchrow("delete from endpoints returning *")
    identifier = await others.publish(fact)

    [letter] = await letters(client, 1)
    assert letter["subject"] == letter["type"] == EndpointRunning.message_type
    assert letter["message_id"] == identifier
    assert letter["consumer"] == "api-scheduler-lifecycle"
    assert "has no endpoint" in letter["error"]
    assert letter["deliveries"] == 1
    assert endpoint["id"] in letter["preview"]
    assert "private words" not in letter["preview"]

    columns = ", ".join(row.keys())
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await database.execute(f"insert into endpoints ({columns}) values ({places})", *row.values())
    assert (await client.post(f"/v1/admin/dead/{letter['sequence']}/retry")).json() == letter
    await letters(client, 0)

    async def is_running() -> bool:
        return bool((await client.get(f"/v1/endpoints/{endpoint['id']}")).json()["state"] == "running")

    await eventually(is_running)
    gone = await client.post(f"/v1/admin/dead/{letter['sequence']}/retry")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_a_batch_of_log_lines_can_be_sent_again(
    client: httpx.AsyncClient, endpoint: dict[str, Any], admin_nats: Client
) -> None:
    line = LogLine(offset=0, at=AT, text="secret line")
    batch = LogBatch(host_id="host-1", endpoint_id=endpoint["id"], replica_id="rep_1", lines=(line,))
    headers = {
        "ce-id": "evt_lines",
        "ce-type": LogBatch.message_type,
        "ce-time": AT.isoformat(),
        "Nats-Msg-Id": "api-provisioner-logs:1",
        "Penstock-Dead-Subject": log_subject("host-1"),
        "Penstock-Dead-Consumer": "api-provisioner-logs",
        "Penstock-Dead-Error": "RuntimeError: für immer",
        "Penstock-Dead-Deliveries": "8",
    }
    await admin_nats.jetstream().publish("dead.api-provisioner-logs", batch.model_dump_json().encode(), headers=headers)

    [letter] = await letters(client, 1)
    assert "secret line" not in letter["preview"]
    assert letter["error"] == "RuntimeError: für immer"
    assert (await client.post(f"/v1/admin/dead/{letter['sequence']}/retry")).status_code == 200

    async def printed() -> Any:
        return (await client.get(f"/v1/endpoints/{endpoint['id']}/logs")).json()["items"]

    assert [item["text"] for item in await eventually(printed)] == ["secret line"]


async def test_dead_letters_come_newest_first_and_in_parts_whatever_was_deleted(
    client: httpx.AsyncClient, admin_nats: Client
) -> None:
    numbers = [await bury(admin_nats) for _ in range(6)]
    assert (await client.delete(f"/v1/admin/dead/{numbers[3]}")).status_code == 204
    assert (await client.delete(f"/v1/admin/dead/{numbers[5]}")).status_code == 204
    assert (await client.delete(f"/v1/admin/dead/{numbers[5]}")).status_code == 404

    first = await dead(client, limit=2)
    assert [letter["sequence"] for letter in first["items"]] == [numbers[4], numbers[2]]
    second = await dead(client, limit=2, before=first["next_before"])
    assert [letter["sequence"] for letter in second["items"]] == [numbers[1], numbers[0]]
    assert second["next_before"] is None
    assert (await dead(client, before=numbers[0]))["items"] == []


async def test_a_letter_that_does_not_say_what_it_was_can_only_be_deleted(
    client: httpx.AsyncClient, admin_nats: Client
) -> None:
    number = await bury(admin_nats)

    refused = await client.post(f"/v1/admin/dead/{number}/retry")

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert len((await dead(client))["items"]) == 1


async def test_a_replay_asks_every_owner_of_an_outbox_and_says_who_is_away(
    client: httpx.AsyncClient, endpoint: dict[str, Any], admin_nats: Client
) -> None:
    since = {"since": "2020-01-01T00:00:00+01:00"}

    alone = (await client.post("/v1/admin/replay", json=since)).json()["services"]
    assert alone["api"] == {"events": 1, "records": 1, "error": None}
    assert "no scheduler is connected" in alone["scheduler"]["error"]

    async def answer(_: Replay) -> ReplayReply:
        return ReplayReply(events=5, records=2)

    answering = Answering(admin_nats, Replay, answer, subject=replay_subject("scheduler"))
    await answering.start()
    await admin_nats.flush()
    both = (await client.post("/v1/admin/replay", json=since)).json()["services"]
    assert both["scheduler"] == {"events": 5, "records": 2, "error": None}
    assert (await client.post("/v1/admin/replay", json={"since": "2020-01-01T00:00:00"})).status_code == 422


async def test_a_replay_restores_a_bucket_that_lost_everything(
    client: httpx.AsyncClient, admin_nats: Client, application: Application, key: str
) -> None:
    bucket = await admin_nats.jetstream().key_value("api_keys")
    await eventually(lambda: sha256_of(key) in application.bucket.snapshot)
    await admin_nats.jetstream().purge_stream("KV_api_keys")

    await client.post("/v1/admin/replay", json={"since": datetime.now(UTC).isoformat()})

    async def restored() -> bool:
        try:
            return b"platform:admin" in ((await bucket.get(sha256_of(key))).value or b"")
        except KeyNotFoundError:
            return False

    await eventually(restored)


async def test_prices_are_shown_and_set_through_billing(client: httpx.AsyncClient, others: Any) -> None:
    shown = (await client.get("/v1/admin/prices")).json()
    assert [(item["gpu_type"], item["micros_per_hour"]) for item in shown["items"]] == [("*", 450_000), ("CPU", 20_000)]

    new = {"gpu_type": "RTX 4090", "micros_per_hour": 500_000, "currency": "EUR"}
    answer = await client.put("/v1/admin/prices", json=new)

    assert answer.status_code == 200
    [question] = [asked for asked in others.asked if isinstance(asked, SetPrice)]
    assert (question.price.gpu_type, question.price.micros_per_hour, question.price.currency) == (
        "RTX 4090",
        500_000,
        "EUR",
    )
    dated = {**new, "valid_from": "2026-04-01T02:00:00+02:00"}
    assert (await client.put("/v1/admin/prices", json=dated)).status_code == 200
    assert others.asked[-1].price.valid_from == datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"micros_per_hour": -1}, "micros_per_hour"),
        ({"currency": "dollars"}, "currency"),
        ({"gpu_type": ""}, "gpu_type"),
        ({"valid_from": "2026-04-01T00:00:00"}, "valid_from"),
    ],
)
async def test_a_wrong_price_names_its_field(client: httpx.AsyncClient, change: dict[str, Any], field: str) -> None:
    body = {"gpu_type": "A100", "micros_per_hour": 1, "currency": "USD", **change}

    answer = await client.put("/v1/admin/prices", json=body)

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_the_number_of_a_dead_letter_must_be_one(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/v1/admin/dead/first")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "sequence"


async def test_a_failure_inside_is_a_problem_that_tells_nothing_of_the_inside(
    client: httpx.AsyncClient, others: Any
) -> None:
    await others.answer(AskHosts, PricesReply(prices=()))  # not an answer to this question

    answer = await client.get("/v1/admin/hosts")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "HostsReply" not in answer.text
