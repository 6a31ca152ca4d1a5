"""What differs between the drivers that SQLAlchemy can use: asyncpg and psycopg."""

from __future__ import annotations

import inspect
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from pyscopg2.core.adapter.asyncpg.arguments import asyncpg_arguments
from pyscopg2.core.adapter.asyncpg.errors import AsyncpgErrors
from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.hangup import hung_up, shut_down
from pyscopg2.core.adapter.refusals import refusal_sqlstate
from pyscopg2.sqlalchemy.reserved import (
    AsyncpgReserved,
    PsycopgReserved,
    asyncpg_in_recovery,
    psycopg_in_recovery,
    terminate_asyncpg,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import asyncpg
    import psycopg
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

    from pyscopg2.core.adapter import ReservedConnection
    from pyscopg2.core.dsn import Target

_FROM_THE_DIALECT = frozenset({"prepared_statement_cache_size", "prepared_statement_name_func"})
"""Arguments of asyncpg's connect that SQLAlchemy's dialect for it adds."""

_OF_A_QUERY = {
    "asyncpg": ("command_timeout", "connection_class", "record_class"),
    "psycopg": ("context", "cursor_factory", "prepare_threshold", "row_factory"),
}
"""Arguments of the drivers' connects that say how users' queries are made and read."""

_IDLE = 0
"""Of `psycopg.pq.TransactionStatus`, without importing a driver that may not be there."""


class Driver(Protocol):
    """One driver. Its connections are those that SQLAlchemy's pool holds."""

    @property
    def extra_params(self) -> bool:
        """Whether it takes parameters in a DSN that libpq does not know."""
        ...

    def make_prompt(self, dialect: Dialect, /) -> None:
        """See to it that SQLAlchemy resets a connection with no transaction on it, and terminates
        one, without waiting for anything."""
        ...

    def connect_args(self, target: Target, own: Mapping[str, Any], /) -> dict[str, Any]:
        """What the driver's connect takes, all of it: nothing is left to SQLAlchemy's URL.

        The user's ``own`` go first.
        """
        ...

    def to_reserve(self, own: Mapping[str, Any], /) -> dict[str, Any]:
        """Of the user's ``own`` arguments, those for a connection that no query of theirs sees."""
        ...

    async def reserved(self, connection: Any, /, *, own: bool) -> ReservedConnection:
        """The same connection, for a monitor. ``own``: the user's creator has made it."""
        ...

    def in_recovery(self, connection: Any, /) -> bool | None:
        """As `pyscopg2.core.adapter.TellsRecovery`."""
        ...

    def is_own(self, exc: BaseException, /) -> bool:
        """Whether the driver has raised it."""
        ...

    def known_arguments(self) -> set[str]:
        """The names of what the driver's connect takes, through SQLAlchemy.

        `ModuleNotFoundError`: the driver is not installed.
        """
        ...

    def terminate(self, connection: Any, /) -> None:
        """Close it without a word to the server; what waits for it fails by itself."""
        ...

    def abandon(self, connection: Any, /) -> None:
        """`terminate`, where nobody waits for the connection but the caller."""
        ...

    async def close(self, connection: Any, /) -> None:
        """Close it in good order, unless somebody still waits for it: then `terminate`."""
        ...

    def is_closed(self, connection: Any, /) -> bool: ...

    def is_in_use(self, connection: Any, /) -> bool:
        """Whether a task waits for it, as far as the driver lets others wait meanwhile."""
        ...

    def is_idle(self, connection: Any, /) -> bool:
        """Whether no transaction is open on it, whoever has begun one."""
        ...

    async def roll_back(self, connection: Any, /) -> None: ...

    async def fetch_scalar(self, connection: Any, query: str, /) -> object:
        """Outside of a transaction, unless one is open: one round trip."""
        ...

    def is_lost_error(self, exc: BaseException, /) -> bool:
        """As `pyscopg2.core.adapter.TellsLoss`, of what this driver raised itself."""
        ...

    def sqlstate(self, exc: BaseException, /) -> str | None:
        """Of what this driver raised, or SQLAlchemy's dialect for it."""
        ...


class AsyncpgDriver:
    """asyncpg."""

    extra_params = True

    def make_prompt(self, dialect: Dialect, /) -> None:
        """It is."""

    def connect_args(self, target: Target, own: Mapping[str, Any], /) -> dict[str, Any]:
        return asyncpg_arguments(target, own)

    def to_reserve(self, own: Mapping[str, Any], /) -> dict[str, Any]:
        kept = _without(own, *_OF_A_QUERY["asyncpg"], *_FROM_THE_DIALECT)
        # The dialect's arguments are for those behind a PgBouncer, where the next query may meet
        # another server's statements, or somebody else's by that name.
        cached = own.get("prepared_statement_cache_size", 1)
        if own.get("prepared_statement_name_func") is not None or not cached:
            kept["statement_cache_size"] = 0
        return kept

    async def reserved(
        self, connection: asyncpg.Connection[Any], /, *, own: bool
    ) -> AsyncpgReserved:
        if own:
            await connection.reset_type_codec("text", schema="pg_catalog")
        return AsyncpgReserved(connection)

    def in_recovery(self, connection: asyncpg.Connection[Any], /) -> bool | None:
        return asyncpg_in_recovery(connection)

    def is_own(self, exc: BaseException, /) -> bool:
        return _is_of("asyncpg", exc)

    def known_arguments(self) -> set[str]:
        connect = import_module("asyncpg").connect
        return _keywords(connect) | _FROM_THE_DIALECT

    def terminate(self, connection: asyncpg.Connection[Any], /) -> None:
        terminate_asyncpg(connection)

    def abandon(self, connection: asyncpg.Connection[Any], /) -> None:
        terminate_asyncpg(connection)

    async def close(self, connection: asyncpg.Connection[Any], /) -> None:
        await connection.close()

    def is_closed(self, connection: asyncpg.Connection[Any], /) -> bool:
        return connection.is_closed()

    def is_in_use(self, connection: asyncpg.Connection[Any], /) -> bool:
        return False  # a second task gets an error at once

    def is_idle(self, connection: asyncpg.Connection[Any], /) -> bool:
        return not connection.is_in_transaction()

    async def roll_back(self, connection: asyncpg.Connection[Any], /) -> None:
        await connection.execute("ROLLBACK")

    async def fetch_scalar(self, connection: asyncpg.Connection[Any], query: str, /) -> object:
        return await connection.fetchval(query)

    def is_lost_error(self, exc: BaseException, /) -> bool:
        return AsyncpgErrors(import_module("asyncpg")).is_lost(exc)

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return _sqlstate(exc)


class PsycopgDriver:
    """psycopg 3."""

    extra_params = False

    def make_prompt(self, dialect: Dialect, /) -> None:
        roll_back = dialect.do_rollback

        def roll_back_any(dbapi_connection: PoolProxiedConnection) -> None:
            # psycopg's rollback is a coroutine, also where it does nothing.
            adapted = cast("DBAPIConnection", dbapi_connection.dbapi_connection)
            if not self.is_idle(dialect.get_driver_connection(adapted)):
                roll_back(dbapi_connection)

        def terminate(dbapi_connection: DBAPIConnection) -> None:
            self.terminate(dialect.get_driver_connection(dbapi_connection))

        dialect.do_rollback = roll_back_any  # type: ignore[method-assign]
        dialect.do_terminate = terminate  # type: ignore[method-assign]
        dialect.has_terminate = True

    def connect_args(self, target: Target, own: Mapping[str, Any], /) -> dict[str, Any]:
        return {**target.to_kwargs(), "target_session_attrs": "any", **own}

    def to_reserve(self, own: Mapping[str, Any], /) -> dict[str, Any]:
        return {**_without(own, *_OF_A_QUERY["psycopg"]), "autocommit": True}

    async def reserved(
        self, connection: psycopg.AsyncConnection[Any], /, *, own: bool
    ) -> PsycopgReserved:
        if own:
            # Where no transaction is open, psycopg asks the server for neither.
            await connection.rollback()
            await connection.set_autocommit(True)
        return PsycopgReserved(connection, self.terminate)

    def in_recovery(self, connection: psycopg.AsyncConnection[Any], /) -> bool | None:
        return psycopg_in_recovery(connection)

    def is_own(self, exc: BaseException, /) -> bool:
        return _is_of("psycopg", exc)

    def known_arguments(self) -> set[str]:
        module = import_module("psycopg")
        libpq = {option.keyword.decode() for option in module.pq.Conninfo.get_defaults()}
        return _keywords(module.AsyncConnection.connect) | libpq

    def terminate(self, connection: psycopg.AsyncConnection[Any], /) -> None:
        if connection.closed:
            return
        # Whoever waits for its socket is woken when that is shut down, not when it is closed.
        shut_down(connection.fileno())
        # Not by its status, which is idle while somebody listens. Whoever has the lock, a COPY for
        # one, fails with the next step, and that closes the connection.
        if not self.is_in_use(connection):
            self.abandon(connection)

    def abandon(self, connection: psycopg.AsyncConnection[Any], /) -> None:
        connection.pgconn.finish()

    async def close(self, connection: psycopg.AsyncConnection[Any], /) -> None:
        # Psycopg's close frees what a query, terminated but not awake yet, goes on with.
        if self.is_in_use(connection):
            self.terminate(connection)
        else:
            await connection.close()

    def is_closed(self, connection: psycopg.AsyncConnection[Any], /) -> bool:
        # psycopg looks at the socket only while it waits for something.
        return connection.closed or hung_up(connection.fileno())

    def is_in_use(self, connection: psycopg.AsyncConnection[Any], /) -> bool:
        return connection.lock.locked()

    def is_idle(self, connection: psycopg.AsyncConnection[Any], /) -> bool:
        return connection.pgconn.transaction_status == _IDLE

    async def roll_back(self, connection: psycopg.AsyncConnection[Any], /) -> None:
        await connection.rollback()

    async def fetch_scalar(self, connection: psycopg.AsyncConnection[Any], query: str, /) -> object:
        fetching = self._fetch_scalar(connection, query)
        return await cut_first(fetching, partial(self.abandon, connection))

    async def _fetch_scalar(
        self, connection: psycopg.AsyncConnection[Any], query: str
    ) -> str | None:
        # In autocommit mode there is no transaction to begin and to end. To switch it costs
        # nothing: the server is not told.
        switch = not connection.autocommit and connection.info.transaction_status == _IDLE
        if switch:
            await connection.set_autocommit(True)
        try:
            cursor = await connection.execute(query.encode())
            # Not fetchone(): what a row is, the user's row factory decides.
            result = cursor.pgresult
            value = None if result is None or not result.ntuples else result.get_value(0, 0)
            return None if value is None else value.decode()
        finally:
            if switch and connection.info.transaction_status == _IDLE:
                await connection.set_autocommit(False)

    def is_lost_error(self, exc: BaseException, /) -> bool:
        operational = import_module("psycopg").OperationalError
        return type(exc) is operational and _sqlstate(exc) is None

    def sqlstate(self, exc: BaseException, /) -> str | None:
        code = _sqlstate(exc)
        pgconn = getattr(exc, "pgconn", None)
        if code is not None or pgconn is None:
            return code
        if pgconn.needs_password:
            return "28P01"  # libpq had none to send
        # Of several addresses the last one counts, which comes first.
        return refusal_sqlstate(str(exc).partition("Multiple connection attempts failed")[0])


DRIVERS: Mapping[str, Driver] = {"asyncpg": AsyncpgDriver(), "psycopg": PsycopgDriver()}
"""By the name that SQLAlchemy's URLs have for them; the one that is taken first, first."""


def require(name: str) -> None:
    """`ModuleNotFoundError`: the driver of this name is not installed."""
    if find_spec(name) is None:
        raise ModuleNotFoundError(
            f"{name} is not installed: pip install 'pyscopg2-sqlalchemy[{name}]'"
        )


def installed_driver() -> str:
    """The name of the first driver that is installed; `ModuleNotFoundError` where none is."""
    for name in DRIVERS:
        if find_spec(name) is not None:
            return name
    raise ModuleNotFoundError(
        "neither asyncpg nor psycopg is installed: pip install 'pyscopg2-sqlalchemy[asyncpg]' or"
        " 'pyscopg2-sqlalchemy[psycopg]'"
    )


def _sqlstate(exc: BaseException) -> str | None:
    code = getattr(exc, "sqlstate", None)
    return code if isinstance(code, str) else None


def _without(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}


def _is_of(package: str, exc: BaseException) -> bool:
    """Whether its class, or one that this is derived from, is of that package."""
    return any(c.__module__.partition(".")[0] == package for c in type(exc).__mro__)


def _keywords(function: Callable[..., object]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    nameless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {parameter.name for parameter in parameters if parameter.kind not in nameless}
