"""A small platform over real HTTP, and the command line against it: in this process, or as a process."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.main import app

ENDPOINT_ID = "ep_01kc4v5s8mf7q9x2t6w3y1z0ab"
STORY = ("queued", "scheduled", "fetching source", "installing", "starting", "running")
Answer = tuple[int, Any]


class Stub:
    """Knows one endpoint, tells its story, and answers as it is told to."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | list[Answer]] = {}
        self.patience = "3600"
        """Retry-After of every 503: at first longer than the client waits, so that it gives up at once."""
        self.requests: list[tuple[str, str, Any]] = []
        self.state = "queued"
        self.details: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.lines = [_line(number) for number in range(1, 4)]
        self.hold = threading.Event()
        self.url = ""

    def tell(self, *phases: str, state: str = "", **details: Any) -> None:
        """Let these phases happen next; then the endpoint is in the state of the last."""
        for phase in phases:
            self.events.append(_event(len(self.events) + 1, phase))
        self.state = state or phases[-1]
        self.details.update(details)

    def endpoint(self, **changes: Any) -> dict[str, Any]:
        route = {"verb": "POST", "path": "/predict", "file": "predict", "function": "predict", "body": []}
        url = f"{self.url}/e/default/iris"
        return {
            "id": ENDPOINT_ID,
            "name": "Iris",
            "slug": "iris",
            "workspace": "default",
            "state": self.state,
            "reason": "",
            "spec": {
                "name": "Iris",
                "workspace": "default",
                "source": {"kind": "git", "uri": "https://x.test/iris.git", "ref": "HEAD"},
                "routes": [route],
                "gpu": {"type": "RTX 4090", "count": 2},
            },
            "source": {"uri": "https://x.test/iris.git", "ref": "HEAD", "commit": "a" * 40, "requirements": ""},
            "url": url,
            "price_micros_per_hour": 450_000,
            "currency": "USD",
            "replicas": [],
            "example_command": f'curl -sS -H "Authorization: Bearer $PENSTOCK_API_KEY" {url}/predict',
            "created_at": "2026-03-01T12:00:00Z",
            **self.details,
            **changes,
        }

    def asked(self, method: str, path: str) -> Any:
        """What the last such request held: its `body` and its `query`."""
        return next(sent for got, at, sent in reversed(self.requests) if (got, at) == (method, path))

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """The answer to any request that is no stream."""
        if (method, path) in self.answers:
            given = self.answers[method, path]
            return given.pop(0) if isinstance(given, list) else given
        own = f"/v1/endpoints/{ENDPOINT_ID}"
        if (method, path) == ("POST", "/v1/endpoints"):
            self.tell(*STORY) if not self.events else None
            return 201, self.endpoint(state="queued")
        if (method, path) == ("GET", own):
            return 200, self.endpoint()
        if path == own or path in (f"{own}/stop", f"{own}/restart"):
            self.tell("stopping", "stopped") if path.endswith("stop") else None
            self.tell("queued", "running") if path.endswith("restart") else None
            self.tell("terminating", "terminated") if method == "DELETE" else None
            return 202, self.endpoint()
        lists = {"/v1/endpoints": [self.endpoint()], f"{own}/events": self.events, f"{own}/logs": self.lines[::-1]}
        if method == "GET" and path in lists:
            return 200, {"items": lists[path], "next_cursor": None}
        if path == "/e/default/iris/predict":
            return 200, {"echo": body}
        return 404, {"code": "not_found", "detail": f"There is no {path}.", "status": 404, "errors": []}


def _event(number: int, phase: str) -> dict[str, Any]:
    at = f"2026-03-01T12:00:{number:02}.500000Z"
    return {"id": number, "at": at, "type": f"endpoint.{phase}", "phase": phase, "message": f"Now {phase}."}


def _line(number: int) -> dict[str, Any]:
    at = f"2026-03-01T12:00:{number:02}Z"
    return {"id": number, "at": at, "replica_id": "rep_1", "text": f"line {number} \x1b[31mred"}


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.stub.requests.append((self.command, parts.path, {"body": body, "query": parse_qs(parts.query)}))
        wants = self.headers.get("accept", "")
        if (
            parts.path.startswith("/v1/")
            and "event-stream" in wants
            and (self.command, parts.path) not in self.stub.answers
        ):
            self._stream(parts.path)
            return
        status, answer = self.stub.answer(self.command, parts.path, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", self.stub.patience)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = handle_any

    def _stream(self, path: str) -> None:
        """Everything behind Last-Event-ID, then silence until the test lets go."""
        after = int(self.headers.get("last-event-id") or 0)
        kind, items = ("log", self.stub.lines) if path.endswith("/logs") else ("lifecycle", self.stub.events)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for item in items:
            if item["id"] > after:
                self.wfile.write(f"id: {item['id']}\nevent: {kind}\ndata: {json.dumps(item)}\n\n".encode())
        self.wfile.flush()
        self.stub.hold.wait(30)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    stub.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def environ(stub: Stub, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where `penstock up` has run."""
    config = tmp_path / "penstock" / "config.json"
    config.parent.mkdir()
    (tmp_path / "api-key").write_text("psk_secret\n")
    config.write_text(json.dumps({"api_url": stub.url, "api_key_file": str(tmp_path / "api-key")}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "COLUMNS"))}
    return {**kept, "XDG_CONFIG_HOME": str(tmp_path), "TERM": "dumb"}


@pytest.fixture
def penstock(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `penstock …` in this process."""
    monkeypatch.setenv("XDG_CONFIG_HOME", environ["XDG_CONFIG_HOME"])
    for name in ("PENSTOCK_API_URL", "PENSTOCK_API_KEY", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input, prog_name="penstock")

    return run


@pytest.fixture
def ok() -> Callable[[Result], str]:
    """Standard output of a command, which must have succeeded."""

    def output(result: Result) -> str:
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    return output


@pytest.fixture
def shell(environ: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `penstock …` as a process of its own."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from penstock.cli.main import main; main()", *arguments],
            capture_output=True,
            text=True,
            env={**environ, **changes},
            cwd=tmp_path,
            timeout=60,
        )

    return run
