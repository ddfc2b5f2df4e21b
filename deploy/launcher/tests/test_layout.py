import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from penstock_launcher.errors import LauncherError
from penstock_launcher.layout import layout_of, prepare


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_fresh_directory_is_made_ready_and_again_is_no_harm(place: Path) -> None:
    layout = layout_of(place / "new" / "data")
    for _ in range(2):
        prepare(layout, own_postgres=True)
    assert layout.lock.parent.is_dir()
    assert layout.log("api").parent.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_another_start_makes_meanwhile_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_of(place / "data")
    layout.root.mkdir()
    monkeypatch.setattr(Path, "is_dir", lambda folder: folder != layout.root and os.path.isdir(folder))
    prepare(layout, own_postgres=False)
    assert os.path.isdir(layout.lock.parent)


def test_one_place_has_one_name(place: Path) -> None:
    (place / "data").mkdir()
    (place / "link").symlink_to(place / "data")
    assert layout_of(place / "link") == layout_of(place / "data") == layout_of(place / "x" / ".." / "data")


def test_a_file_in_the_way_is_told(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(LauncherError, match=r"cannot be made \(File exists: .*/file\).*--data-dir or PENSTOCK_HOME"):
        prepare(layout_of(place / "file" / "data"), own_postgres=False)


def test_a_directory_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(layout_of(place / "data"), own_postgres=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(LauncherError, match="belongs to another user"):
        prepare(layout_of(place / "data"), own_postgres=False)


def test_a_directory_without_write_permission_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(LauncherError, match="not writable"):
        prepare(layout_of(place / "data"), own_postgres=False)


def test_a_full_disk_is_told_before_anything_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=12 * 1024**2))
    with pytest.raises(LauncherError, match="the disk is full: 12 MB are free"):
        prepare(layout_of(place / "data"), own_postgres=False)


def test_root_is_told_of_a_folder_that_the_postgres_user_may_not_enter(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "private").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LauncherError, match=f"chmod o\\+x {place / 'private'}"):
        prepare(layout_of(place / "private" / "data"), own_postgres=True)
    assert not (place / "private" / "data").exists()


def test_new_folders_can_be_passed_whatever_the_umask(place: Path) -> None:
    before = os.umask(0o077)
    try:
        prepare(layout_of(place / "new" / "data"), own_postgres=True)
    finally:
        os.umask(before)
    assert {folder.stat().st_mode & 0o777 for folder in (place / "new", place / "new" / "data")} == {0o755}
