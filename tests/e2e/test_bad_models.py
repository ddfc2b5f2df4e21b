"""Models that cannot run, or misbehave while they do: the reason names cause and mend, and nothing is left of them."""

import textwrap
from functools import partial

import pytest

from penstock import AsyncPenstock
from penstock.async_client import AsyncEndpoint
from penstock.errors import ApiError, EndpointFailed, ModelError
from tests_support.oracle import billed_spans, facts
from tests_support.people import Repositories, nothing_runs
from tests_support.platform import Platform
from tests_support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ROUTE = {"path": "/predict", "file": "predict", "function": "predict", "body": []}


class Models:
    """Deploys models that each are one file with a function `predict`, on a GPU."""

    def __init__(self, client: AsyncPenstock, platform: Platform, repositories: Repositories) -> None:
        self._client = client
        self._platform = platform
        self._repositories = repositories

    async def deploy(self, code: str) -> AsyncEndpoint:
        repository = self._repositories.make({"predict.py": textwrap.dedent(code)})
        return await self._client.endpoints.create(
            name="Bad Model", git_uri=repository, routes=[ROUTE], gpu_type="A100 80GB"
        )

    async def fails(self, endpoint: AsyncEndpoint) -> str:
        """Wait until it is failed; returns the reason, having checked that nothing is left of it."""

        async def has_failed() -> bool:
            return (await endpoint.refresh()).state == "failed"

        await eventually(has_failed, deadline_s=60)
        with pytest.raises(EndpointFailed) as raised:
            await endpoint.wait()
        await eventually(lambda: nothing_runs(self._client, self._platform))
        return raised.value.reason


@pytest.fixture
def models(client: AsyncPenstock, running_platform: Platform, repositories: Repositories) -> Models:
    return Models(client, running_platform, repositories)


@pytest.mark.parametrize(
    ("code", "cause", "mend"),
    [
        (
            "WEIGHTS = open('weights.bin')\n\ndef predict():\n    return 1\n",
            "importing predict.py raised FileNotFoundError: .*weights.bin.* (predict.py line 1)",
            "mend the code there, or the data or package that it needs",
        ),
        (
            "import torch_of_nobody\n\ndef predict():\n    return 1\n",
            "raised ModuleNotFoundError",
            "add the package that provides torch_of_nobody to requirements.txt",
        ),
        (
            "import sys\n\ndef predict():\n    return 1\n\nsys.exit(7)\n",
            "importing predict.py called exit with 7",
            "move what only a script does under if __name__ == '__main__'",
        ),
        (
            "import os\n\ndef predict():\n    return 1\n\nprint('the last words')\nos._exit(9)\n",
            "ended by itself with exit code 9 before it was ready",
            "its last output: the last words",
        ),
    ],
    ids=["raises", "misses a package", "calls sys.exit", "calls os._exit"],
)
async def test_a_model_that_fails_while_it_is_imported(models: Models, code: str, cause: str, mend: str) -> None:
    endpoint = await models.deploy(code)
    reason = await models.fails(endpoint)
    assert "3 times in a row" in reason
    assert "the model could not be loaded" in reason
    for part in (*cause.split(".*"), mend):
        assert part in reason, reason
    assert endpoint.log_tail
    assert (await endpoint.usage()).total_cost_micros == 0


async def test_a_model_that_hangs_while_it_is_imported(models: Models) -> None:
    code = """
    import threading

    def predict():
        return 1

    print("downloading the weights")
    threading.Event().wait()
    """
    endpoint = await models.deploy(code)
    reason = await models.fails(endpoint)
    assert "the model was not ready in time" in reason
    assert "it may hang while it loads, or need longer; its last output: downloading the weights" in reason
    assert "Load less when the file is imported" in reason
    assert (await endpoint.usage()).total_cost_micros == 0


async def test_a_model_whose_server_never_opens_its_port(models: Models) -> None:
    code = """
    import os
    import socket

    def predict():
        return 1

    # The server comes to listen somewhere else than where it is looked for.
    elsewhere = socket.create_server(("127.0.0.1", 0))
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            listens = socket.socket(fileno=os.dup(fd)).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            continue
        if listens and fd != elsewhere.fileno():
            os.dup2(elsewhere.fileno(), fd)
    print("listening elsewhere")
    """
    endpoint = await models.deploy(code)
    reason = await models.fails(endpoint)
    assert "the model was not ready in time" in reason
    assert (await endpoint.usage()).total_cost_micros == 0


async def test_a_model_that_prints_binary(models: Models) -> None:
    code = r"""
    import os

    def predict():
        os.write(1, b"\x00\x01\xff\xfe\x1b[31m" + bytes(range(256)) + b"\n" + b"x" * 100_000 + b"\nafter\n")
        return {"printed": True}
    """
    endpoint = await models.deploy(code)
    await endpoint.wait(timeout_s=60)
    assert await endpoint.predict("/predict") == {"printed": True}

    async def printed() -> list[str]:
        lines = [line.text async for line in endpoint.logs(limit=50)]
        assert "after" in lines
        return lines

    lines = await eventually(printed)
    assert not any("\0" in line for line in lines)
    assert max(map(len, lines)) > 10_000
    await endpoint.refresh()
    assert endpoint.state == "running"
    assert endpoint.replicas[0].generation == 1


async def test_a_model_that_exits_while_running_is_restarted_and_then_given_up(
    models: Models, running_platform: Platform
) -> None:
    code = """
    import os

    def predict():
        print("dividing by nothing", flush=True)
        os._exit(11)
    """
    endpoint = await models.deploy(code)
    for generation in (1, 2, 3):
        await eventually(partial(runs_as, endpoint, generation), deadline_s=30)
        with pytest.raises(ApiError) as raised:
            await endpoint.predict("/predict")
        assert raised.value.status == 502
    reason = await models.fails(endpoint)
    assert "It failed 3 times in a row" in reason
    assert "the model's process ended by itself" in reason
    assert "exit code 11" in reason
    assert "its last output: dividing by nothing" in reason
    assert "mend the code and create the endpoint again" in reason
    assert "dividing by nothing" in (endpoint.log_tail or "")
    admin = await running_platform.nats_admin()
    assert len(billed_spans(await facts(admin), endpoint.id)) == 3
    await admin.close()


async def runs_as(endpoint: AsyncEndpoint, generation: int) -> bool:
    await endpoint.refresh()
    return endpoint.state == "running" and [replica.generation for replica in endpoint.replicas] == [generation]


async def test_a_model_that_raises_in_its_handler_lives_on(models: Models) -> None:
    code = """
    def predict():
        raise ValueError("no such flower")
    """
    endpoint = await models.deploy(code)
    await endpoint.wait(timeout_s=60)
    for _ in range(3):
        with pytest.raises(ModelError, match="ValueError: no such flower") as raised:
            await endpoint.predict("/predict")
        assert raised.value.status == 500
    assert await runs_as(endpoint, 1)

    async def traceback() -> bool:
        lines = [line.text async for line in endpoint.logs(limit=50)]
        return any("predict.py" in line for line in lines) and "ValueError: no such flower" in lines

    await eventually(traceback)
