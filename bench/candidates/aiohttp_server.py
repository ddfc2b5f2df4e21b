"""The process of the candidate `aiohttp`, in an environment of its own: PORT and {endpoint: address} as arguments."""

import json
import sys
from typing import Any

import aiohttp  # type: ignore[import-not-found]
import uvloop
from aiohttp import web

SMALL_BYTES = 64 * 1024
"""Bodies known to be at most this long are passed on whole, as the simplest program would."""
DROPPED = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "authorization"}


def make_app(upstreams: dict[str, str]) -> Any:
    async def session(app: Any) -> Any:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as opened:
            app["session"] = opened
            yield

    async def handle(request: Any) -> Any:
        upstream = upstreams[request.host.partition(".")[0]]
        headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
        if (request.content_length or 0) > SMALL_BYTES:
            body = request.content
            headers["Content-Length"] = str(request.content_length)
        else:
            body = await request.read()
        url = f"http://{upstream}{request.path_qs}"
        async with request.app["session"].request(request.method, url, data=body, headers=headers) as answer:
            return await _pass_on(request, answer)

    app = web.Application(client_max_size=0)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


async def _pass_on(request: Any, answer: Any) -> Any:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in DROPPED}
    if answer.content_length is not None and answer.content_length <= SMALL_BYTES:
        return web.Response(status=answer.status, body=await answer.read(), headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = answer.content_length
    await response.prepare(request)
    async for data in answer.content.iter_any():
        await response.write(data)
    await response.write_eof()
    return response


if __name__ == "__main__":
    app = make_app(json.loads(sys.argv[2]))
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
