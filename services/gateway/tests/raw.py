"""A client that sends exactly the bytes it is told to, and reads answers with a parser of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

DEADLINE_S = 10.0
KEY = "psk_0123456789abcdefghijklmnop"
HOST = b"Host: iris.default.localhost\r\n"
AUTHORIZATION = f"Authorization: Bearer {KEY}\r\n".encode()


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    chunks: list[bytes]
    trailers: list[str]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    @property
    def closes(self) -> bool:
        return "close" in [value.lower() for value in self.all("Connection")]

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """Every wait has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def request(
        self, method: str = "GET", target: str = "/", headers: bytes = b"", body: bytes = b"", *, host: bytes = HOST
    ) -> Answer:
        length = f"Content-Length: {len(body)}\r\n".encode() if body else b""
        line = f"{method} {target} HTTP/1.1\r\n".encode()
        await self.send(line + host + AUTHORIZATION + headers + length + b"\r\n" + body)
        return await self.answer(head_only=method == "HEAD")

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        lines = raw[:-4].decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines[1:]]
        return int(lines[0].split(" ")[1]), [(name, value.strip()) for name, _, value in pairs]

    async def answer(self, *, head_only: bool = False) -> Answer:
        status, headers = await self.head()
        answer = Answer(status, headers, b"", [], [])
        if head_only or status in {204, 304} or status < 200:
            return answer
        if "chunked" in [value.lower() for value in answer.all("Transfer-Encoding")]:
            await self._chunks(answer)
        elif answer.all("Content-Length"):
            size = int(answer.one("Content-Length"))
            answer.body = await asyncio.wait_for(self.reader.readexactly(size), DEADLINE_S)
        else:
            answer.body = await self.rest()
        return answer

    async def _chunks(self, answer: Answer) -> None:
        while chunk := await self.chunk():
            answer.chunks.append(chunk)
        answer.body = b"".join(answer.chunks)
        while (line := await asyncio.wait_for(self.reader.readuntil(b"\r\n"), DEADLINE_S)) != b"\r\n":
            answer.trailers.append(line[:-2].decode())

    async def chunk(self) -> bytes:
        """The next chunk; empty at the last one, whose trailers are still to be read."""
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), DEADLINE_S), 16)
        if not size:
            return b""
        data = await asyncio.wait_for(self.reader.readexactly(size + 2), DEADLINE_S)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def rest(self) -> bytes:
        """Everything until the gateway closes."""
        return await asyncio.wait_for(self.reader.read(), DEADLINE_S)

    async def closed(self) -> bool:
        """Whether the gateway closes the connection, with nothing more on it."""
        try:
            return await self.rest() == b""
        except ConnectionResetError:
            return True

    def stop_reading(self) -> None:
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def go_on_reading(self) -> None:
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 * 1024 * 1024)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
