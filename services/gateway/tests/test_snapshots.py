"""What a gateway starts with while NATS is away."""

import asyncio
import stat
from pathlib import Path

import pytest

from penstock_common.contracts.records import RouteReplica
from penstock_gateway import handlers
from penstock_gateway.proxy.context import Context
from penstock_gateway.proxy.directory import Directory
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.snapshots import Snapshot, SnapshotKeeper, load, save
from tests_support import eventually

from .plane import key_record, route

SNAPSHOT = Snapshot(routes=(route(),), api_keys=(key_record(),))


def directory() -> Directory:
    return Directory(Context(GatewaySettings()))


def test_what_was_saved_is_loaded_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "snapshot.json"
    save(path, SNAPSHOT)
    assert load(path) == SNAPSHOT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [child.name for child in path.parent.iterdir()] == ["snapshot.json"]


def test_no_file_and_a_broken_file_are_no_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "snapshot.json"
    assert load(path) is None
    assert caplog.records == []
    path.write_text('{"routes": [')
    assert load(path) is None
    assert "cannot be read" in caplog.text


async def test_the_keeper_saves_changes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    keeper = SnapshotKeeper(path, lambda: SNAPSHOT)
    await keeper.flush()
    assert not path.exists()
    keeper.mark()
    running = asyncio.create_task(keeper.run())
    await eventually(path.exists)
    running.cancel()
    assert load(path) == SNAPSHOT


async def test_a_disk_that_fails_is_logged_and_serving_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    keeper = SnapshotKeeper(tmp_path / "file" / "snapshot.json", lambda: SNAPSHOT)
    keeper.mark()
    await keeper.flush()
    assert "cannot be saved" in caplog.text


async def test_a_restored_directory_serves_what_was_saved_and_saves_it_again() -> None:
    restored = directory()
    handlers.restored(restored, SNAPSHOT)
    assert restored.loaded
    assert set(restored.names) == {b"iris.default"}
    assert handlers.worth_saving(restored) == SNAPSHOT


async def test_what_is_gone_from_the_buckets_is_dropped_once_they_were_read() -> None:
    restored = directory()
    handlers.restored(restored, SNAPSHOT)
    handlers.caught_up(restored, [], [])
    assert restored.names == {}
    assert len(restored.keys) == 0


async def test_what_is_still_in_the_buckets_stays() -> None:
    restored = directory()
    handlers.restored(restored, SNAPSHOT)
    handlers.caught_up(restored, ["ep_1"], [key_record().sha256])
    assert handlers.worth_saving(restored) == SNAPSHOT


async def test_an_older_route_does_not_replace_a_newer() -> None:
    known = directory()
    handlers.route_changed(known, "ep_1", route(version=5, state="stopped"))
    handlers.route_changed(known, "ep_1", route(version=4))
    assert known.endpoints["ep_1"].route.state == "stopped"


async def test_a_name_used_again_belongs_to_the_newer_endpoint_whatever_comes_first() -> None:
    for order in (("ep_1", "ep_2"), ("ep_2", "ep_1")):
        known = directory()
        for endpoint_id in order:
            handlers.route_changed(known, endpoint_id, route(endpoint_id=endpoint_id))
        assert known.names[b"iris.default"].route.endpoint_id == "ep_2"
        handlers.route_changed(known, "ep_1", None)
        assert known.names[b"iris.default"].route.endpoint_id == "ep_2"


async def test_a_name_falls_back_to_the_endpoint_that_still_has_it() -> None:
    known = directory()
    for endpoint_id in ("ep_1", "ep_2"):
        handlers.route_changed(known, endpoint_id, route(endpoint_id=endpoint_id))
    handlers.route_changed(known, "ep_2", None)
    assert known.names[b"iris.default"].route.endpoint_id == "ep_1"
    handlers.route_changed(known, "ep_unknown", None)


async def test_a_record_that_cannot_be_used_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    known = directory()
    handlers.restored(known, SNAPSHOT)
    broken = (RouteReplica(replica_id="rep_1", address="nowhere"),)
    handlers.route_changed(known, "ep_1", route(version=2, replicas=broken))
    handlers.api_key_changed(known, "not hex", None)
    assert "cannot be used" in caplog.text
    assert handlers.worth_saving(known) == SNAPSHOT
