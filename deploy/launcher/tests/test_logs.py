from pathlib import Path

import pytest

from penstock_launcher import logs
from penstock_launcher.files import tail


def test_a_full_log_is_moved_aside_under_the_program_that_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    with path.open("ab", buffering=0) as program:
        program.write(b"first\n" * 10)
        assert logs.rotate(path, bytes_max=10, kept=2)
        program.write(b"second\n")
    assert path.read_text() == "second\n"
    assert (tmp_path / "api.log.1").read_text() == "first\n" * 10


def test_no_more_than_the_kept_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    for number in range(5):
        path.write_text(f"{number}" * 10)
        logs.rotate(path, bytes_max=10, kept=2)
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {
        "api.log": "",
        "api.log.1": "4" * 10,
        "api.log.2": "3" * 10,
    }


def test_a_log_with_room_and_a_missing_one_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    assert not logs.rotate(path)
    path.write_text("short")
    assert not logs.rotate(path)
    assert path.read_text() == "short"


def test_a_full_log_is_emptied_even_when_it_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api.log"
    path.write_text("x" * 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        logs.rotate(path, bytes_max=10)
    assert path.read_text() == ""


def test_tail_is_bounded_in_lines_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    path.write_text("\n".join(str(number) for number in range(10_000)))
    assert tail(path, lines=2).splitlines() == ["9998", "9999"]
    path.write_bytes(b"\xff" * 100_000)
    assert len(tail(path, bytes_max=100)) == 100
    assert tail(tmp_path / "none") == "it left no log"
