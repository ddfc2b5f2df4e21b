"""The requests of the benchmark. Every candidate gets the same ones; LiteLLM knows chat completions only."""

import json
from dataclasses import dataclass

from bench.candidates.kinds import API_KEY, host

STREAMS = 500
EVENTS_PER_S = 50
EVENTS_PER_STREAM = 100
"""Then the stream ends and the next begins on the same connection, so that there are first events to time."""
BULK_BYTES = 100_000_000
BULK_CONNECTIONS = 4
IDLE_CONNECTIONS = 10_000
SMALL_CONNECTIONS = 32

_FEATURES = '{"features":[5.1,3.5,1.4,0.2]}'


@dataclass(frozen=True)
class Request:
    """One request, for the endpoint named."""

    endpoint: str
    path: str
    body: str = ""
    method: str = "POST"

    def headers(self, port: int) -> dict[str, str]:
        """All but Content-Length."""
        return {
            "Host": host(self.endpoint, port),
            "Authorization": f"Bearer {API_KEY}",
            "Content-Type": "application/json",
        }

    def head(self, port: int, length: int) -> bytes:
        """The head with a Content-Length of `length`."""
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers(port).items()]
        return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()

    def encoded(self, port: int) -> bytes:
        """The whole request."""
        body = self.body.encode()
        return self.head(port, len(body)) + body


def small(candidate: str) -> Request:
    """A small POST with a small answer."""
    if candidate == "litellm":
        return Request("predict", "/v1/chat/completions", _chat("predict", stream=False))
    return Request("predict", "/predict", _FEATURES)


def idle(candidate: str) -> Request:
    """What a connection carries once before it idles. LiteLLM would take minutes for 10,000 chats."""
    return Request("predict", "/health/liveliness", method="GET") if candidate == "litellm" else small(candidate)


def stream() -> Request:
    """A chat whose answer is a stream of events."""
    return Request("chat", "/v1/chat/completions", _chat("chat", stream=True))


def download() -> Request:
    return Request("bulk", "/download", method="GET")


def upload() -> Request:
    return Request("bulk", "/upload")


def _chat(model: str, *, stream: bool) -> str:
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": model, "messages": messages, "stream": stream}, separators=(",", ":"))
