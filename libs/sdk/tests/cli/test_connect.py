"""The example command, made to work in the shell it is pasted into."""

import json
from pathlib import Path

import pytest

from penstock.cli.connect import pasteable

COMMAND = 'curl -H "Authorization: Bearer $PENSTOCK_API_KEY" http://gateway.test/'


def configured(folder: Path, **key: str) -> dict[str, str]:
    path = folder / "penstock" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"api_url": "http://api.test", **key}))
    return {"XDG_CONFIG_HOME": str(folder)}


def test_a_key_in_the_environment_stays_a_variable(tmp_path: Path) -> None:
    environ = {**configured(tmp_path, api_key="psk_file"), "PENSTOCK_API_KEY": "psk_env"}
    assert pasteable(COMMAND, environ) == COMMAND


def test_a_key_in_a_file_of_its_own_is_read_from_there(tmp_path: Path) -> None:
    (tmp_path / "my key").write_text("psk_file")
    command = pasteable(COMMAND, configured(tmp_path, api_key_file=str(tmp_path / "my key")))
    assert f"\"Authorization: Bearer $(cat '{tmp_path}/my key')\"" in command


@pytest.mark.parametrize(("on_path", "words"), [("/usr/bin/penstock", "penstock"), (None, "'/opt/a b/penstock'")])
def test_a_key_inside_the_configuration_is_asked_of_penstock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: str | None, words: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: on_path)
    monkeypatch.setattr("sys.argv", ["/opt/a b/penstock"])
    command = pasteable(COMMAND, configured(tmp_path, api_key="psk_file"))
    assert f'"Authorization: Bearer $({words} key current)"' in command
    assert "psk_file" not in command
