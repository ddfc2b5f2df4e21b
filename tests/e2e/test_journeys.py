"""What users do with the platform, from the first endpoint to the last, through its public doors only."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import AsyncPenstock
from penstock.async_client import AsyncEndpoint
from penstock.errors import Forbidden, NotFound, Unauthorized
from tests_support.oracle import billed_spans, facts
from tests_support.people import Repositories, command_line
from tests_support.platform import Platform
from tests_support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CODE = """
def predict(x):
    print(f"asked for {{x}}", flush=True)
    return {{"answer": x * {factor}}}
"""
ROUTE = {"path": "/predict", "file": "predict", "function": "predict", "body": [{"name": "x", "type": "int"}]}


class User:
    """Somebody with a client and repositories."""

    def __init__(self, client: AsyncPenstock, repositories: Repositories) -> None:
        self.client = client
        self._repositories = repositories
        self.repository = repositories.make({"predict.py": CODE.format(factor=2)})

    def push(self, factor: int) -> str:
        """A new commit, whose model multiplies by another factor."""
        return self._repositories.commit(self.repository, {"predict.py": CODE.format(factor=factor)})

    async def create(self, name: str, **options: Any) -> AsyncEndpoint:
        made: AsyncEndpoint = await self.client.endpoints.create(
            name=name, git_uri=self.repository, routes=[ROUTE], **options
        )
        return made

    async def run(self, name: str, **options: Any) -> AsyncEndpoint:
        endpoint = await self.create(name, **options)
        await endpoint.wait(timeout_s=60)
        return endpoint


@pytest.fixture
def user(client: AsyncPenstock, repositories: Repositories) -> User:
    return User(client, repositories)


@pytest.fixture
async def other_key(client: AsyncPenstock, tmp_path: Path) -> str:
    """The key of another organization's owner."""
    made = await client.admin.organizations.create(f"Other {tmp_path.name}", owner_email="owner@other.example")
    return made.api_key.key


async def free(client: AsyncPenstock, gpu_type: str) -> int:
    return next(gpu.free for gpu in (await client.gpus.list()).gpus if gpu.type == gpu_type)


async def test_an_endpoint_takes_gpus_and_the_next_waits_until_they_are_free(
    user: User, running_platform: Platform
) -> None:
    first = await user.run("First", gpu_type="RTX 4090", gpu_count=4)
    assert await free(user.client, "RTX 4090") == 0
    assert len(set(first.replicas[0].gpu_uuids)) == 4
    assert await first.predict("/predict", x=3) == {"answer": 6}

    forecast = await user.client.endpoints.create(
        name="Second", git_uri=user.repository, routes=[ROUTE], gpu_type="RTX 4090", dry_run=True
    )
    assert not forecast.starts_now
    assert forecast.position == 1
    assert "needs 1 × RTX 4090 on one host; none is free, 4 are in use" in forecast.reason

    second = await user.create("Second", gpu_type="RTX 4090")
    third = await user.create("Third", gpu_type="RTX 4090", gpu_count=2)

    async def in_line() -> bool:
        for position, endpoint in enumerate((second, third), 1):
            await endpoint.refresh()
            assert (endpoint.state, endpoint.position) == ("queued", position)
            assert "first in line" in endpoint.reason or "second in line" in endpoint.reason
            assert "none is free, 4 are in use" in endpoint.reason
        return True

    await eventually(in_line)
    await first.stop()
    await asyncio.gather(second.wait(timeout_s=60), third.wait(timeout_s=60))
    assert await free(user.client, "RTX 4090") == 1
    assert not set(second.replicas[0].gpu_uuids) & set(third.replicas[0].gpu_uuids)
    await nobody_paid_for_waiting(running_platform, second, third)


async def nobody_paid_for_waiting(platform: Platform, *endpoints: AsyncEndpoint) -> None:
    """The bill begins when the replica became ready, not when the endpoint was asked for."""
    for endpoint in endpoints:
        ready = endpoint.replicas[0].ready_at
        assert ready is not None
        assert (ready - endpoint.created_at).total_seconds() > 0.5
        usage = await endpoint.usage()
        billed_s = usage.rows[0].replica_s
        assert 0 < billed_s <= (usage.as_of - ready).total_seconds() + 0.001


async def test_a_dry_run_says_what_would_happen_and_makes_nothing(user: User) -> None:
    commit = user.push(7)
    forecast = await user.client.endpoints.create(
        name="Perhaps One", git_uri=user.repository, routes=[ROUTE], gpu_type="A100 80GB", dry_run=True
    )
    price = next(gpu.price_micros_per_hour for gpu in (await user.client.gpus.list()).gpus if gpu.type == "A100 80GB")
    assert forecast.starts_now
    assert forecast.price_micros_per_hour == price
    assert forecast.source is not None
    assert forecast.source.commit == commit
    assert forecast.url.endswith("/e/default/perhaps-one")
    assert [endpoint.name async for endpoint in user.client.endpoints.list()] == []
    assert await free(user.client, "A100 80GB") == 1


