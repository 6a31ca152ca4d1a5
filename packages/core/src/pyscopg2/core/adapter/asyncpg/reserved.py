"""The connection that a monitor keeps, apart from the pool."""

import asyncio
from typing import Any

from pyscopg2.core.adapter.asyncpg.arguments import PoolArguments
from pyscopg2.core.dsn.target import Target

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0"


async def reserve(
    asyncpg: Any, arguments: PoolArguments, target: Target, options: dict[str, Any]
) -> "AsyncpgReserved":
    """Connect as the pool would, by the user's own function if there is one, and no further.

    ``asyncpg``: the module.
    """
    to_connect = arguments.to_connect(target, options)
    caching = to_connect.get("statement_cache_size") != 0
    connect = options.get("connect")
    if connect is None:
        return AsyncpgReserved(asyncpg, await asyncpg.connect(**to_connect), caching=caching)
    connection: Any = await connect(
        to_connect.pop("dsn", None),
        loop=asyncio.get_running_loop(),
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        **to_connect,
    )
    try:
        # It may do more than connect. Up to asyncpg 0.31 this asks the server, and a standby
        # refuses that where transactions are serializable by default.
        async with connection.transaction(isolation="read_committed"):
            await connection.reset_type_codec("text", schema="pg_catalog")
    except BaseException:
        connection.terminate()
        raise
    return AsyncpgReserved(asyncpg, connection, caching=caching)


def in_recovery(connection: Any) -> bool | None:
    """What the server of this connection reported last; None where it has not, or is closed."""
    try:
        told = getattr(connection.get_settings(), "in_hot_standby", None)
    except Exception:
        # asyncpg's InterfaceError, or an AttributeError of its own.
        return None
    return None if told is None else told == "on"


class AsyncpgReserved:
    """`pyscopg2.core.adapter.ReservedConnection`.

    Each query is prepared once, which loggers of queries and what wraps asyncpg's methods for
    tracing do not see. Without a cache of statements, which is how asyncpg is used behind a pooler,
    it is sent anew each time, still in one round trip.
    """

    def __init__(self, asyncpg: Any, connection: Any, *, caching: bool) -> None:
        self._connection = connection
        self._of_server: type[Exception] = asyncpg.PostgresError
        self._refused: type[Exception] = asyncpg.FeatureNotSupportedError
        self._cancelled: type[Exception] = asyncpg.QueryCanceledError
        self._name = None if caching else ""
        self._statements: dict[str, Any] = {}
        self._is_serializable = False
        """Transactions are, by default: a standby refuses that."""
        self._is_hurried = False
        """The session's timeout for statements is too short for ours."""

    async def fetch_scalar(self, query: str, /) -> object:
        if self._is_hurried or (self._is_serializable and self.in_recovery() is not False):
            return await self._fetch_apart(query)
        try:
            return await self._fetch(query)
        except self._refused:
            self._statements.clear()
            answer = await self._fetch_apart(query)
            self._is_serializable = True
        except self._cancelled:
            if await self._connection.fetchval("SHOW statement_timeout") == "0":
                raise
            answer = await self._fetch_apart(query)
            self._is_hurried = True
        return answer

    def in_recovery(self) -> bool | None:
        return in_recovery(self._connection)

    def is_closed(self) -> bool:
        return bool(self._connection.is_closed())

    def terminate(self) -> None:
        self._connection.terminate()

    async def _fetch_apart(self, query: str) -> object:
        """In a transaction that these defaults of the session's do not reach: three round trips."""
        connection = self._connection
        try:
            await connection.execute(_BEGIN)
            answer = await self._fetch(query)
            await connection.execute("COMMIT")
        except self._of_server:
            if not connection.is_closed():
                await self._roll_back()
            raise
        except BaseException:
            # Not gracefully, which asks a server that may not answer.
            connection.terminate()
            raise
        return answer

    async def _roll_back(self) -> None:
        try:
            await self._connection.execute("ROLLBACK")
        except BaseException:
            self._connection.terminate()
            raise

    async def _fetch(self, query: str) -> object:
        statement = self._statements.get(query)
        if statement is None:
            statement = await self._connection.prepare(query, name=self._name)
            self._statements[query] = statement
        value = await statement.fetchval()
        if isinstance(value, bool):
            return "t" if value else "f"
        return value if value is None or isinstance(value, str) else str(value)
