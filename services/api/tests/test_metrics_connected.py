"""From what gateways publish to what users read, on real servers; and how it is kept."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from penstock_api.app import Application, build
from penstock_api.domain.windows import aligned
from penstock_api.rollups import Rollups
from penstock_api.settings import ApiSettings
from penstock_common.contracts.statistics import STATISTICS, EndpointStatistics, bucket_of, statistics_subject, upper_us
from penstock_common.ids import ENDPOINT, new_id
from tests_support import eventually, running

pytestmark = pytest.mark.connected

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(make_settings: Any) -> ApiSettings:
    """Metrics are written at once."""
    found: ApiSettings = make_settings("api", ApiSettings, api_port=0, metrics_write_s=0.05)
    return found


def told(endpoint: dict[str, Any], **fields: Any) -> EndpointStatistics:
    common = {"gateway_id": "gw_1", "endpoint_id": endpoint["id"], "organization_id": endpoint["organization_id"]}
    return EndpointStatistics(**{**common, "at": AT, "interval_s": 1.0, **fields})


async def publish(others: Any, endpoint: dict[str, Any], **fields: Any) -> None:
    message = told(endpoint, **fields)
    await others.client.publish(statistics_subject(endpoint["id"]), message.model_dump_json().encode())
    await others.client.flush()


async def metrics(client: httpx.AsyncClient, endpoint: dict[str, Any], **parameters: str) -> Any:
    answer = await client.get(f"/v1/endpoints/{endpoint['id']}/metrics", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def counted(client: httpx.AsyncClient, endpoint: dict[str, Any], requests: int) -> Any:
    async def all_there() -> Any:
        found = await metrics(client, endpoint)
        assert found["total"]["requests"] == requests
        return found

    return await eventually(all_there)


async def test_what_gateways_count_is_shown(client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any) -> None:
    fast, slow = bucket_of(10_000), bucket_of(900_000)
    await publish(
        others,
        endpoint,
        statuses={200: 98, 499: 1},
        latency={fast: 99},
        queue_wait={bucket_of(100): 99},
        prompt_tokens=500,
        completion_tokens=50,
        in_flight=2,
        replicas=1,
        desired_replicas=3,
    )
    await publish(others, endpoint, statuses={503: 1}, latency={slow: 1}, cold_starts=1, queued=4, replicas=2)
    # What makes no sense, or comes in another's name, is passed over.
    subject = statistics_subject(endpoint["id"])
    for payload in (b"{", told({**endpoint, "id": new_id(ENDPOINT)}, statuses={200: 7}).model_dump_json().encode()):
        await others.client.publish(subject, payload)

    found = await counted(client, endpoint, 100)

    assert (found["endpoint_id"], found["step_s"], len(found["points"])) == (endpoint["id"], 30, 120)
    total = found["total"]
    assert total["statuses"] == {"2xx": 98, "3xx": 0, "4xx": 0, "499": 1, "5xx": 1}
    assert total["latency_ms"] == {
        "p50": upper_us(fast) / 1000,
        "p90": upper_us(fast) / 1000,
        "p99": upper_us(fast) / 1000,
    }
    assert (total["first_token_ms"], total["cold_starts"]) == (None, 1)
    assert (total["in_flight"], total["in_flight_max"], total["queue_length_max"]) == (1.0, 2, 4)
    assert (total["ready_replicas"], total["desired_replicas"]) == (2, 0)
    assert total["completion_tokens_per_s"] > 0
    assert sum(point["requests"] for point in found["points"]) == 100
    quiet = found["points"][0]
    assert (quiet["requests"], quiet["latency_ms"], quiet["in_flight"]) == (0, None, None)
    assert [point["at"] for point in found["points"]] == sorted(point["at"] for point in found["points"])


async def test_a_wrong_window_is_a_problem(client: httpx.AsyncClient, endpoint: dict[str, Any]) -> None:
    path = f"/v1/endpoints/{endpoint['id']}/metrics"
    for parameters, field in (
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-03-01T00:00:00"}, "from"),
        ({"step": "7s"}, "step"),
        ({"step": "1" * 20}, "step"),
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
    ):
        answer = await client.get(path, params=parameters)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await client.get(f"/v1/endpoints/{new_id(ENDPOINT)}/metrics")).status_code == 404


def listens(application: Application) -> bool:
    return any(subscription.subject == STATISTICS for subscription in application.service.nats._subs.values())


async def test_several_processes_count_each_message_once(
    settings: ApiSettings, application: Application, client: httpx.AsyncClient, endpoint: dict[str, Any], others: Any
) -> None:
    second = build(settings)
    async with running(second.service):
        await eventually(lambda: all(listens(one) for one in (application, second)))
        await asyncio.gather(*(publish(others, endpoint, statuses={200: 1}) for _ in range(50)))
    # The one that left wrote all that it had.
    await counted(client, endpoint, 50)


# --- keeping --------------------------------------------------------------------------------


def rollups(application: Application, *, held_max: int = 100) -> Rollups:
    service = application.service
    return Rollups(lambda: service.nats, service, step_s=10, write_every_s=1, held_max=held_max)


async def rows(database: Any) -> list[tuple[str, int, int]]:
    return [
        (row["at"].strftime("%H:%M:%S"), row["step_s"], row["requests"])
        for row in await database.fetch(
            "select at, step_s, coalesce((tally -> 'statuses' ->> '200')::int, 0) as requests from rollups order by at"
        )
    ]


async def test_a_row_is_overwritten_until_its_time_is_over(
    application: Application, endpoint: dict[str, Any], database: Any
) -> None:
    kept = rollups(application)
    one = told(endpoint, statuses={200: 1})

    kept.count(one, AT + timedelta(seconds=1))
    assert await kept.write(AT + timedelta(seconds=2)) == 1
    kept.count(one, AT + timedelta(seconds=9))
    assert await kept.write(AT + timedelta(seconds=9)) == 1
    assert await kept.write(AT + timedelta(seconds=9)) == 0
    assert await rows(database) == [("12:00:00", 10, 2)]
    kept.count(one, AT + timedelta(seconds=10))
    assert await kept.write(AT + timedelta(seconds=21)) == 1

    assert await rows(database) == [("12:00:00", 10, 2), ("12:00:10", 10, 1)]
    assert (kept._held, kept._written) == ({}, {})
    # A clock that was set back costs nothing: rows of the same time add up.
    kept.count(one, AT + timedelta(seconds=3))
    await kept.write(AT + timedelta(seconds=21))
    assert [row[2] for row in await rows(database)] in ([2, 1, 1], [1, 2, 1])


async def test_rows_of_unknown_endpoints_are_left_out_and_keep_no_others_back(
    application: Application, endpoint: dict[str, Any], database: Any
) -> None:
    kept = rollups(application)
    for each in ({**endpoint, "id": new_id(ENDPOINT)}, endpoint):
        kept.count(told(each, statuses={200: 3}), AT)

    await kept.write(AT)

    assert await rows(database) == [("12:00:00", 10, 3)]


async def test_memory_is_bounded_while_nothing_can_be_written(
    application: Application, endpoint: dict[str, Any], database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kept = rollups(application, held_max=3)
    for second in range(0, 100, 10):
        kept.count(told(endpoint, statuses={200: 1}), AT + timedelta(seconds=second))

    assert len(kept._held) == 3
    await kept.write(AT + timedelta(seconds=200))
    assert [row[0] for row in await rows(database)] == ["12:01:10", "12:01:20", "12:01:30"]
    assert (kept._held, kept._written) == ({}, {})
    assert "some were dropped" in caplog.text


async def test_old_rows_become_minutes_then_hours_and_then_go(
    application: Application, endpoint: dict[str, Any], database: Any, client: httpx.AsyncClient
) -> None:
    now = datetime.now(UTC)
    hour = aligned(now, timedelta(hours=1))
    minute = aligned(now, timedelta(minutes=1)) - timedelta(hours=3)
    kept = rollups(application)
    for at in (
        hour - timedelta(days=100),
        hour - timedelta(days=60),
        hour - timedelta(days=60, minutes=-30),
        minute,
        minute + timedelta(seconds=20),
        minute + timedelta(seconds=50),
        now,
    ):
        kept.count(told(endpoint, statuses={200: 1}, latency={bucket_of(7): 1}), at)
    await kept.write(now)

    # What one round makes minutes of, the next makes hours of.
    for _ in range(3):
        await application.upkeep.clean()

    found = await database.fetch("select step_s, at, tally from rollups order by at")
    assert [(row["step_s"], row["at"]) for row in found] == [
        (3600, hour - timedelta(days=60)),
        (60, minute),
        (10, aligned(now, timedelta(seconds=10))),
    ]
    whole = await metrics(client, endpoint, **{"from": (now - timedelta(days=70)).isoformat(), "step": "1d"})
    assert (whole["total"]["requests"], whole["total"]["statuses"]["2xx"]) == (6, 6)
    assert whole["total"]["latency_ms"]["p99"] == upper_us(bucket_of(7)) / 1000


async def test_rows_of_before_a_field_was_added_can_be_read(
    client: httpx.AsyncClient, endpoint: dict[str, Any], database: Any
) -> None:
    await database.execute(
        "insert into rollups values (gen_random_uuid(), $1, now() - interval '1 minute', 10,"
        """ '{"statuses": {"200": 2}, "a_field_of_a_newer_version": 1}')""",
        endpoint["id"],
    )

    found = await metrics(client, endpoint)

    assert found["total"]["requests"] == 2
