"""Sets up the servers with administrator credentials: roles, schemas, streams, buckets, consumers.

Safe to run again at any time; it changes only what differs. `python -m penstock_common.bootstrap`
reads PENSTOCK_ADMIN_DATABASE_URL, PENSTOCK_NATS_URL, PENSTOCK_NATS_USER, PENSTOCK_NATS_PASSWORD and,
for each service with a database, PENSTOCK_<SERVICE>_DB_PASSWORD.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import nats

from penstock_common.delivery.topology import declare

DATABASE_SERVICES = ("api", "scheduler", "billing")
CONNECT_WAIT_S = 30.0
_SCRAM_ITERATIONS = 4096
_NAME = re.compile(r"^[a-z_][a-z0-9_]*$")


async def bootstrap_postgres(admin_url: str, passwords: Mapping[str, str]) -> None:
    """The database, and for each service in `passwords` a login role and a schema only it may use."""
    await _create_database(admin_url)
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        database = await connection.fetchval("select quote_ident(current_database())")
        await connection.execute(f"revoke all on database {database} from public")
        await connection.execute("revoke create on schema public from public")
        for service, password in passwords.items():
            if not _NAME.match(service):
                raise ValueError(f"{service!r} cannot be a role name")
            role = f"penstock_{service}"
            secret = await connection.fetchval("select quote_literal($1::text)", scram_verifier(password))
            exists = await connection.fetchval("select true from pg_roles where rolname = $1", role)
            await connection.execute(f"{'alter' if exists else 'create'} role {role} login password {secret}")
            await connection.execute(f"grant connect on database {database} to {role}")
            await connection.execute(f"create schema if not exists {service}")
            await connection.execute(f"alter schema {service} owner to {role}")
    finally:
        await connection.close()


async def _create_database(admin_url: str) -> None:
    parts = urlsplit(admin_url)
    name = parts.path.lstrip("/")
    connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")), timeout=10)
    try:
        if not await connection.fetchval("select true from pg_database where datname = $1", name):
            await connection.execute(f"create database {await connection.fetchval('select quote_ident($1)', name)}")
    finally:
        await connection.close()


async def bootstrap_nats(url: str, user: str | None, password: str | None, *, replicas: int = 1) -> list[str]:
    """Declare the topology; returns the names of what was made anew."""
    client = await nats.connect(
        url.split(","),
        user=user,
        password=password,
        connect_timeout=2,
        max_reconnect_attempts=int(CONNECT_WAIT_S),
        reconnect_time_wait=1,
    )
    try:
        return await declare(client.jetstream(timeout=10), replicas=replicas)
    finally:
        await client.close()


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores of a password (RFC 5803), so that its log never shows the password itself."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{parts[0]}${parts[1]}:{parts[2]}"


def service_database_url(admin_url: str, service: str, password: str) -> str:
    """The address that one service uses: the administrator's, with the service's own role."""
    parts = urlsplit(admin_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"penstock_{service}:{quote(password, safe='')}@{host}"))


async def _main() -> None:
    environment = os.environ
    passwords = {service: environment[f"PENSTOCK_{service.upper()}_DB_PASSWORD"] for service in DATABASE_SERVICES}
    await bootstrap_postgres(environment["PENSTOCK_ADMIN_DATABASE_URL"], passwords)
    await bootstrap_nats(
        environment["PENSTOCK_NATS_URL"],
        environment.get("PENSTOCK_NATS_USER"),
        environment.get("PENSTOCK_NATS_PASSWORD"),
        replicas=int(environment.get("PENSTOCK_NATS_REPLICAS", "1")),
    )


if __name__ == "__main__":
    asyncio.run(_main())