async def test_a_stopped_endpoint_restarts_from_the_same_commit(user: User) -> None:
    commit = user.push(3)
    endpoint = await user.run("Pinned")
    user.push(100)
    assert await endpoint.predict("/predict", x=5) == {"answer": 15}

    await endpoint.stop()
    await endpoint.wait("stopped", timeout_s=30)
    stopped = await endpoint.usage()
    assert endpoint.replicas == ()
    assert stopped.running_replicas == 0

    await endpoint.restart()
    await endpoint.wait(timeout_s=60)
    assert endpoint.source is not None
    assert endpoint.source.commit == commit
    assert await endpoint.predict("/predict", x=5) == {"answer": 15}
    assert (await endpoint.usage()).total_cost_micros >= stopped.total_cost_micros

    await endpoint.terminate()
    await endpoint.wait("terminated", timeout_s=30)
    with pytest.raises(NotFound):
        await endpoint.predict("/predict", x=5)
    phases = [event.phase async for event in endpoint.events()]
    expected = ["queued", "scheduled", "fetching source", "installing", "starting", "running", "stopping", "stopped"]
    assert [phase for phase in dict.fromkeys(phases) if phase in expected] == expected
    assert phases[-1] == "terminated"


async def test_logs_are_newest_first_page_by_page_and_live(user: User, running_platform: Platform) -> None:
    endpoint = await user.run("Talkative")
    said = [f"asked for {x}" for x in range(7)]
    live = endpoint.logs(follow=True)
    async with asyncio.timeout(20):
        for x in range(7):
            await endpoint.predict("/predict", x=x)
            # It is there before the next is asked for; what the model server prints itself may come between.
            while not (line := await anext(live)).text.startswith("asked"):
                pass
            assert line.text == said[x]

    pages: list[str] = []
    cursor: str | None = ""
    headers = headers_with(running_platform.api_key)
    async with httpx.AsyncClient(base_url=running_platform.api_url, headers=headers) as http:
        while cursor is not None:
            query = {"limit": "3", "cursor": cursor} if cursor else {"limit": "3"}
            page = (await http.get(f"/v1/endpoints/{endpoint.id}/logs", params=query)).json()
            assert 0 < len(page["items"]) <= 3
            pages += [item["text"] for item in page["items"]]
            cursor = page["next_cursor"]
    assert [text for text in pages if text.startswith("asked")] == said[::-1]


