"""Which addresses are fetched from."""

import ipaddress
import socket
from typing import Any

import pytest

from penstock_provisioner.source.address import LocalAddress, RemoteAddress, check_ref, parse_address
from penstock_provisioner.source.network import checked_addresses, is_public
from penstock_provisioner.source.problems import SourceProblem


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("https://github.com/acme/iris.git", "github.com", 443),
        ("https://GitHub.com:8443/a", "github.com", 8443),
        ("https://[2606:4700::1]/a.git", "2606:4700::1", 443),
        ("HTTPS://example.org/a", "example.org", 443),
    ],
)
def test_https_addresses_are_read(uri: str, host: str, port: int) -> None:
    assert parse_address(uri, allow_local=False) == RemoteAddress(uri, host, port)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://github.com/acme/iris", "http addresses are not fetched: give the repository's https address"),
        ("git://github.com/acme/iris", "git addresses are not fetched"),
        ("ssh://git@github.com/acme/iris", "ssh addresses are not fetched"),
        ("git@github.com:acme/iris.git", "ssh addresses are not fetched"),
        ("ext::sh -c 'touch /tmp/x'", "is no repository address"),
        ("ext::https://github.com/a", "is no repository address"),
        ("fd::17", "is no repository address"),
        ("-uhttps://x", "is no repository address"),
        ("--upload-pack=touch /tmp/x", "is no repository address"),
        ("https://user:password@github.com/acme/iris", "holds a user name or password"),
        ("https://token@github.com/acme/iris", "holds a user name or password"),
        ("https://github.com", "is no repository address"),
        ("https:///acme", "is no repository address"),
        ("https://-oProxyCommand=x/acme", "is no repository address"),
        ("https://git hub.com/acme", "is no repository address"),
        ("https://github.com/a b", "is no repository address"),
        ("https://github.com/a\n", "is no repository address"),
        ("https://github.com\\@evil.example/a", "holds a user name or password"),
        ("https://github.com/acme?x=1", "is no repository address"),
        ("https://github.com/acme#x", "is no repository address"),
        ("https://github.com:99999/acme", "is no repository address"),
        ("https://[::1/acme", "is no repository address"),
        ("iris", "is no repository address"),
        ("./iris", "is no repository address"),
        ("/srv/iris", "not allowed here: give an https address"),
        ("file:///srv/iris", "not allowed here: give an https address"),
    ],
)
def test_everything_else_is_refused_with_the_mend(uri: str, says: str) -> None:
    with pytest.raises(SourceProblem) as caught:
        parse_address(uri, allow_local=False)
    assert caught.value.field == "source.uri"
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/srv/iris", "/srv/iris"),
        ("//srv/iris", "/srv/iris"),
        ("file:///srv/my%20models", "/srv/my models"),
        ("file://localhost/srv", "/srv"),
        ("/srv/my models", "/srv/my models"),
    ],
)
def test_local_paths_are_read_where_allowed(uri: str, path: str) -> None:
    assert parse_address(uri, allow_local=True) == LocalAddress(path)


@pytest.mark.parametrize("uri", ["file://server/share", "file:///srv/%00", "file://", "/srv/\x00"])
def test_odd_local_paths_are_refused(uri: str) -> None:
    with pytest.raises(SourceProblem):
        parse_address(uri, allow_local=True)


@pytest.mark.parametrize("ref", ["main", "v1.0", "feature/x", "0" * 40, "release-1.2+build"])
def test_refs_are_names(ref: str) -> None:
    check_ref(ref)


@pytest.mark.parametrize(
    "ref", ["-x", "--upload-pack=x", "a..b", "a b", "", "a/", "/a", "a//b", "a/.b", "x.lock", "a:b"]
)
def test_what_is_no_name_is_refused(ref: str) -> None:
    with pytest.raises(SourceProblem) as caught:
        check_ref(ref)
    assert caught.value.field == "source.ref"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("140.82.121.4", True),
        ("2606:50c0:8000::154", True),
        ("10.1.2.3", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("192.168.1.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:140.82.121.4", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_private_addresses_are_known_also_inside_others(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


REMOTE = RemoteAddress("https://example.org/a", "example.org", 443)


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(*_args: Any, **_kwargs: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_the_addresses_that_were_checked_are_the_ones_to_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, "140.82.121.4", "140.82.121.4", "140.82.121.3")
    found = await checked_addresses(REMOTE, allow_private=False)
    assert [str(address) for address in found] == ["140.82.121.4", "140.82.121.3"]


async def test_one_private_address_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, "140.82.121.4", "10.0.0.1")
    with pytest.raises(SourceProblem, match="is in a private network"):
        await checked_addresses(REMOTE, allow_private=False)
    assert len(await checked_addresses(REMOTE, allow_private=True)) == 2


async def test_an_unknown_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch)
    with pytest.raises(SourceProblem, match=r"example\.org cannot be reached: its name is not known here"):
        await checked_addresses(REMOTE, allow_private=False)


async def test_a_proxy_looks_names_up_itself_but_private_ones_stay_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert await checked_addresses(REMOTE, allow_private=False) == ()
    monkeypatch.setenv("NO_PROXY", "other.example, .example.org")
    with pytest.raises(SourceProblem, match="cannot be reached"):
        await checked_addresses(RemoteAddress("https://git.example.org/a", "git.example.org", 443), allow_private=False)
    resolving_to(monkeypatch, "127.0.0.1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    with pytest.raises(SourceProblem, match="private network"):
        await checked_addresses(REMOTE, allow_private=False)
