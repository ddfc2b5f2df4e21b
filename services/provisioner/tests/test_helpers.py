"""Other programs are run within bounds, and never left behind."""

import asyncio
import os
from pathlib import Path

import pytest

from penstock_provisioner.drivers.process import procfs
from penstock_provisioner.helpers import HelperFailed, Helpers
from tests_support import eventually

PATH = {"PATH": os.environ["PATH"]}


def marked(mark: str) -> list[int]:
    return [pid for pid in procfs.pids() if procfs.environment(pid).get("TEST_MARK") == mark]


async def test_a_program_gets_its_input_and_gives_its_output(tmp_path: Path) -> None:
    script = 'cat; pwd; echo "$TEST_MARK" >&2; exit 3'
    done = await Helpers({"TEST_MARK": "m"}).run(
        ["sh", "-c", script], cwd=tmp_path, env=PATH, timeout_s=10, stdin=b"hello\n"
    )
    assert (done.code, done.stdout.decode(), done.stderr) == (3, f"hello\n{tmp_path}\n", "m\n")


async def test_a_program_sees_only_the_environment_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_NATS_PASSWORD", "secret")
    done = await Helpers({}).run(["env"], cwd=tmp_path, env=PATH, timeout_s=10)
    assert b"secret" not in done.stdout


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("sleep 600 & sleep 600", r"took longer than 0\.3 s"),
        ("trap '' TERM; while :; do sleep 0.05; done", r"took longer than 0\.3 s"),
        ("sleep 600 & yes", "wrote more than 10000 bytes"),
        ("sleep 600 & yes >&2", "wrote more than 10000 bytes"),
    ],
)
async def test_a_program_that_goes_too_far_is_ended_with_all_it_started(tmp_path: Path, script: str, says: str) -> None:
    timeout_s = 0.3 if "longer" in says else 30
    mark = str(tmp_path)
    with pytest.raises(HelperFailed, match=says):
        await Helpers({"TEST_MARK": mark}).run(
            ["sh", "-c", script], cwd=tmp_path, env=PATH, timeout_s=timeout_s, output_bytes_max=10_000
        )
    await eventually(lambda: not marked(mark))


async def test_too_much_output_in_no_time_is_noticed_too(tmp_path: Path) -> None:
    with pytest.raises(HelperFailed, match="wrote more than 1000 bytes"):
        await Helpers({}).run(
            ["head", "-c", "2000", "/dev/zero"], cwd=tmp_path, env=PATH, timeout_s=30, output_bytes_max=1000
        )


async def test_what_a_program_leaves_in_its_group_is_ended(tmp_path: Path) -> None:
    mark = str(tmp_path)
    await Helpers({"TEST_MARK": mark}).run(["sh", "-c", "sleep 600 &"], cwd=tmp_path, env=PATH, timeout_s=10)
    await eventually(lambda: not marked(mark))


async def test_a_cancelled_program_is_ended(tmp_path: Path) -> None:
    mark = str(tmp_path)
    helpers = Helpers({"TEST_MARK": mark})
    task = asyncio.create_task(helpers.run(["sleep", "600"], cwd=tmp_path, env=PATH, timeout_s=600))
    await eventually(lambda: marked(mark))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert marked(mark) == []


async def test_a_guard_can_end_a_program(tmp_path: Path) -> None:
    async def guard() -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        await Helpers({}).run(["sleep", "600"], cwd=tmp_path, env=PATH, timeout_s=30, guard=guard)
