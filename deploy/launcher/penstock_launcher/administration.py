"""What is done with administrator credentials, in a short-lived process of its own.

`python -m penstock_launcher.administration set-up|drain` imports what it needs, then waits for its
task on standard input: started early, it is ready when the servers are. The task and the answer are
JSON; the credentials stand in no command line and no environment.
"""

import asyncio
import json
import sys
from dataclasses import dataclass

import asyncpg
import nats

from penstock_common.bootstrap import (
    DATABASE_SERVICES,
    bootstrap_nats,
    bootstrap_postgres,
    service_database_url,
)
from penstock_common.delivery.drain import drain as wait_until_drained
from penstock_launcher.nats import ADMIN

DRAIN_MAX_S = 4.0


@dataclass(frozen=True, slots=True)
class Task:
    """`database_url` is the administrator's address."""

    database_url: str
    nats_url: str
    passwords: dict[str, str]


def set_up(task: Task) -> dict[str, str]:
    """Database, roles, schemas, streams, buckets, consumers. Returns the database address of each service."""
    url = task.database_url

    async def both() -> None:
        await asyncio.gather(
            bootstrap_postgres(url, {service: task.passwords[service] for service in DATABASE_SERVICES}),
            bootstrap_nats(task.nats_url, ADMIN, task.passwords[ADMIN]),
        )

    asyncio.run(both())
    return {service: service_database_url(url, service, task.passwords[service]) for service in DATABASE_SERVICES}


async def drain(task: Task) -> bool:
    """Wait until every message was handled and every outbox sent; False when that takes too long."""
    client = await nats.connect(task.nats_url, user=ADMIN, password=task.passwords[ADMIN], connect_timeout=1)
    connection = await asyncpg.connect(task.database_url, timeout=2)
    try:
        async with asyncio.timeout(DRAIN_MAX_S):
            await wait_until_drained(client.jetstream(timeout=1), connection, DATABASE_SERVICES)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        await client.close()
        connection.terminate()


def main(arguments: list[str]) -> int:
    """Do the task read from standard input; the answer goes to standard output, a failure to standard error."""
    task = Task(**json.load(sys.stdin))
    try:
        answer = set_up(task) if arguments == ["set-up"] else asyncio.run(drain(task))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
