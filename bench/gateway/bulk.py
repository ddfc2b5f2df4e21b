"""Uploads and downloads of 100 MB, four at the same time: how fast, and how much memory they take."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.gateway.workload import BULK_BYTES, BULK_CONNECTIONS, Request
from bench.processes import Child, Failed

TIMEOUT_S = 60.0
BLOCK = bytes(1 << 20)


def measure(child: Child | None, request: Request, port: int, seconds: float) -> dict[str, Any]:
    """`mb_per_s` over all connections, and `growth_mb` of the peak memory for each connection (not without
    a child). Transfers are repeated for `seconds`. Raises Failed."""
    move = _upload if request.method == "POST" else _download
    before_mb = 0.0
    if child is not None:
        before_mb = child.rss_mb()
        child.forget_peak()
    began_s = time.monotonic()
    with ThreadPoolExecutor(BULK_CONNECTIONS) as threads:
        jobs = [threads.submit(_repeat, move, request, port, began_s + seconds) for _ in range(BULK_CONNECTIONS)]
        try:
            transfers = sum(job.result() for job in jobs)
        except OSError as error:
            raise Failed(f"a transfer of 100 MB broke off: {error!r}") from error
    took_s = time.monotonic() - began_s
    said = {"transfers": transfers, "mb_per_s": transfers * BULK_BYTES / 1e6 / took_s}
    if child is not None:
        said["growth_mb"] = max(0.0, child.peak_rss_mb() - before_mb) / BULK_CONNECTIONS
    return said


def _repeat(move: Callable[[socket.socket, Request, int], None], request: Request, port: int, end_s: float) -> int:
    count = 0
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        while not count or time.monotonic() < end_s:
            move(connection, request, port)
            count += 1
    return count


def _upload(connection: socket.socket, request: Request, port: int) -> None:
    connection.sendall(request.head(port, BULK_BYTES))
    whole, rest = divmod(BULK_BYTES, len(BLOCK))
    for _ in range(whole):
        connection.sendall(BLOCK)
    connection.sendall(BLOCK[:rest])
    _check(connection.recv(65536))


def _download(connection: socket.socket, request: Request, port: int) -> None:
    connection.sendall(request.encoded(port))
    data = b""
    while b"\r\n\r\n" not in data:
        read = connection.recv(65536)
        if not read:
            raise Failed("a download was cut off before its head")
        data += read
    _check(data)
    left = BULK_BYTES - len(data.partition(b"\r\n\r\n")[2])
    buffer = bytearray(len(BLOCK))
    while left:
        read_bytes = connection.recv_into(buffer, min(left, len(buffer)))
        if not read_bytes:
            raise Failed(f"a download was cut off {left} bytes before its end")
        left -= read_bytes


def _check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Failed(f"a transfer of 100 MB was answered {answer[:60]!r}")
