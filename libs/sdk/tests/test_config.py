"""Where the address and the key come from: arguments, then environment, then file."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock import NotConfigured
from penstock.config import config_file, load

URL, KEY = "http://api.test", "psk_env"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def write(environ: dict[str, str], stored: Any) -> Path:
    path = config_file(environ)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stored if isinstance(stored, str) else json.dumps(stored))
    return path


def test_arguments_win_over_the_environment_and_that_over_the_file(environ: dict[str, str]) -> None:
    write(environ, {"api_url": "http://file.test", "api_key": "psk_file"})
    assert load(environ=environ).api_url == "http://file.test"
    environ |= {"PENSTOCK_API_URL": URL + "/", "PENSTOCK_API_KEY": KEY}
    found = load(environ=environ)
    assert (found.api_url, found.api_key, found.key_from_environment) == (URL, KEY, True)
    found = load("http://mine.test", "psk_mine", environ)
    assert (found.api_url, found.api_key, found.key_from_environment) == ("http://mine.test", "psk_mine", False)


def test_the_file_may_name_another_file_for_the_key(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("psk_in_file\n")
    write(environ, {"api_url": URL, "api_key_file": str(tmp_path / "key")})
    found = load(environ=environ)
    assert (found.api_key, found.key_file) == ("psk_in_file", tmp_path / "key")


def test_the_key_may_come_from_the_environment_and_the_address_from_the_file(environ: dict[str, str]) -> None:
    write(environ, {"api_url": URL, "api_key": "psk_file"})
    assert load(environ={**environ, "PENSTOCK_API_KEY": KEY}).api_key == KEY


def test_the_key_in_the_file_is_never_sent_to_another_address(environ: dict[str, str]) -> None:
    write(environ, {"api_url": URL, "api_key": "psk_file"})
    assert load(environ={**environ, "PENSTOCK_API_URL": URL + "/"}).api_key == "psk_file"
    with pytest.raises(NotConfigured, match=r"no API key for http://other\.test: set PENSTOCK_API_KEY"):
        load(environ={**environ, "PENSTOCK_API_URL": "http://other.test"})
    with pytest.raises(NotConfigured, match="no API key"):
        load("http://other.test", environ=environ)


def test_nothing_configured_says_what_to_do(environ: dict[str, str]) -> None:
    with pytest.raises(NotConfigured, match="run `penstock up`, or set PENSTOCK_API_URL and PENSTOCK_API_KEY"):
        load(environ=environ)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("{", "cannot be read"),
        ([1], "must hold a JSON object"),
        ({}, "No platform is configured"),
        ({"api_url": URL}, "holds no API key"),
        ({"api_url": URL, "api_key_file": "nowhere"}, "key file named in .* cannot be read"),
        ({"api_url": "127.0.0.1:8080", "api_key": "k"}, "must look like http://"),
        ({"api_url": "http://host:port", "api_key": "k"}, "must look like http://"),
        ({"api_url": URL, "api_key": "two\nlines"}, "one line of plain text"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(environ: dict[str, str], stored: Any, words: str) -> None:
    write(environ, stored)
    with pytest.raises(NotConfigured, match=words):
        load(environ=environ)


def test_the_file_lies_where_the_specification_of_base_directories_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    default = tmp_path / ".config" / "penstock" / "config.json"
    assert config_file({}) == default
    assert config_file({"XDG_CONFIG_HOME": "relative"}) == default
    assert config_file({"XDG_CONFIG_HOME": "/etc/xdg"}) == Path("/etc/xdg/penstock/config.json")


def test_a_configuration_does_not_show_its_key(environ: dict[str, str]) -> None:
    assert "psk_secret" not in repr(load(URL, "psk_secret", environ))
