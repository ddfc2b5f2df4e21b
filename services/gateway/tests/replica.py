"""A replica written with plain streams: it shares no code with the gateway, and misbehaves on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Seen:
    """A request as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value


class Connection:
    """The replica's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.lost = asyncio.Event()

    async def head(self) -> Seen | None:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        lines = raw[:-4].decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines[1:]]
        return Seen(lines[0], [(name, value.strip()) for name, _, value in pairs])

    async def body(self, seen: Seen) -> bytes:
        if "chunked" in [value.lower() for value in seen.all("Transfer-Encoding")]:
            seen.body = await self._chunks(seen)
        elif seen.all("Content-Length"):
            seen.body = await self.reader.readexactly(int(seen.one("Content-Length")))
        return seen.body

    async def _chunks(self, seen: Seen) -> bytes:
        whole = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            whole += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            seen.trailers.append(line[:-2].decode())
        return whole

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok", *, status: str = "200 OK", extra: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        await self.send(head.encode() + body)

    def abort(self) -> None:
        self.writer.transport.abort()


Handler = Callable[[Seen, Connection], Awaitable[None]]


async def echo(seen: Seen, connection: Connection) -> None:
    """Answers with what it saw."""
    await connection.body(seen)
    text = json.dumps({"line": seen.line, "headers": seen.headers, "body": seen.body.decode("latin-1")}).encode()
    await connection.answer(b"" if seen.method == "HEAD" else text)


class ScriptedReplica:
    """Serves every request with `handler`; notes what it saw and how many it worked on at a time."""

    def __init__(self) -> None:
        self.handler: Handler = echo
        self.seen: list[Seen] = []
        self.connections: list[Connection] = []
        self.open_connections = 0
        self.working = 0
        self.working_max = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        self.open_connections += 1
        try:
            while (seen := await connection.head()) is not None:
                self.seen.append(seen)
                self.working += 1
                self.working_max = max(self.working, self.working_max)
                try:
                    await self.handler(seen, connection)
                finally:
                    self.working -= 1
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self.open_connections -= 1
            connection.lost.set()
            self._tasks.discard(task)
            writer.close()


@asynccontextmanager
async def scripted_replica() -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica()
    await replica.start()
    try:
        yield replica
    finally:
        await replica.stop()


class Gate:
    """A handler that holds every request until the test lets one go."""

    def __init__(self) -> None:
        self._permits = asyncio.Semaphore(0)

    async def __call__(self, seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await self.wait()
        await connection.answer(seen.target.encode())

    async def wait(self) -> None:
        await self._permits.acquire()

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            self._permits.release()


MakeReplica = Callable[[], Awaitable[ScriptedReplica]]
"""The fixture `make_replica`."""


def says(raw: bytes, *, close: bool = False) -> Handler:
    """A handler that answers with these bytes."""

    async def handler(seen: Seen, connection: Connection) -> None:
        await connection.body(seen)
        await connection.send(raw)
        if close:
            connection.writer.close()

    return handler
