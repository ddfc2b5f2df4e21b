"""The whole start and stop with real servers, and stand-ins for the services."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from penstock_launcher import platform
from penstock_launcher.environment import SERVICES, inherited
from penstock_launcher.errors import LauncherError
from penstock_launcher.layout import Layout, layout_of, prepare
from penstock_launcher.options import UpOptions
from penstock_launcher.platform import Platform
from penstock_launcher.processes import hold, sweep
from penstock_launcher.supervisor import chosen_state
from tests_support import eventually

pytestmark = pytest.mark.connected

STAND_IN = Path(__file__).with_name("stand_in.py")
Behave = Callable[..., None]


@pytest.fixture
def layout() -> Iterator[Layout]:
    # Not in pytest's own folder, which PostgreSQL's user may not enter when we are root.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        layout = layout_of(Path(folder) / "data")
        prepare(layout, own_postgres=True)
        yield layout
        sweep(layout.root, grace_s=0)


@pytest.fixture
def behave(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Puts stand-ins in the place of the services: each serves, unless it is told otherwise."""
    real = platform._python

    def choose(**behaviours: str) -> None:
        def python(module: str, *arguments: str) -> list[str]:
            service = module.removeprefix("penstock_")
            if service not in SERVICES:
                return real(module, *arguments)
            if arguments:
                return [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write('psk_made')", *arguments[4:]]
            return [sys.executable, str(STAND_IN), service, str(layout.root), behaviours.get(service, "serve")]

        monkeypatch.setattr(platform, "_python", python)

    choose()
    return choose


def made(layout: Layout, steps: list[str], options: UpOptions | None = None) -> Platform:
    options = options or UpOptions()
    state = chosen_state(layout, options)
    base = inherited(os.environ, layout)
    return Platform(layout, state, options, base, changed=lambda: None, step=steps.append)


def notes(layout: Layout, what: str) -> list[str]:
    lines = [line.split() for line in (layout.root / "notes").read_text().splitlines()]
    return [service for service, said in lines if said == what]


@pytest.mark.usefixtures("behave")
async def test_everything_starts_and_stops_in_order_and_nothing_is_left(layout: Layout) -> None:
    steps: list[str] = []
    whole = made(layout, steps)
    await whole.start()
    assert {name: program.state for name, program in whole.programs.items()} == dict.fromkeys(
        ("nats", "postgres", *SERVICES), "ready"
    )
    pids = [program.pid for program in whole.programs.values()]
    await whole.stop()
    stopped = notes(layout, "stopped")
    assert stopped[:2] == ["provisioner", "scheduler"]
    assert sorted(stopped) == sorted(SERVICES)
    assert [hold(pid) for pid in pids if pid is not None] == [None] * len(pids)
    assert sweep(layout.root, grace_s=0) == 0


@pytest.mark.usefixtures("behave")
async def test_killed_servers_are_started_again_on_their_ports(layout: Layout) -> None:
    whole = made(layout, [])
    await whole.start()
    for name in ("nats", "postgres"):
        server = whole.programs[name]
        before = server.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: server.exits and server.state == "ready" and server.pid != before, 30)  # noqa: B023
    await whole.stop()


async def test_a_service_that_keeps_ending_fails_the_start_with_its_log(layout: Layout, behave: Behave) -> None:
    behave(billing="die")
    whole = made(layout, [])
    with pytest.raises(LauncherError, match="billing ended 3 times while starting") as caught:
        await whole.start()
    await whole.stop()
    assert "the moon is full" in caught.value.log_tail
    assert caught.value.log_path == layout.log("billing")
    assert sweep(layout.root, grace_s=0) == 0


async def test_a_service_that_never_becomes_ready_fails_the_start(
    layout: Layout, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "READY_WAIT_S", 2.0)
    behave(api="never-ready")
    whole = made(layout, [])
    with pytest.raises(LauncherError, match="api was not ready after 2 s") as caught:
        await whole.start()
    await whole.stop()
    assert caught.value.log_path == layout.log("api")


async def test_the_start_is_not_over_before_the_host_has_joined(
    layout: Layout, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "READY_WAIT_S", 2.0)
    behave(scheduler="hears-no-host")
    whole = made(layout, [])
    with pytest.raises(LauncherError, match="provisioner was not ready after 2 s"):
        await whole.start()
    await whole.stop()


@pytest.mark.usefixtures("behave")
async def test_data_of_another_postgres_version_is_refused(layout: Layout) -> None:
    data = layout.postgres / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    whole = made(layout, [])
    with pytest.raises(LauncherError, match="was made by PostgreSQL 9"):
        await whole.start()
    await whole.stop()


@pytest.mark.usefixtures("behave")
async def test_an_external_postgres_that_does_not_answer_is_told(layout: Layout) -> None:
    whole = made(layout, [], UpOptions(database_url="postgresql://user:s3cret@127.0.0.1:1/penstock"))
    with pytest.raises(LauncherError, match="the PostgreSQL of DATABASE_URL could not be set up") as caught:
        await whole.start()
    assert "postgres" not in whole.programs
    assert "s3cret" not in str(caught.value)
    await whole.stop()
