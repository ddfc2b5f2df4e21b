"""Requests that are answered later, on the running platform."""

from typing import Any

import httpx
import pytest

from penstock import AsyncPenstock
from tests_support.platform import Platform
from tests_support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


async def test_a_request_at_a_sleeping_endpoint_is_kept_runs_and_its_answer_is_there(
    client: AsyncPenstock, running_platform: Platform
) -> None:
    endpoint = await client.endpoints.create(
        name="Later",
        git_uri=running_platform.repository("slow-echo"),
        routes=running_platform.routes("slow-echo"),
        min_replicas=0,
        idle_timeout_s=1,
    )
    await endpoint.wait("idle", timeout_s=60)
    headers = {"Authorization": f"Bearer {running_platform.api_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        answer = await http.post(
            f"{endpoint.url}/echo", json={"message": "later", "seconds": 0.1}, headers={"Prefer": "respond-async"}
        )
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
        status_url = httpx.URL(endpoint.url).join(answer.headers["Location"])

        async def succeeded() -> bool:
            status: dict[str, Any] = (await http.get(status_url)).json()
            return bool(status["state"] == "succeeded")

        await eventually(succeeded, deadline_s=60)
        result = await http.get(f"{status_url}/result")
        assert (result.status_code, result.json()["message"]) == (200, "later")
        assert (await http.get(status_url, headers={"Authorization": "Bearer psk_unknown"})).status_code == 401
    await endpoint.terminate()
