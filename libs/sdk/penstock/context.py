"""What every flow of one client shares: where to send requests, with what, and how patiently."""

import json as json_codec
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.config import Config
from penstock.effects import Request
from penstock.errors import PenstockError
from penstock.retry import RetryPolicy
from penstock.version import __version__

TIMEOUT_S = 60.0
PREDICT_TIMEOUT_S = 900.0
JSON = "application/json"
EVENT_STREAM = "text/event-stream"

OnWait = Callable[[PenstockError, float], object]
Query = Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True)
class Context:
    """The settings of one client, its clock and its source of randomness. Times are in seconds."""

    api_url: str
    api_key: str = field(repr=False)
    retry: RetryPolicy
    timeout_s: float
    """Longest silence of the API."""
    predict_timeout_s: float
    """Longest silence of an endpoint, waiting for a replica included."""
    random: Callable[[], float]
    monotonic: Callable[[], float]
    new_key: Callable[[], str]
    """A fresh Idempotency-Key."""
    on_wait: OnWait
    """Told of each failure after which something is tried again, and of the wait before that."""

    def api(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: object = None,
        idempotency_key: str | None = None,
        repeatable: bool = True,
        timeout_s: float | None = None,
    ) -> Request:
        """A request to the API. All but creations are idempotent; those carry an Idempotency-Key."""
        headers = self._headers()
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = None
        if json is not None:
            content = json_codec.dumps(json).encode()
            headers["Content-Type"] = JSON
        return Request(
            method=method,
            url=self.api_url + path,
            query=_pairs(query or {}),
            headers=headers,
            content=content,
            repeatable=repeatable,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
        )

    def create(self, path: str, json: object, idempotency_key: str | None = None) -> Request:
        """A POST that makes something once, however often it is sent."""
        return self.api("POST", path, json=json, idempotency_key=idempotency_key or self.new_key())

    def api_stream(self, path: str, *, query: Query | None = None, last_id: str = "", timeout_s: float) -> Request:
        """A request for server-sent events, resuming after `last_id`."""
        headers = {**self._headers(accept=EVENT_STREAM), "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        return Request("GET", self.api_url + path, _pairs(query or {}), headers, repeatable=True, timeout_s=timeout_s)

    def endpoint(
        self,
        method: str,
        url: str,
        *,
        with_key: bool,
        headers: Mapping[str, str],
        query: Query | None = None,
        content: bytes | None = None,
    ) -> Request:
        """A request to an endpoint, by way of its gateway. A public endpoint is not sent the key."""
        sent = self._headers(accept="*/*")
        if not with_key:
            del sent["Authorization"]
        sent.update(headers)
        keyed = any(name.lower() == "idempotency-key" for name in sent)
        return Request(
            method=method.upper(),
            url=url,
            query=_pairs(query or {}),
            headers=sent,
            content=content,
            repeatable=keyed or method.upper() in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"),
            at_endpoint=True,
            timeout_s=self.predict_timeout_s,
        )

    def _headers(self, accept: str = JSON) -> dict[str, str]:
        return {
            "Accept": accept,
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": f"penstock-python/{__version__}",
        }


def context_for(
    config: Config,
    retry: RetryPolicy,
    timeout_s: float,
    predict_timeout_s: float,
    random: Callable[[], float],
    monotonic: Callable[[], float],
    on_wait: OnWait | None,
) -> Context:
    """The context of a client with this configuration."""
    return Context(
        api_url=config.api_url,
        api_key=config.api_key,
        retry=retry,
        timeout_s=timeout_s,
        predict_timeout_s=predict_timeout_s,
        random=random,
        monotonic=monotonic,
        new_key=lambda: str(uuid.uuid4()),
        on_wait=on_wait or (lambda error, seconds: None),
    )


def segment(text: Any) -> str:
    """One segment of a path, quoted whole."""
    return quote(str(text), safe="")


def _pairs(query: Query) -> tuple[tuple[str, str], ...]:
    return tuple((name, _text(value)) for name, value in query.items() if value is not None)


def _text(value: str | int | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
