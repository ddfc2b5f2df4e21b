"""Every message handler run twice, out of order, and with what does not fit; and the keeping of logs."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from penstock_api.app import Application
from penstock_api.handlers.facts import LIFECYCLE_HANDLERS, LINE_CHARACTERS_MAX, lines_printed
from penstock_api.settings import ApiSettings
from penstock_api.upkeep import Upkeep
from penstock_common.contracts import events as facts
from penstock_common.contracts.base import Message
from penstock_common.delivery.envelope import Received
from penstock_common.delivery.errors import Permanent
from penstock_common.ids import ENDPOINT, REPLICA, new_id
from tests_support import eventually

pytestmark = pytest.mark.connected

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPLICA_ID = new_id(REPLICA)


def received(message: Message) -> Received[Any]:
    return Received(message=message, id="evt_1", time=AT, traceparent=None, delivery=1)


async def handle(application: Application, *messages: Message) -> None:
    for message in messages:
        async with application.service.transaction() as store:
            if isinstance(message, facts.LogBatch):
                await lines_printed(received(message), store)
            else:
                await LIFECYCLE_HANDLERS[type(message)](received(message), store)


def history(endpoint: dict[str, Any]) -> list[facts.Event]:
    """One of every kind of fact, in the order of a whole life."""
    common = {"endpoint_id": endpoint["id"], "organization_id": endpoint["organization_id"], "at": AT}
    replica = {**common, "workspace_id": "ws_1", "replica_id": REPLICA_ID, "host_id": "host-1", "generation": 1}
    return [
        facts.EndpointQueued(**common, version=1, position=1, reason="busy"),
        facts.EndpointStarting(**common, version=2),
        facts.ReplicaScheduled(**replica, version=3, gpu_type="RTX 4090", gpu_uuids=("GPU-1",)),
        facts.ReplicaProgressed(**replica, version=4, phase="installing", detail="14 packages"),
        facts.ReplicaStarted(**replica, version=5, gpu_type="RTX 4090", gpu_count=1, cpu_cores=1),
        facts.EndpointRunning(**common, version=6, ready_replicas=1),
        facts.EndpointIdle(**common, version=7),
        facts.ReplicaEnded(**replica, version=8, cause="stopped", was_ready=True),
        facts.EndpointScaled(**common, version=9, desired_replicas=2, ready_replicas=1, reason="a\0b"),
        facts.EndpointStopping(**common, version=10),
        facts.EndpointStopped(**common, version=11),
        facts.EndpointFailed(**common, version=12, reason="why", log_tail="tail"),
        facts.EndpointTerminating(**common, version=13),
        facts.EndpointTerminated(**common, version=14),
    ]


async def tables(database: Any) -> dict[str, list[Any]]:
    """All that handlers write, but the time of the last change."""
    return {
        table: [
            {name: value for name, value in row.items() if name not in ("updated_at", "id", "received_at")}
            for row in await database.fetch(f"select * from {table} order by id")
        ]
        for table in ("endpoints", "replicas", "endpoint_events", "log_lines")
    }


async def test_every_fact_handled_twice_changes_what_once_does(
    application: Application, endpoint: dict[str, Any], database: Any
) -> None:
    assert {type(fact) for fact in history(endpoint)} == set(LIFECYCLE_HANDLERS)
    for fact in history(endpoint):
        await handle(application, fact)
        once = await tables(database)
        await handle(application, fact)
        assert await tables(database) == once


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_order_facts_come_in_the_end_is_the_same(
    application: Application, endpoint: dict[str, Any], client: httpx.AsyncClient, seed: int
) -> None:
    shuffled = history(endpoint) * 2
    random.Random(seed).shuffle(shuffled)

    await handle(application, *shuffled)

    found = (await client.get(f"/v1/endpoints/{endpoint['id']}")).json()
    assert (found["state"], found["replicas"], found["log_tail"]) == ("terminated", [], None)


async def test_a_fact_about_an_unknown_endpoint_is_a_dead_letter(application: Application) -> None:
    stranger = {"id": new_id(ENDPOINT), "organization_id": "org_1"}
    for fact in history(stranger):
        with pytest.raises(Permanent, match="has no endpoint"):
            await handle(application, fact)


async def test_facts_published_twice_are_seen_once(
    endpoint: dict[str, Any], client: httpx.AsyncClient, others: Any
) -> None:
    for fact in history(endpoint)[:6]:
        identifier = await others.publish(fact)
        await others.client.jetstream().publish(
            fact.message_type,
            fact.model_dump_json().encode(),
            headers={"ce-id": identifier, "ce-type": fact.message_type, "ce-time": AT.isoformat()},
        )

    async def all_there() -> Any:
        events = (await client.get(f"/v1/endpoints/{endpoint['id']}/events")).json()["items"]
        assert len(events) == 7
        return events

    events = await eventually(all_there)
    assert [event["phase"] for event in events] == [
        "queued",
        "queued",
        "scheduled",
        "scheduled",
        "installing",
        "starting",
        "running",
    ]


# --- logs -----------------------------------------------------------------------------------


def batch(endpoint: dict[str, Any], *texts: str, offset: int = 0, replica_id: str = REPLICA_ID) -> facts.LogBatch:
    lines = tuple(facts.LogLine(offset=offset + place, at=AT, text=text) for place, text in enumerate(texts))
    return facts.LogBatch(host_id="host-1", endpoint_id=endpoint["id"], replica_id=replica_id, lines=lines)


async def texts(client: httpx.AsyncClient, endpoint: dict[str, Any], **parameters: Any) -> list[str]:
    answer = await client.get(f"/v1/endpoints/{endpoint['id']}/logs", params=parameters)
    assert answer.status_code == 200, answer.text
    return [line["text"] for line in answer.json()["items"]]


async def test_lines_are_kept_once_and_shown_newest_first(
    application: Application, endpoint: dict[str, Any], client: httpx.AsyncClient, database: Any
) -> None:
    await handle(application, batch(endpoint, "one", "two"), batch(endpoint, "one", "two"))
    await handle(application, batch(endpoint, "two", "three", offset=1))

    assert await texts(client, endpoint) == ["three", "two", "one"]
    assert await database.fetchval("select lines from log_counts") == 3
    path = f"/v1/endpoints/{endpoint['id']}/logs"
    first = (await client.get(path, params={"limit": 2})).json()
    second = (await client.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [line["text"] for line in first["items"] + second["items"]] == ["three", "two", "one"]
    assert second["next_cursor"] is None


async def test_lines_of_one_replica_can_be_shown_alone(
    application: Application, endpoint: dict[str, Any], client: httpx.AsyncClient
) -> None:
    other = new_id(REPLICA)
    await handle(application, batch(endpoint, "mine"), batch(endpoint, "other", replica_id=other))

    assert await texts(client, endpoint, replica_id=other) == ["other"]
    wrong = await client.get(f"/v1/endpoints/{endpoint['id']}/logs", params={"replica_id": "x"})
    assert wrong.json()["errors"][0]["field"] == "replica_id"


async def test_binary_and_endless_lines_are_made_fit(
    application: Application, endpoint: dict[str, Any], client: httpx.AsyncClient
) -> None:
    await handle(application, batch(endpoint, "a\0b", "x" * 1_000_000))

    endless, binary = await texts(client, endpoint)
    assert binary == "a\N{REPLACEMENT CHARACTER}b"
    assert len(endless) == LINE_CHARACTERS_MAX


async def test_lines_of_an_unknown_endpoint_are_dropped(application: Application, database: Any) -> None:
    await handle(application, batch({"id": new_id(ENDPOINT)}, "one"), facts.LogBatch.model_construct(lines=()))

    assert await database.fetchval("select count(*) from log_lines") == 0


# --- upkeep ---------------------------------------------------------------------------------


@pytest.fixture
def upkeep(application: Application, settings: ApiSettings) -> Upkeep:
    """Keeps few lines and events, and those for a day."""
    few = settings.model_copy(update={"log_lines_per_endpoint": 3, "events_per_endpoint": 2, "log_retention_days": 1})
    return Upkeep(application.service, few, application.bucket, connected=lambda: True)


async def test_each_endpoint_keeps_its_newest_lines_and_events(
    application: Application,
    upkeep: Upkeep,
    endpoint: dict[str, Any],
    body: dict[str, Any],
    client: httpx.AsyncClient,
    database: Any,
) -> None:
    other = (await client.post("/v1/endpoints", json={**body, "name": "other"})).json()
    await handle(application, batch(endpoint, *"abcdefgh"), batch(other, *"xyz", replica_id=new_id(REPLICA)))
    await handle(application, *history(endpoint)[:6])

    await upkeep.clean()

    assert await texts(client, endpoint) == ["h", "g", "f"]
    assert await texts(client, other) == ["z", "y", "x"]
    assert [row["lines"] for row in await database.fetch("select lines from log_counts")] == [3, 3]
    events = (await client.get(f"/v1/endpoints/{endpoint['id']}/events")).json()["items"]
    assert [event["type"] for event in events] == ["replica.started", "endpoint.running"]


async def test_old_lines_ended_replicas_and_idempotency_keys_go(
    application: Application,
    upkeep: Upkeep,
    endpoint: dict[str, Any],
    body: dict[str, Any],
    client: httpx.AsyncClient,
    database: Any,
) -> None:
    await client.post("/v1/workspaces", json={"slug": "a"}, headers={"Idempotency-Key": "k"})
    await handle(application, batch(endpoint, "old"), *history(endpoint)[:8])
    await database.execute("update log_lines set received_at = now() - interval '25 hours'")
    await database.execute("update idempotency_keys set created_at = now() - interval '25 hours'")
    await handle(application, batch(endpoint, "new", offset=9))

    await upkeep.clean()

    assert await texts(client, endpoint) == ["new"]
    assert await database.fetchval("select count(*) from idempotency_keys") == 0
    assert await database.fetchval("select count(*) from replicas") == 0  # ended in March
    assert await database.fetchval("select lines from log_counts") == 1


async def test_the_log_of_a_terminated_endpoint_goes_an_hour_later(
    application: Application, upkeep: Upkeep, endpoint: dict[str, Any], client: httpx.AsyncClient, database: Any
) -> None:
    await handle(application, batch(endpoint, "one"), *history(endpoint))
    await upkeep.clean()
    assert await texts(client, endpoint) == ["one"]

    await database.execute("update endpoints set updated_at = $1", datetime.now(UTC) - timedelta(minutes=61))
    await upkeep.clean()

    assert await texts(client, endpoint) == []


async def test_a_terminated_endpoint_and_its_history_go_a_month_later(
    application: Application,
    upkeep: Upkeep,
    endpoint: dict[str, Any],
    body: dict[str, Any],
    client: httpx.AsyncClient,
    database: Any,
) -> None:
    other = (await client.post("/v1/endpoints", json={**body, "name": "other"})).json()
    await handle(application, batch(endpoint, "one"), *history(endpoint))
    await database.execute(
        "insert into rollups values (gen_random_uuid(), $1, now() - interval '1 hour', 10, '{}')", endpoint["id"]
    )
    await database.execute("update endpoints set updated_at = now() - interval '29 days'")
    await upkeep.clean()
    assert (await client.get(f"/v1/endpoints/{endpoint['id']}")).status_code == 200

    await database.execute("update endpoints set updated_at = now() - interval '31 days'")
    await upkeep.clean()

    assert (await client.get(f"/v1/endpoints/{endpoint['id']}")).status_code == 404
    for table in ("endpoint_events", "replicas", "rollups", "log_counts", "log_lines"):
        assert await database.fetchval(f"select count(*) from {table} where endpoint_id = $1", endpoint["id"]) == 0
    assert (await client.get(f"/v1/endpoints/{other['id']}")).status_code == 200  # old, but not terminated
