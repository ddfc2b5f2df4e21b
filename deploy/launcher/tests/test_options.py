import os
from pathlib import Path

import pytest

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import UpOptions, check, default_data_dir, host_id_from


def test_home_variable_decides_the_data_directory() -> None:
    assert default_data_dir({"PENSTOCK_HOME": "/srv/penstock"}) == Path("/srv/penstock")


def test_root_keeps_data_below_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir({"XDG_DATA_HOME": "/elsewhere"}) == Path("/var/lib/penstock")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_DATA_HOME": "/data"}, Path("/data/penstock")),
        ({"XDG_DATA_HOME": "relative/is/ignored"}, Path.home() / ".local/share/penstock"),
        ({}, Path.home() / ".local/share/penstock"),
        ({"PENSTOCK_HOME": ""}, Path.home() / ".local/share/penstock"),
    ],
)
def test_others_keep_data_in_their_own_data_folder(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_data_dir(environ) == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (UpOptions(gateway_port=0), "--gateway-port 0"),
        (UpOptions(api_port=70000), "--api-port 70000"),
        (UpOptions(api_port=8080, gateway_port=8080), "both listen on port 8080"),
        (UpOptions(host_id="Not Valid"), "'Not Valid'"),
        (UpOptions(host_id="a.b"), "'a.b'"),
        (UpOptions(database_url="mysql://x"), "DATABASE_URL"),
    ],
)
def test_a_choice_that_cannot_be_granted_is_refused_by_name(options: UpOptions, named: str) -> None:
    with pytest.raises(LauncherError, match=named.replace("(", r"\(")):
        check(options)


def test_sensible_choices_pass() -> None:
    check(UpOptions(gateway_port=80, api_port=81, host_id="gpu-1", database_url="postgresql://u:p@h/d"))


@pytest.mark.parametrize(
    ("hostname", "host_id"),
    [("GPU_01.example.org", "gpu-01"), ("plain", "plain"), ("...", "host"), ("", "host"), ("x" * 80, "x" * 63)],
)
def test_host_id_comes_from_the_hostname_and_fits_a_subject(hostname: str, host_id: str) -> None:
    assert host_id_from(hostname) == host_id


def test_error_shows_message_then_log_and_its_path() -> None:
    shown = str(LauncherError("api is not ready", log_path=Path("/logs/api.log"), log_tail="one\ntwo"))
    assert shown.splitlines() == [
        "api is not ready",
        "Last lines of its log:",
        "  one",
        "  two",
        "The whole log: /logs/api.log",
    ]
