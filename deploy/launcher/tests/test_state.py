import json
from pathlib import Path

import pytest

from penstock_launcher import ports, state
from penstock_launcher.environment import SERVICES
from penstock_launcher.errors import LauncherError
from penstock_launcher.layout import Layout
from penstock_launcher.options import UpOptions
from penstock_launcher.supervisor import chosen_state


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_state_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    kept = state.State("host", external_database=False, ports={"api": 1}, passwords={"api": "secret"})
    state.save(tmp_path / "state.json", kept)
    assert state.load(tmp_path / "state.json") == kept


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    state.save(tmp_path / "state.json", state.State("host", external_database=False))
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_no_file_means_no_state(tmp_path: Path) -> None:
    assert state.load(tmp_path / "state.json") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "host_id": "h", "surprise": 1}']
)
def test_unusable_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(LauncherError, match=r"state\.json"):
        state.load(tmp_path / "state.json")


def test_choices_of_the_first_start_are_kept_for_the_next(layout: Layout) -> None:
    first = chosen_state(layout, UpOptions(host_id="gpu-1"))
    second = chosen_state(layout, UpOptions())
    assert second == first
    assert second.host_id == "gpu-1"


def test_options_of_an_earlier_start_are_kept_until_they_are_cleared(layout: Layout) -> None:
    def started(options: UpOptions) -> state.State:
        chosen = chosen_state(layout, options)
        state.save(layout.state, chosen)
        return chosen

    started(UpOptions(simulate_gpus="RTX 4090=4", otlp_endpoint="http://collector:4318"))
    again = started(UpOptions())
    assert (again.simulate_gpus, again.otlp_endpoint) == ("RTX 4090=4", "http://collector:4318")
    cleared = started(UpOptions(simulate_gpus=""))
    assert (cleared.simulate_gpus, cleared.otlp_endpoint) == ("", "http://collector:4318")
    assert started(UpOptions()).simulate_gpus == ""


def test_options_of_a_start_that_did_not_come_to_its_end_are_not_kept(layout: Layout) -> None:
    chosen_state(layout, UpOptions(simulate_gpus="nonsense"))
    assert chosen_state(layout, UpOptions()).simulate_gpus == ""


def test_a_file_of_before_these_options_were_kept_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"version": 1, "host_id": "h", "external_database": false}')
    assert state.load(tmp_path / "state.json") == state.State("h", external_database=False)


def test_every_port_differs_and_every_user_has_a_password_of_its_own(layout: Layout) -> None:
    kept = chosen_state(layout, UpOptions())
    assert len(set(kept.ports.values())) == len(kept.ports)
    assert set(kept.ports) == {"gateway-http", "api-http", "nats", "postgres", *SERVICES}
    assert set(kept.passwords) == {"admin", "webhooks", *SERVICES}
    assert len(set(kept.passwords.values())) == len(kept.passwords)


def test_a_port_taken_since_last_time_is_replaced_and_the_others_stay(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chosen_state(layout, UpOptions())
    lost = first.ports["nats"]
    really_free = ports.is_free
    monkeypatch.setattr(ports, "is_free", lambda port: port != lost and really_free(port))
    second = chosen_state(layout, UpOptions())
    assert second.ports["nats"] != lost
    assert {name: port for name, port in second.ports.items() if name != "nats"} == {
        name: port for name, port in first.ports.items() if name != "nats"
    }
    assert json.loads(layout.state.read_text())["ports"] == second.ports


def test_a_directory_with_its_own_postgres_refuses_an_external_one(layout: Layout) -> None:
    chosen_state(layout, UpOptions())
    with pytest.raises(LauncherError, match="has a PostgreSQL of its own: unset DATABASE_URL"):
        chosen_state(layout, UpOptions(database_url="postgresql://u:p@db/penstock"))


def test_a_directory_set_up_with_an_external_postgres_asks_for_it_again(layout: Layout) -> None:
    chosen_state(layout, UpOptions(database_url="postgresql://u:p@db/penstock"))
    with pytest.raises(LauncherError, match="set DATABASE_URL to its address again"):
        chosen_state(layout, UpOptions())
    assert "postgresql" not in layout.state.read_text()
