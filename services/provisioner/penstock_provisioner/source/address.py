"""Reading a repository's address. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from penstock_provisioner.source.problems import REF, URI, SourceProblem

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9A-Fa-f:.]+")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_IN_URL = re.compile(r"[\s\\]")


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """A repository behind https."""

    url: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A repository on this machine."""

    path: str


Address = RemoteAddress | LocalAddress


def parse_address(uri: str, *, allow_local: bool) -> Address:
    """Raises SourceProblem for everything but https and, where allowed, absolute local paths."""
    if uri.startswith("-") or _CONTROL.search(uri):
        raise SourceProblem(URI, _not_an_address(uri))
    if uri.startswith(("/", "file://")):
        return _local(uri, allow_local)
    scheme, separator, _ = uri.partition("://")
    if not separator or "::" in uri.partition("/")[0]:
        raise SourceProblem(URI, _not_a_url(uri))
    if scheme.lower() != "https":
        raise SourceProblem(URI, f"{scheme} addresses are not fetched: give the repository's https address")
    return _remote(uri)


def check_ref(ref: str) -> None:
    """Raises SourceProblem for what could be taken for an option, a path or a range."""
    if not _REF.fullmatch(ref) or ".." in ref or ref.endswith((".lock", "/", ".")) or "//" in ref or "/." in ref:
        raise SourceProblem(REF, f"{ref!r} is no branch, tag or commit: give a name such as main, or a full commit")


def _remote(uri: str) -> RemoteAddress:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    if parts.username is not None or parts.password is not None:
        raise SourceProblem(
            URI, "the address holds a user name or password, which others could read: give a public repository"
        )
    is_plain = not (parts.query or parts.fragment or _NOT_IN_URL.search(uri))
    if not _HOST.fullmatch(host) or not is_plain or not parts.path.strip("/"):
        raise SourceProblem(URI, _not_an_address(uri))
    return RemoteAddress(uri, host, port)


def _local(uri: str, allow_local: bool) -> LocalAddress:
    if not allow_local:
        raise SourceProblem(
            URI,
            "repositories on the host's own disk are not allowed here: give an https address, "
            "or set PENSTOCK_ALLOW_LOCAL_SOURCES=true on the hosts",
        )
    path = uri
    if uri.startswith("file://"):
        host, slash, rest = uri.removeprefix("file://").partition("/")
        if host not in ("", "localhost"):
            raise SourceProblem(URI, f"{uri!r} names another machine: give an absolute path on this one")
        path = unquote(f"{slash}{rest}")
    if not path.startswith("/") or _CONTROL.search(path):
        raise SourceProblem(URI, f"{uri!r} is no absolute path: give one such as /srv/models/iris")
    return LocalAddress("/" + path.lstrip("/"))


def _not_a_url(uri: str) -> str:
    if re.match(r"[\w.-]+@[\w.-]+:", uri):
        return "ssh addresses are not fetched: give the repository's https address"
    return _not_an_address(uri)


def _not_an_address(uri: str) -> str:
    return f"{uri!r} is no repository address: give one such as https://github.com/acme/iris.git"
