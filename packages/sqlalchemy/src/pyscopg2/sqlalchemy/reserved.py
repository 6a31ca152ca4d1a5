"""The connections that monitors keep, past SQLAlchemy and past what users set up.

A check asks the same whatever the session's defaults are. Where the default isolation level is
serializable a standby refuses every statement that takes a snapshot (0A000; PostgreSQL manual,
13.2.3 "Serializable Isolation Level"), and a `statement_timeout` that is meant for users' queries
is none for this one. No session default is changed for it: behind a PgBouncer the session may be
somebody else's in the next moment.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.hangup import hung_up

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg
    import psycopg

_REFUSED = "0A000"
_CANCELLED = "57014"

_LEVEL = "ISOLATION LEVEL READ COMMITTED"
_NO_TIMEOUT = "SET LOCAL statement_timeout = 0"


class AsyncpgReserved:
    """Over asyncpg: by a prepared statement, which takes one round trip from the second time on, or
    two where the connection caches none, behind a PgBouncer say.

    Not by COPY, which would take one, and leave a future behind whose exception nobody retrieves
    where the server has just said that it ends the connection.
    """

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        module = import_module("asyncpg")
        self._connection = connection
        # Not the connection's own: what a query does, and what a row is, users may have changed.
        self._fetchrow = partial(module.Connection.fetchrow, connection, record_class=module.Record)
        self._in_transaction = False
        """Whether the session's defaults are in the way, as far as is known."""

    async def fetch_scalar(self, query: str, /) -> str | None:
        return await cut_first(self._fetch_scalar(query), self.terminate)

    async def _fetch_scalar(self, query: str) -> str | None:
        if not self._in_transaction:
            try:
                return await self._ask(query)
            except Exception as exc:
                code = getattr(exc, "sqlstate", None)
                if code not in (_REFUSED, _CANCELLED):
                    raise
                # Not where an administrator cancels: then there is no timeout.
                if code == _CANCELLED and await self._ask("SHOW statement_timeout") == "0":
                    raise
        await self._connection.execute(f"BEGIN {_LEVEL}; {_NO_TIMEOUT}")
        try:
            answer = await self._ask(query)
            self._in_transaction = True
            return answer
        finally:
            if not self._connection.is_closed():
                await self._connection.execute("ROLLBACK")

    async def _ask(self, query: str) -> str | None:
        row = await self._fetchrow(query)
        value = None if row is None else row[0]
        if isinstance(value, bool):
            return "t" if value else "f"
        return None if value is None else str(value)

    def in_recovery(self) -> bool | None:
        return asyncpg_in_recovery(self._connection)

    def is_closed(self) -> bool:
        return self._connection.is_closed()

    def terminate(self) -> None:
        terminate_asyncpg(self._connection)


class PsycopgReserved:
    """Over psycopg. Several statements in one simple query are one transaction and one round trip
    (manual, 55.2.2.1 "Multiple Statements in a Simple Query")."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        terminate: Callable[[psycopg.AsyncConnection[Any]], None],
    ) -> None:
        self._connection = connection
        self._terminate = terminate
        # Not the connection's own: what a cursor does, and what a row is, users decide.
        self._cursor = partial(
            import_module("psycopg").AsyncCursor,
            connection,
            row_factory=import_module("psycopg.rows").tuple_row,
        )

    async def fetch_scalar(self, query: str, /) -> str | None:
        # Whoever waits is the caller, and is told by the cancellation: nobody has to be woken.
        return await cut_first(self._fetch_scalar(query), self._connection.pgconn.finish)

    async def _fetch_scalar(self, query: str) -> str | None:
        cursor = self._cursor()
        asked = f"{_NO_TIMEOUT}; SET TRANSACTION {_LEVEL}; {query}"
        await cursor.execute(asked.encode(), prepare=False)
        while cursor.nextset():
            pass
        result = cursor.pgresult
        value = None if result is None or not result.ntuples else result.get_value(0, 0)
        return None if value is None else value.decode(errors="replace")

    def in_recovery(self) -> bool | None:
        return psycopg_in_recovery(self._connection)

    def is_closed(self) -> bool:
        return self._connection.closed or hung_up(self._connection.fileno())

    def terminate(self) -> None:
        self._terminate(self._connection)


def asyncpg_in_recovery(connection: asyncpg.Connection[Any]) -> bool | None:
    """What `TellsRecovery.in_recovery` says."""
    try:
        return _is_on(getattr(connection.get_settings(), "in_hot_standby", None))
    except Exception:
        return None


def psycopg_in_recovery(connection: psycopg.AsyncConnection[Any]) -> bool | None:
    """What `TellsRecovery.in_recovery` says."""
    try:
        return _is_on(connection.info.parameter_status("in_hot_standby"))
    except Exception:
        return None


def terminate_asyncpg(connection: asyncpg.Connection[Any]) -> None:
    """At once. With a closed event loop there is nobody left who could do it."""
    try:
        connection.terminate()
    except RuntimeError:
        if not connection.is_closed():
            raise


def _is_on(setting: object) -> bool | None:
    return {"on": True, "off": False}.get(str(setting))
