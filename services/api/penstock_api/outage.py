"""How it shows that PostgreSQL is away."""

import asyncpg

OUTAGES: tuple[type[Exception], ...] = (
    OSError,  # and TimeoutError, which is one
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what the driver makes of a connection that breaks in the middle
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
