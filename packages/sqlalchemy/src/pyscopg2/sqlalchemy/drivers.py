"""What differs between the drivers that SQLAlchemy can use: asyncpg and psycopg."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import socket
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from pyscopg2.core.demands import supported, take_settings
from pyscopg2.core.hangup import hung_up
from pyscopg2.core.tls import take_system_context
from pyscopg2.sqlalchemy.cancellation import cut_first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import asyncpg
    import psycopg

    from pyscopg2.core.dsn import Target

_KNOWN_TO_ASYNCPG = {
    "application_name",
    "connect_timeout",
    "gsslib",
    "krbsrvname",
    "options",
    "replication",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
}
"""Of libpq's parameters, those that have an effect. The server sees some of them."""

_FROM_THE_DIALECT = frozenset({"prepared_statement_cache_size", "prepared_statement_name_func"})
"""Arguments of asyncpg's connect that SQLAlchemy's dialect for it adds."""

_REFUSALS = {
    re.compile(r"FATAL: +password authentication failed for user "): "28P01",
    re.compile(r"FATAL: +(no pg_hba\.conf entry for|pg_hba\.conf rejects connection for)"): "28000",
    re.compile(r'FATAL: +role ".*" (does not exist|is not permitted to log in)'): "28000",
    re.compile(r'FATAL: +database ".*" does not exist'): "3D000",
}
"""libpq keeps the SQLSTATE of a failed connect to itself, so psycopg gives only what the server
said; in another language than English it is not understood."""

_IDLE = 0
"""Of `psycopg.pq.TransactionStatus`, without importing a driver that may not be there."""


class Driver(Protocol):
    """One driver. Its connections are those that SQLAlchemy's pool holds."""

    @property
    def extra_params(self) -> bool:
        """Whether it takes parameters in a DSN that libpq does not know."""
        ...

    def connect_args(self, target: Target, own: Mapping[str, Any], /) -> dict[str, Any]:
        """What the driver's connect takes, all of it: nothing is left to SQLAlchemy's URL.

        The user's ``own`` go first.
        """
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

    async def fetch_scalar(self, connection: Any, query: str, /) -> object:
        """Outside of a transaction, unless one is open: one round trip."""
        ...

    def sqlstate(self, exc: BaseException, /) -> str | None:
        """Of what this driver raised, or SQLAlchemy's dialect for it."""
        ...


class AsyncpgDriver:
    """asyncpg."""

    extra_params = True

    def connect_args(self, target: Target, own: Mapping[str, Any], /) -> dict[str, Any]:
        params = supported(target, _KNOWN_TO_ASYNCPG)
        arguments: dict[str, Any] = {
            "host": target.hostaddr or target.host,
            "port": target.port,
            "user": target.user,
            # Not None: asyncpg would look for one, in places and by rules of its own.
            "password": target.password or "",
            "database": target.dbname,
            # Of one host there is nothing to choose, whatever the environment says.
            "target_session_attrs": "any",
        }
        connect_timeout = params.pop("connect_timeout", None)
        if connect_timeout is not None and int(connect_timeout) > 0:
            arguments["timeout"] = int(connect_timeout)
        settings = take_settings(params)
        context = take_system_context(params)  # to asyncpg, a file's name
        if context is not None:
            arguments["ssl"] = context
        if params:
            arguments["dsn"] = f"postgresql://?{urlencode(params)}"
        settings |= own.get("server_settings") or {}
        return {**arguments, **own, "server_settings": settings}

    def known_arguments(self) -> set[str]:
        connect = import_module("asyncpg").connect
        return _keywords(connect) | _FROM_THE_DIALECT

    def terminate(self, connection: asyncpg.Connection[Any], /) -> None:
        connection.terminate()

    def abandon(self, connection: asyncpg.Connection[Any], /) -> None:
        connection.terminate()

    async def close(self, connection: asyncpg.Connection[Any], /) -> None:
        await connection.close()

    def is_closed(self, connection: asyncpg.Connection[Any], /) -> bool:
        return connection.is_closed()

    def is_in_use(self, connection: asyncpg.Connection[Any], /) -> bool:
        return False  # a second task gets an error at once

    async def fetch_scalar(self, connection: asyncpg.Connection[Any], query: str, /) -> object:
        return await connection.fetchval(query)

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return _sqlstate(exc)


class PsycopgDriver:
    """psycopg 3."""

    extra_params = False

    def connect_args(self, target: Target, own: Mapping[str, Any], /) -> dict[str, Any]:
        return {**target.to_kwargs(), "target_session_attrs": "any", **own}

    def known_arguments(self) -> set[str]:
        module = import_module("psycopg")
        libpq = {option.keyword.decode() for option in module.pq.Conninfo.get_defaults()}
        return _keywords(module.AsyncConnection.connect) | libpq

    def terminate(self, connection: psycopg.AsyncConnection[Any], /) -> None:
        if connection.closed:
            return
        # Whoever waits for its socket is woken when that is shut down, not when it is closed.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)
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

    def sqlstate(self, exc: BaseException, /) -> str | None:
        code = _sqlstate(exc)
        pgconn = getattr(exc, "pgconn", None)
        if code is not None or pgconn is None:
            return code
        if pgconn.needs_password:
            return "28P01"  # libpq had none to send
        # Of several addresses the last one counts, which comes first.
        said = str(exc).partition("Multiple connection attempts failed")[0]
        return next((code for refusal, code in _REFUSALS.items() if refusal.search(said)), None)


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


def _keywords(function: Callable[..., object]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    nameless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {parameter.name for parameter in parameters if parameter.kind not in nameless}
