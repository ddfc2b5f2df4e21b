"""What both drivers do alike: from our requests to httpx, and from its errors to ours."""

from typing import Any

import httpx

from penstock.effects import Failure, Request, Response

CONNECT_TIMEOUT_S = 5.0
# A platform on this machine is reached directly, whatever proxy the environment names.
LOOPBACK: dict[str, None] = {f"all://{host}": None for host in ("localhost", "*.localhost", "127.0.0.1", "[::1]")}
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def arguments_of(request: Request) -> dict[str, Any]:
    """The arguments of httpx's `build_request`."""
    return {
        "method": request.method,
        "url": request.url,
        "params": list(request.query) or None,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": httpx.Timeout(request.timeout_s, connect=min(CONNECT_TIMEOUT_S, request.timeout_s)),
    }


def response_of(response: httpx.Response, body: bytes = b"") -> Response:
    return Response(response.status_code, dict(response.headers), body)


def failure_of(error: httpx.RequestError) -> Failure:
    return Failure(
        message=str(error) or type(error).__name__,
        sent=not isinstance(error, _NEVER_SENT),
        timed_out=isinstance(error, httpx.TimeoutException),
    )