def headers_with(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_stream_arrives_piece_by_piece(client: AsyncPenstock, running_platform: Platform) -> None:
    endpoint = await client.endpoints.create(
        name="Stream",
        git_uri=running_platform.repository("slow-echo"),
        routes=running_platform.routes("slow-echo"),
    )
    await endpoint.wait(timeout_s=60)
    clock = asyncio.get_running_loop().time
    parts = endpoint.stream("/echo/stream", message="tick", seconds=0.4, times=3)
    seen = [(part["number"], clock()) async for part in parts]
    assert [number for number, _ in seen] == [1, 2, 3]
    assert seen[2][1] - seen[0][1] > 0.6, "the parts came together, at the end"


async def test_usage_adds_up_however_it_is_grouped(user: User, running_platform: Platform) -> None:
    on_gpu = await user.run("On GPU", gpu_type="A100 80GB")
    on_cpu = await user.run("On CPU")
    for endpoint in (on_gpu, on_cpu):
        await endpoint.stop()
        await endpoint.wait("stopped", timeout_s=30)

    async def settled() -> bool:
        return (await user.client.usage()).running_replicas == 0

    await eventually(settled)
    for groups in ([], ["endpoint"], ["day"], ["gpu_type"], ["endpoint", "day", "gpu_type"]):
        usage = await user.client.usage(group_by=groups)
        assert sum(row.cost_micros for row in usage.rows) == usage.total_cost_micros
    total = usage.total_cost_micros
    assert (await user.client.usage(group_by=["day"])).total_cost_micros == total
    by_type = {row.gpu_type: row for row in (await on_gpu.usage()).rows}
    assert set(by_type) == {"A100 80GB"}
    assert by_type["A100 80GB"].gpu_s == by_type["A100 80GB"].replica_s > 0
    assert {row.gpu_type for row in (await on_cpu.usage()).rows} == {"CPU"}
    admin = await running_platform.nats_admin()
    spans = billed_spans(await facts(admin), on_gpu.id)
    await admin.close()
    assert by_type["A100 80GB"].replica_s == pytest.approx(sum(end - begin for begin, end in spans.values()), abs=0.001)


async def test_a_key_may_do_what_its_scopes_say_and_nothing_once_revoked(
    user: User, running_platform: Platform
) -> None:
    endpoint = await user.run("Guarded")
    reader = await user.client.api_keys.create("reader", scopes=["endpoints:read"])
    caller = await user.client.api_keys.create("caller", scopes=["endpoints:invoke"])
    async with running_platform.client(reader.key) as reading, running_platform.client(caller.key) as calling:
        assert (await reading.endpoints.get(endpoint.id)).id == endpoint.id
        with pytest.raises(Forbidden, match="endpoints:write"):
            await reading.endpoints.stop(endpoint.id)
        with pytest.raises(Forbidden, match="endpoints:read"):
            await calling.endpoints.get(endpoint.id)

    async def answer(key: str) -> int:
        async with httpx.AsyncClient() as http:
            headers = headers_with(key) if key else {}
            return (await http.post(f"{endpoint.url}/predict", json={"x": 1}, headers=headers)).status_code

    async def known() -> bool:
        return await answer(caller.key) == 200

    await eventually(known, deadline_s=1)
    assert await answer(reader.key) == 403
    assert await answer("") == 401
    assert await answer("psk_" + "0" * 36) == 401

    await user.client.api_keys.revoke(caller.id)

    async def refused() -> bool:
        return await answer(caller.key) == 401

    await eventually(refused, deadline_s=1)
    async with running_platform.client(caller.key) as calling:
        with pytest.raises(Unauthorized):
            await calling.me()


async def test_a_public_endpoint_needs_no_key(user: User) -> None:
    endpoint = await user.run("Open", public=True)
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{endpoint.url}/predict", json={"x": 4})
        assert (answer.status_code, answer.json()) == (200, {"answer": 8})
        by_name = await http.post(
            endpoint.url.split("/e/")[0] + "/predict", json={"x": 4}, headers={"Host": "open.default.localhost"}
        )
        assert by_name.json() == {"answer": 8}
        wrong = await http.post(f"{endpoint.url}/predict", json={"x": "four", "y": 1})
    assert wrong.status_code == 422
    assert {error["field"] for error in wrong.json()["errors"]} == {"x", "y"}


async def test_one_name_in_two_workspaces(user: User) -> None:
    await user.client.workspaces.create("research")
    here = await user.run("Twin")
    there = await user.run("Twin", workspace="research")
    assert here.url != there.url
    assert there.url.endswith("/e/research/twin")
    assert await there.predict("/predict", x=1) == {"answer": 2}
    assert [endpoint.id async for endpoint in user.client.endpoints.list(workspace="research")] == [there.id]
    assert (await user.client.endpoints.get("research/twin")).id == there.id
    await there.terminate()
    await there.wait("terminated", timeout_s=30)
    await user.client.workspaces.delete("research")
    assert await here.predict("/predict", x=1) == {"answer": 2}


async def test_another_organization_sees_nothing(user: User, other_key: str, running_platform: Platform) -> None:
    endpoint = await user.run("Ours")
    async with running_platform.client(other_key) as other:
        assert [found.id async for found in other.endpoints.list()] == []
        for call in (other.endpoints.get, other.endpoints.stop, other.endpoints.restart, other.endpoints.terminate):
            with pytest.raises(NotFound):
                await call(endpoint.id)
        with pytest.raises(Forbidden):
            await other.admin.hosts()
    async with httpx.AsyncClient(headers=headers_with(other_key)) as http:
        for path in ("events", "logs", "usage"):
            answer = await http.get(f"{running_platform.api_url}/v1/endpoints/{endpoint.id}/{path}")
            assert answer.status_code == 404

        async def hidden() -> bool:
            return (await http.post(f"{endpoint.url}/predict", json={"x": 1})).status_code == 404

        # Until its key has reached the gateway the answer is 401.
        await eventually(hidden, deadline_s=2)
    await endpoint.refresh()
    assert endpoint.state == "running"


async def test_the_command_line_creates_shows_and_ends(user: User, running_platform: Platform) -> None:
    made = await command_line(
        running_platform,
        *("endpoint", "create", "--git-uri", user.repository, "--route", json.dumps(ROUTE)),
        *("--gpu-type", "RTX 4090", "--timeout", "60s", "--json", "From The Shell"),
    )
    assert made.code == 0, made.err
    endpoint = json.loads(made.out)
    assert (endpoint["state"], endpoint["slug"]) == ("running", "from-the-shell")

    listed = await command_line(running_platform, "endpoint", "list", "--json")
    assert [item["id"] for item in json.loads(listed.out)] == [endpoint["id"]]
    ended = await command_line(running_platform, "endpoint", "terminate", "from-the-shell", "--json")
    assert ended.code == 0, ended.err


async def test_the_command_lines_exit_codes(user: User, running_platform: Platform, repositories: Repositories) -> None:
    missing = await command_line(running_platform, "endpoint", "show", "no-such-endpoint", "--json")
    assert missing.code == 3
    assert "no-such-endpoint" in missing.err

    create = ("endpoint", "create", "--git-uri")
    wrong = await command_line(
        running_platform, *create, user.repository, "--route", json.dumps({**ROUTE, "function": "predikt"}), "Wrong"
    )
    assert wrong.code == 2
    assert "routes.0.function" in wrong.err
    assert "did you mean predict?" in wrong.err

    broken = repositories.make({"predict.py": "def predict(x):\n    return x\n\nraise OSError('no')\n"}, name="broken")
    failed = await command_line(running_platform, *create, broken, "--route", json.dumps(ROUTE), "Broken")
    assert failed.code == 7
    assert "importing predict.py raised OSError: no" in failed.err
