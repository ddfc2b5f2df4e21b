"""Sends the jobs through a candidate to replicas of concurrency one, and notes when each began.

Client and replicas share one process, one clock and one event loop, whose timers are exact: the shortest
services last less than the millisecond that other event loops round up to.
"""

import asyncio
import gc
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from bench.candidates.kinds import API_KEY, host
from bench.processes import Failed
from bench.queue.trace import Job

ENDPOINT = "predict"
DRAIN_S = 60.0
_ASKED = re.compile(rb"/serve/([0-9]+)/([0-9]+) ")
_BODY = b'{"ok":true}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


@dataclass
class Seen:
    """What happened, by the number of the job."""

    sent_s: list[float]
    began_s: list[float]
    answered: int = 0
    failed: int = 0
    arrived_at_busy: int = 0
    """Requests that were sent to a replica while it worked on another."""
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def waits_s(self) -> list[float]:
        """From the sending of each job to its start at a replica."""
        return [began - sent for sent, began in zip(self.sent_s, self.began_s, strict=True)]


class Replica:
    """Works on one request at a time; others wait in its own line, first in, first out."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._busy = False
        self._line: deque[tuple[ReplicaConnection, int, float]] = deque()

    def take(self, connection: "ReplicaConnection", number: int, service_s: float) -> None:
        """A request has arrived."""
        if self._busy:
            self._seen.arrived_at_busy += 1
            self._line.append((connection, number, service_s))
        else:
            self._begin(connection, number, service_s)

    def _begin(self, connection: "ReplicaConnection", number: int, service_s: float) -> None:
        self._busy = True
        self._seen.began_s[number] = perf_counter()
        asyncio.get_running_loop().call_later(service_s, self._finish, connection)

    def _finish(self, connection: "ReplicaConnection") -> None:
        self._busy = False
        connection.transport.write(_ANSWER)
        if self._line:
            self._begin(*self._line.popleft())


class ReplicaConnection(asyncio.Protocol):
    """A connection of the candidate to a replica. The path tells number and service time (µs)."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received:
            asked = _ASKED.search(self._received)
            self._received = b""
            if asked is None:
                self.transport.write(_ANSWER)
            else:
                self._replica.take(self, int(asked[1]), int(asked[2]) / 1e6)


class Client(asyncio.Protocol):
    """One connection to the candidate. It is in `pool` whenever nothing is asked on it."""

    def __init__(self, pool: list["Client"], seen: Seen) -> None:
        self._pool = pool
        self._seen = seen
        self._asked = False
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> None:
        self._asked = True
        self._received = b""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        answered = self._received.startswith(b"HTTP/1.1 200")
        if not self._asked or (answered and not self._received.endswith(_BODY)):
            return
        self._end(answered=answered)
        if answered:
            self._pool.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._asked:
            self._end(answered=False)
        elif self in self._pool:
            self._pool.remove(self)

    def _end(self, *, answered: bool) -> None:
        self._asked = False
        seen = self._seen
        if answered:
            seen.answered += 1
        else:
            seen.failed += 1
        if seen.answered + seen.failed == len(seen.sent_s):
            seen.done.set()


def _request(number: int, service_s: float, port: int) -> bytes:
    lines = (
        f"GET /serve/{number}/{service_s * 1e6:.0f} HTTP/1.1",
        f"Host: {host(ENDPOINT, port)}",
        f"Authorization: Bearer {API_KEY}",
    )
    return "\r\n".join([*lines, "", ""]).encode()


class Replay:
    """The replicas, listening, and the replay of jobs through a candidate that forwards to them."""

    def __init__(self, jobs: Sequence[Job], replicas: int) -> None:
        self.seen = Seen([0.0] * len(jobs), [0.0] * len(jobs))
        self._jobs = jobs
        self._replicas = [Replica(self.seen) for _ in range(replicas)]
        self._servers: list[asyncio.Server] = []
        self._clients: list[Client] = []
        self._pool: list[Client] = []
        self._port = 0

    async def listen(self) -> tuple[str, ...]:
        """Open the replicas' ports; returns their addresses."""
        loop = asyncio.get_running_loop()
        for replica in self._replicas:
            server = await loop.create_server(lambda replica=replica: ReplicaConnection(replica), "127.0.0.1", 0)  # type: ignore[misc]
            self._servers.append(server)
        return tuple(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in self._servers)

    async def run(self, port: int) -> Seen:
        """Send every job at its time. Raises Failed when answers stay away or are refusals."""
        self._port = port
        gc.collect()
        gc.disable()
        try:
            await self._send_all()
            async with asyncio.timeout(DRAIN_S):
                await self.seen.done.wait()
        except TimeoutError:
            missing = len(self._jobs) - self.seen.answered - self.seen.failed
            raise Failed(f"{missing} of {len(self._jobs)} requests had no answer after {DRAIN_S:g} s") from None
        finally:
            gc.enable()
            for client in self._clients:
                client.transport.abort()
            for server in self._servers:
                server.close()
        if self.seen.failed:
            raise Failed(f"{self.seen.failed} of {len(self._jobs)} requests were refused or cut off")
        return self.seen

    async def _send_all(self) -> None:
        extra: set[asyncio.Task[None]] = set()
        began_s = perf_counter()
        for number, job in enumerate(self._jobs):
            await asyncio.sleep(max(0.0, began_s + job.at_s - perf_counter()))
            self.seen.sent_s[number] = perf_counter()
            request = _request(number, job.service_s, self._port)
            if self._pool:
                self._pool.pop().ask(request)
            else:
                extra.add(asyncio.create_task(self._connect_and_ask(request)))
        await asyncio.gather(*extra)

    async def _connect_and_ask(self, request: bytes) -> None:
        client = Client(self._pool, self.seen)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", self._port)
        self._clients.append(client)
        client.ask(request)
