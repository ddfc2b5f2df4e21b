"""Asks another gateway directly for its heartbeat, and gives it ours."""

import asyncio

from penstock_gateway.fairness import Place
from penstock_gateway.proxy.replica import parse_address
from penstock_gateway.proxy.sharing.envelope import ANYBODY, HEARTBEAT, Envelope, seal

ANSWER_BYTES_MAX = 1024 * 1024
TIMEOUT_S = 0.5


async def ask(address: str, secret: str, heartbeat: bytes) -> bytes:
    """The heartbeat of whoever listens at `address`, as JSON.

    Raises ConnectionRefusedError when nobody does, TimeoutError or another OSError when it does not answer.
    """
    head = f"POST / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: {len(heartbeat)}\r\n\r\n"
    sealed = seal(head.encode(), secret, Envelope(ANYBODY, HEARTBEAT, Place()))
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*parse_address(address), limit=ANSWER_BYTES_MAX)
        try:
            writer.write(sealed + heartbeat)
            answer = await reader.read(ANSWER_BYTES_MAX)
            while more := await reader.read(ANSWER_BYTES_MAX):
                answer += more
                if len(answer) > ANSWER_BYTES_MAX:
                    raise OSError("the answer is too long")
        finally:
            writer.transport.abort()
    head_said, _, body = answer.partition(b"\r\n\r\n")
    if not head_said.startswith(b"HTTP/1.1 200 "):
        raise OSError(f"a gateway answered {head_said[:40]!r}")
    return body
