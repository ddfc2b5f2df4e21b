"""Fetching over https, from a server of our own that behaves well or badly."""

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from penstock_common.contracts.endpoint import GitSource
from penstock_provisioner.helpers import Helpers
from penstock_provisioner.source.fetch import SourceLimits, Sources
from penstock_provisioner.source.git import Git, GitLimits
from penstock_provisioner.source.problems import SourceProblem


class GitHandler(BaseHTTPRequestHandler):
    """`git http-backend` behind https. The first part of the path chooses how it behaves."""

    root: ClassVar[Path]
    asked_with: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        behaviour, _, rest = self.path.lstrip("/").partition("/")
        self.asked_with.append(self.headers.get("Authorization", ""))
        if behaviour == "private":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
        elif behaviour == "moved":
            self.send_response(301)
            self.send_header("Location", f"/public/{rest}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif behaviour == "page":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            page = b"<!doctype html>\n<html>\n<p>Not a repository.\n</html>\n"
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        elif behaviour == "public":
            self._backend(rest)
        else:
            self.send_error(404)

    do_POST = do_GET

    def _backend(self, rest: str) -> None:
        path, _, query = rest.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "CONTENT_LENGTH": str(len(body)),
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: Any) -> None:
        return


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate of the test server, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = "-keyout key.pem -out cert.pem -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(
        [*command.split(), *files.split()],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def server(
    certificate: tuple[Path, Path], make_repository: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Serves the repository `model.git`; gives the server's address."""
    make_repository({"predict.py": "x = 1\n"}).git(
        "clone", "--quiet", "--bare", ".", str(tmp_path / "served/model.git")
    )
    handler = type("Handler", (GitHandler,), {"root": tmp_path / "served", "asked_with": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "GIT_SSL_NO_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate[0]))
    yield f"https://localhost:{http.server_address[1]}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def make_sources(tmp_path: Path) -> Callable[..., Sources]:
    def make(*, allow_private: bool = True) -> Sources:
        git = Git(Helpers({}), tmp_path / "cache/git", GitLimits(bytes_max=10**7, timeout_s=20))
        limits = SourceLimits(
            allow_local=False,
            allow_private=allow_private,
            files_max=100,
            bytes_max=10**7,
            cache_bytes_max=10**8,
            timeout_s=20,
            parallel=1,
        )
        return Sources(git, tmp_path / "cache/sources", limits)

    return make


async def test_a_public_repository_is_pinned_and_fetched(
    server: str, make_sources: Callable[..., Sources], tmp_path: Path
) -> None:
    sources, uri = make_sources(), f"{server}/public/model.git"
    commit = await sources.pin(GitSource(uri=uri))
    await sources.copy(uri, "HEAD", commit, tmp_path / "copy")
    assert (tmp_path / "copy/predict.py").read_text() == "x = 1\n"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("private/model.git", "asks for a login, so it is private or does not exist"),
        ("absent/model.git", "does not exist, or is private: check the address"),
        ("moved/model.git", "redirects to another address"),
        ("page/model.git", "does not answer as a git server does"),
    ],
)
async def test_what_a_server_refuses_is_explained(
    server: str, make_sources: Callable[..., Sources], path: str, says: str
) -> None:
    with pytest.raises(SourceProblem, match=says):
        await make_sources().pin(GitSource(uri=f"{server}/{path}"))


async def test_no_login_is_ever_offered(
    server: str, make_sources: Callable[..., Sources], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine localhost login me password secret\n")
    (home / ".gitconfig").write_text('[credential]\n helper = "!echo username=me; echo password=secret"\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_ASKPASS", "/bin/echo")
    with pytest.raises(SourceProblem, match="asks for a login"):
        await make_sources().pin(GitSource(uri=f"{server}/private/model.git"))


async def test_a_server_in_a_private_network_is_refused_unless_allowed(
    server: str, make_sources: Callable[..., Sources]
) -> None:
    with pytest.raises(SourceProblem, match="the server localhost is in a private network"):
        await make_sources(allow_private=False).pin(GitSource(uri=f"{server}/public/model.git"))


async def test_a_certificate_that_is_not_trusted_is_refused(
    server: str, make_sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(SourceProblem, match=r"the certificate of the server of .* is not trusted"):
        await make_sources().pin(GitSource(uri=f"{server}/public/model.git"))


async def test_certificates_that_other_programs_trust_are_trusted(
    server: str, make_sources: Callable[..., Sources], certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert await make_sources().pin(GitSource(uri=f"{server}/public/model.git"))


async def test_a_server_that_is_not_there_is_said(make_sources: Callable[..., Sources]) -> None:
    with pytest.raises(SourceProblem, match="cannot be reached"):
        await make_sources().pin(GitSource(uri="https://localhost:1/model.git"))


async def test_only_the_addresses_that_were_checked_are_connected_to(
    server: str, make_sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def rebound(*_args: Any, **_kwargs: Any) -> list[Any]:
        # What the check sees; a second look-up, by git itself, would give the real address.
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0))]

    uri = f"{server}/public/model.git"
    await make_sources().pin(GitSource(uri=uri))
    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with pytest.raises(SourceProblem, match="cannot be reached"):
        await make_sources().pin(GitSource(uri=uri))
