"""PostgreSQL from its wheel, killed in every way."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from penstock_launcher import postgres
from penstock_launcher.postgres import PostgresError, PostgresServer
from penstock_launcher.processes import hold
from tests_support import eventually
from tests_support.servers import free_port

pytestmark = pytest.mark.connected


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    # Not in pytest's own folder, which PostgreSQL's user may not enter when we are root.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        # Longer than the path of a Unix socket may be.
        server = PostgresServer(Path(folder) / ("long" * 30) / "postgres", port=free_port())
        server.start()
        yield server
        server.stop()


async def query(server: PostgresServer, sql: str) -> object:
    connection = await asyncpg.connect(server.url.rpartition("/")[0] + "/postgres", timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        connection.terminate()


async def test_a_killed_server_starts_again_only_after_its_busy_processes_ended(server: PostgresServer) -> None:
    await query(server, "create table kept as select 7 as number")
    connection = await asyncpg.connect(server.url.rpartition("/")[0] + "/postgres")
    # A process that computes does not look whether its server lives.
    busy = connection.get_server_pid()
    computing = asyncio.create_task(connection.fetchval("select count(*) from generate_series(1, 100000000000)"))
    activity = f"select state = 'active' and wait_event is null from pg_stat_activity where pid = {busy}"
    await eventually(lambda: query(server, activity))
    held = hold(busy)
    assert held is not None
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    assert not held.wait(0)
    server.start()
    assert held.wait(0)
    os.close(held.descriptor)
    assert await query(server, "select number from kept") == 7
    connection.terminate()
    await asyncio.gather(computing, return_exceptions=True)


async def test_it_runs_where_its_user_may_not_reach_the_installed_binaries(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, with the environment below a private home; others reach what they have installed."""
    server.stop()
    monkeypatch.setattr(postgres, "_reachable_by_others", lambda path: False)
    for _ in range(2):
        running = server.start()
        started_from = os.readlink(f"/proc/{running.pid}/exe")
        assert started_from.startswith(str(server.folder)) == (os.geteuid() == 0)
        assert await query(server, "select 1") == 1
        server.stop()


async def test_a_second_server_on_the_same_data_is_refused(server: PostgresServer) -> None:
    second = PostgresServer(server.folder, port=free_port())
    with pytest.raises(PostgresError, match="another PostgreSQL already runs"):
        second.start()
    assert await query(server, "select 1") == 1


async def test_a_stale_number_of_another_program_is_no_obstacle(server: PostgresServer) -> None:
    """After a reboot, the process number in the file may be anybody's."""
    server.stop()
    (server.folder / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    server.start()
    assert await query(server, "select 1") == 1


def test_it_stops_on_the_signal_that_a_dying_parent_sends(server: PostgresServer) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 0
