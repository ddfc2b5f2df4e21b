"""A real NATS server and a real PostgreSQL server for a whole test run."""

import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from penstock_common.bootstrap import (
    DATABASE_SERVICES,
    bootstrap_postgres,
    service_database_url,
)
from penstock_common.contracts.permissions import SERVICES
from penstock_common.contracts.topology import BUCKETS, COMPLETE, STREAMS
from penstock_common.delivery.topology import declare
from penstock_launcher.nats import ADMIN as NATS_ADMIN
from penstock_launcher.nats import NatsServer
from penstock_launcher.postgres import PostgresServer
from tests_support.waiting import eventually


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """Both servers, and a clean platform on them for each test."""

    def __init__(self) -> None:
        # Not under pytest's own folder, which PostgreSQL's user may not enter when we are root.
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))
        self.folder.chmod(0o755)
        self.passwords = {user: secrets.token_hex(8) for user in (*SERVICES, NATS_ADMIN)}
        self.nats = NatsServer(self.folder / "nats", port=free_port(), passwords=self.passwords)
        self.postgres = PostgresServer(self.folder / "postgres", port=free_port())
        self.database_url = ""
        self._databases = 0

    def start(self) -> None:
        self.nats.start()
        self.postgres.start()

    def stop(self) -> None:
        self.nats.stop()
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def clean(self) -> None:
        """A fresh database, and every stream and bucket empty."""
        if self.database_url:
            await self._drop_database()
        self._databases += 1
        name = f"test_{os.getpid()}_{self._databases}"
        self.database_url = urlunsplit(urlsplit(self.postgres.url)._replace(path=f"/{name}"))
        await bootstrap_postgres(self.database_url, {service: self.passwords[service] for service in DATABASE_SERVICES})
        client = await self.admin_client()
        try:
            await self._empty(client.jetstream())
        finally:
            await client.close()

    async def _empty(self, js: JetStreamContext) -> None:
        for stream in [spec.name for spec in STREAMS] + [spec.stream for spec in BUCKETS.values()]:
            try:
                await js.delete_stream(stream)
            except NotFoundError:
                continue

        async def declared() -> bool:
            try:
                await declare(js)
            except APIError:
                # The server may still be removing the files of a stream of the same name.
                return False
            return True

        await eventually(declared)
        for bucket in BUCKETS.values():
            # As their owners do at their start: a test of one service runs without them.
            await js.publish(bucket.subject(COMPLETE), b"by the tests")

    async def _drop_database(self) -> None:
        connection = await asyncpg.connect(self.postgres.url.rsplit("/", 1)[0] + "/postgres")
        try:
            await connection.execute(f"drop database {urlsplit(self.database_url).path[1:]} with (force)")
        finally:
            await connection.close()

    async def admin_client(self) -> Client:
        """A connection that may do everything; the caller closes it."""
        return await nats.connect(self.nats.url, user=NATS_ADMIN, password=self.passwords[NATS_ADMIN])

    def settings_of(self, service: str) -> dict[str, object]:
        """The common settings of one service on these servers."""
        found: dict[str, object] = {
            "nats_url": self.nats.url,
            "nats_user": service,
            "nats_password": self.passwords[service],
            "shutdown_grace_s": 5,
        }
        if service in DATABASE_SERVICES:
            found["database_url"] = service_database_url(self.database_url, service, self.passwords[service])
        return found
