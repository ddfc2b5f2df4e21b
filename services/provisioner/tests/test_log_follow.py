"""From a growing file to batches, each line once."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from penstock_common.contracts.events import LogBatch
from penstock_provisioner.logs import follow
from penstock_provisioner.logs.follow import BATCH_BYTES_MAX, BATCH_LINES_MAX, LogFollower, LogLimits
from tests_support import eventually

LIMITS = LogLimits(lines_per_s=10_000, lines_burst=100_000, file_bytes_max=1024 * 1024)


class Server:
    """Takes batches as JetStream does: the same message id once."""

    def __init__(self) -> None:
        self.batches: dict[str, LogBatch] = {}
        self.is_away = False
        self.loses_acknowledgements = False

    async def publish(self, batch: LogBatch, message_id: str) -> None:
        if self.is_away:
            raise ConnectionError
        self.batches.setdefault(message_id, batch)
        if self.loses_acknowledgements:
            raise TimeoutError

    @property
    def lines(self) -> list[tuple[int, str]]:
        return [(line.offset, line.text) for batch in self.batches.values() for line in batch.lines]

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.lines]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


def append(output: Path, data: bytes) -> None:
    with output.open("ab") as file:
        file.write(data)


Following = Callable[..., AbstractAsyncContextManager[LogFollower]]


@pytest.fixture
def following(server: Server, output: Path, monkeypatch: pytest.MonkeyPatch) -> Following:
    monkeypatch.setattr(follow, "_TURN_S", 0.01)
    monkeypatch.setattr(follow, "_RETRY_S", 0.02)

    @asynccontextmanager
    async def run(limits: LogLimits = LIMITS) -> AsyncIterator[LogFollower]:
        follower = LogFollower("host-1", limits, server.publish)
        follower.follow("rep_1", "ep_1", output)
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return run


async def test_lines_are_sent_as_they_come_with_their_offsets(
    following: Following, server: Server, output: Path
) -> None:
    async with following():
        append(output, b"one\ntwo\nhal")
        await eventually(lambda: server.lines == [(0, "one"), (4, "two")])
        append(output, b"f\n")
        await eventually(lambda: server.lines[2:] == [(8, "half")])
    (batch,) = list(server.batches.values())[:1]
    assert (batch.host_id, batch.endpoint_id, batch.replica_id) == ("host-1", "ep_1", "rep_1")


async def test_what_was_sent_is_not_sent_again_after_a_restart(
    following: Following, server: Server, output: Path
) -> None:
    append(output, b"one\n")
    async with following():
        await eventually(lambda: server.texts == ["one"])
    append(output, b"two\n")
    server.batches.clear()
    async with following():
        await eventually(lambda: server.texts == ["two"])


async def test_a_batch_in_flight_at_a_crash_arrives_once_and_nothing_after_it_is_lost(
    following: Following, server: Server, output: Path
) -> None:
    append(output, b"one\n")
    server.loses_acknowledgements = True
    async with following():
        await eventually(lambda: server.texts == ["one"])
    append(output, b"two\n")
    server.loses_acknowledgements = False
    async with following():
        await eventually(lambda: len(server.texts) == 2)
    assert server.lines == [(0, "one"), (4, "two")]


async def test_nothing_is_lost_while_the_server_is_away(following: Following, server: Server, output: Path) -> None:
    server.is_away = True
    async with following():
        append(output, b"one\n")
        append(output, b"two\n")
        server.is_away = False
        await eventually(lambda: server.texts == ["one", "two"])


async def test_batches_are_bounded_in_lines_and_in_bytes(following: Following, server: Server, output: Path) -> None:
    append(output, b"x\n" * 1000 + (b"\x00" * 20_000 + b"\n") * 50)
    async with following():
        await eventually(lambda: sum(text.count("\\x00") for text in server.texts) == 50 * 20_000)
    for batch in server.batches.values():
        assert len(batch.lines) <= BATCH_LINES_MAX
        assert len(batch.model_dump_json()) <= BATCH_BYTES_MAX + 1000


async def test_a_flood_is_thinned_and_what_is_left_out_is_said(
    following: Following, server: Server, output: Path
) -> None:
    append(output, b"".join(b"%d\n" % number for number in range(200_000)))
    async with following(LogLimits(lines_per_s=100, lines_burst=50, file_bytes_max=1024 * 1024)):
        await eventually(lambda: any("left out here" in text for text in server.texts))
        append(output, b"last\n")
        await eventually(lambda: "last" in server.texts)
    kept = [text for text in server.texts if text.isdigit()]
    notes = [text for text in server.texts if "left out here" in text]
    assert kept[:50] == [str(number) for number in range(50)]
    assert len(kept) < 1000
    left_out = sum(int(note.split(": ")[1].split()[0]) for note in notes)
    assert left_out + len(kept) == 200_000
    assert len({offset for offset, _ in server.lines}) == len(server.lines)


async def test_a_large_file_is_emptied_when_it_was_sent_and_offsets_go_on(
    following: Following, server: Server, output: Path
) -> None:
    limits = LogLimits(lines_per_s=1e6, lines_burst=1e6, file_bytes_max=10_000)
    append(output, b"x" * 99 + b"\n" * 1)
    async with following(limits):
        for _ in range(150):
            append(output, b"y" * 99 + b"\n")
        await eventually(lambda: len(server.texts) == 151)
        await eventually(lambda: output.stat().st_size == 0)
        append(output, b"after\n")
        await eventually(lambda: server.lines[-1] == (15_100, "after"))
    append(output, b"and after a restart\n")
    async with following(limits):
        await eventually(lambda: server.lines[-1] == (15_106, "and after a restart"))


async def test_a_file_emptied_just_before_a_crash_is_understood(
    following: Following, server: Server, output: Path
) -> None:
    append(output, b"one\ntwo\n")
    async with following():
        await eventually(lambda: len(server.texts) == 2)
    os.truncate(output, 0)
    append(output, b"new\n")
    async with following():
        await eventually(lambda: server.lines[2:] == [(8, "new")])


async def test_output_that_cannot_be_sent_for_too_long_is_given_up_and_said(
    following: Following, server: Server, output: Path
) -> None:
    server.is_away = True
    append(output, b"z" * 99_999 + b"\n")
    async with following(LogLimits(lines_per_s=1000, lines_burst=1000, file_bytes_max=10_000)):
        await eventually(lambda: output.stat().st_size == 0)
        server.is_away = False
        append(output, b"here again\n")
        await eventually(lambda: server.texts[-1:] == ["here again"])
    assert "… left out here: 100000 bytes that could not be sent" in server.texts
    assert server.lines[-1][0] == 100_000


async def test_an_ended_replicas_rest_is_sent_and_its_file_removed(
    following: Following, server: Server, output: Path
) -> None:
    append(output, b"one\nno line end")
    async with following() as follower:
        await eventually(lambda: server.texts == ["one"])
        follower.ended("rep_1")
        await follower.drained()
    assert server.texts == ["one", "no line end"]
    assert os.listdir(output.parent) == []


async def test_a_position_that_cannot_be_read_starts_over(following: Following, server: Server, output: Path) -> None:
    append(output, b"one\n")
    output.with_name("log.json").write_text("{")
    async with following():
        await eventually(lambda: server.texts == ["one"])
    assert json.loads(output.with_name("log.json").read_text())["sent"] == 4
