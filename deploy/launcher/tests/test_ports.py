import socket
from collections.abc import Iterator

import pytest

from penstock_launcher import ports
from penstock_launcher.errors import LauncherError


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens, on one address only."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_with_a_listener_on_any_address_is_taken(taken: int) -> None:
    assert not ports.is_free(taken)


def test_a_port_whose_last_connection_just_ended_is_free() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.recv(1)
    assert ports.is_free(port)


def test_preferred_port_is_avoided_when_taken(taken: int) -> None:
    chosen = ports.public_port("gateway", asked=None, kept=None, preferred=taken, used=())
    assert chosen > taken
    assert ports.is_free(chosen)


def test_port_kept_from_last_time_wins_over_the_preferred_one() -> None:
    kept = free()
    assert ports.public_port("api", asked=None, kept=kept, preferred=8081, used=()) == kept


def test_kept_port_that_was_taken_meanwhile_is_given_up(taken: int) -> None:
    preferred = free()
    chosen = ports.public_port("api", asked=None, kept=taken, preferred=preferred, used=())
    assert preferred <= chosen < preferred + ports.SEARCHED


def test_port_asked_for_wins_over_all() -> None:
    asked = free()
    assert ports.public_port("api", asked=asked, kept=free(), preferred=8081, used=()) == asked


def test_port_asked_for_but_taken_is_an_error_that_names_it(taken: int) -> None:
    with pytest.raises(LauncherError, match=f"port {taken} for the gateway is taken"):
        ports.public_port("gateway", asked=taken, kept=None, preferred=8080, used=())


def test_a_port_given_to_another_part_is_not_given_twice() -> None:
    first = free()
    assert ports.public_port("api", asked=None, kept=None, preferred=first, used=[first]) != first


def test_exhausted_range_is_an_error_that_names_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(LauncherError, match="no free port for the gateway: 8080 to 8179 are all taken"):
        ports.public_port("gateway", asked=None, kept=None, preferred=8080, used=())
    with pytest.raises(LauncherError, match="no free port for nats"):
        ports.internal_port("nats", kept=None, used=())


def test_search_ends_at_the_last_port_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(LauncherError, match="65500 to 65535"):
        ports.public_port("gateway", asked=None, kept=None, preferred=65500, used=())


def test_internal_port_lies_in_its_range_and_is_kept(taken: int) -> None:
    chosen = ports.internal_port("nats", kept=taken, used=())
    assert chosen in ports.INTERNAL
    assert ports.internal_port("nats", kept=chosen, used=()) == chosen
    assert ports.internal_port("postgres", kept=chosen, used=[chosen]) != chosen
