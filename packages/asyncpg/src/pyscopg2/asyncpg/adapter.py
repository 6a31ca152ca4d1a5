"""What the core asks of asyncpg."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import asyncpg

from pyscopg2.core.demands import supported, take_settings
from pyscopg2.core.tls import take_system_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpg import Connection, Pool, Record
    from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

    from pyscopg2.core.dsn import Target

_SIZES = {"min_size": 10, "max_size": 10}
"""asyncpg's defaults (`asyncpg.create_pool`)."""

_HAS_FLOOR = "init_size" in inspect.signature(asyncpg.create_pool).parameters
"""``min_size`` connections stay, however long they are idle: so since asyncpg 0.32."""

_FROM_THE_TARGET = {"dsn", "host", "port", "passfile", "service", "servicefile", "loop"}

_CHOICE_OF_HOST = {"target_session_attrs", "load_balance_hosts"}
"""The manager's."""

_KNOWN = {
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

_CUT_OFF = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)
"""What a pending query raises when its connection is terminated."""

_returned: ContextVar[list[Callable[[], None]]] = ContextVar("_returned")
"""Who is to be told when the connection that is being reset here comes free: in the step of the
event loop in which its reset ends. Taken out then: a context may live long."""


class AsyncpgAdapter:
    """`pyscopg2.core.adapter.Adapter` over asyncpg's public API."""

    extra_params = True
    """asyncpg makes them settings of the session."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        if unknown := options.keys() - _known_options():
            raise TypeError(f"asyncpg knows no such pool option: {', '.join(sorted(unknown))}")
        sizes = _SIZES | {name: options[name] for name in _SIZES if name in options}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 0:
                raise ValueError(f"{name} must be a whole number, at least 0: {size!r}")
        if sizes["max_size"] < 1:
            raise ValueError("max_size must be at least 1")
        if sizes["min_size"] > sizes["max_size"]:
            raise ValueError(
                f"min_size ({sizes['min_size']}) is above max_size ({sizes['max_size']})"
            )
        _connect_arguments(target, options)

    async def create_pool(self, target: Target, /, **options: Any) -> Pool[Record]:
        arguments = _connect_arguments(target, options)
        for name, default in _SIZES.items():
            arguments[name] = options.get(name, default) + 1
        if options.get("init_size") is not None:
            arguments["init_size"] = options["init_size"] + 1
        arguments["reset"] = _quiet_reset(options)
        if _HAS_FLOOR and arguments["min_size"] == arguments["max_size"]:
            # No connection is ever above the floor, so that no sound one is closed for being idle:
            # but asyncpg sets a timer for it at each release, and cancels it at each acquire.
            arguments.setdefault("max_inactive_connection_lifetime", 0)
        pool = asyncpg.create_pool(**arguments)
        try:
            return await pool
        except BaseException:
            # asyncpg 0.30 leaves open what it has opened so far.
            pool.terminate()
            raise

    def close_pool(self, pool: Pool[Record], /) -> Awaitable[None]:
        return pool.close()

    async def terminate_pool(self, pool: Pool[Record], /) -> None:
        pool.terminate()

    # asyncpg's own: a function between would cost every acquire.
    acquire_from_pool = staticmethod(
        cast("Callable[..., PoolAcquireContext[Record]]", asyncpg.Pool.acquire)
    )

    def release_to_pool(
        self, connection: PoolConnectionProxy[Record], pool: Pool[Record], /, **kwargs: Any
    ) -> Awaitable[None]:
        return pool.release(connection, **kwargs) if kwargs else pool.release(connection)

    def return_to_pool(
        self,
        connection: PoolConnectionProxy[Record],
        pool: Pool[Record],
        returned: Callable[[], None],
        /,
    ) -> Awaitable[None]:
        # The task in which asyncpg resets the connection gets a copy of this context.
        _returned.set([returned])
        return pool.release(connection)

    def terminate_connection(self, connection: PoolConnectionProxy[Record], /) -> None:
        try:
            connection.terminate()
        except asyncpg.InterfaceError:
            pass  # it has been given back already

    def end_block(
        self, connection: PoolConnectionProxy[Record], exc: BaseException | None, /
    ) -> None:
        """A block neither commits nor rolls back."""

    def fetch_scalar(
        self, connection: PoolConnectionProxy[Record], query: str, /
    ) -> Awaitable[object]:
        return connection.fetchval(query)

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return exc.sqlstate if isinstance(exc, asyncpg.PostgresError) else None

    def get_pool_freesize(self, pool: Pool[Record], /) -> int:
        return pool.get_max_size() - pool.get_size() + pool.get_idle_size()

    def get_pool_maxsize(self, pool: Pool[Record], /) -> int:
        return pool.get_max_size()

    def is_connection_closed(self, connection: PoolConnectionProxy[Record], /) -> bool:
        try:
            return connection.is_closed()
        except asyncpg.InterfaceError:
            return True  # it has been given back already


def _quiet_reset(
    options: dict[str, Any],
) -> Callable[[Connection[Record]], Awaitable[None]]:
    """The pool's own reset of a connection that is given back, but one that may be cut off.

    asyncpg resets it in a task of its own. If the user is cancelled meanwhile and the connection
    terminated later, nobody asks for that task's error any more, and asyncio logs it.
    """
    reset = options.get("reset") or options.get("connection_class", asyncpg.Connection).reset
    if reset is asyncpg.Connection.reset:
        return _reset

    async def quiet(connection: Connection[Record]) -> None:
        try:
            await reset(connection)
        except _CUT_OFF:
            if not connection.is_closed():
                raise
        else:
            returned = _returned.get(None)
            if returned:
                returned.pop()()

    return quiet


async def _reset(connection: Connection[Record]) -> None:
    """What `asyncpg.Connection.reset` does beyond what the pool does anyway: on the way of every
    release, and therefore not by calling it."""
    query = connection.get_reset_query()
    if query:
        try:
            await connection.execute(query)
        except _CUT_OFF:
            if not connection.is_closed():
                raise
            return
    returned = _returned.get(None)
    if returned:
        returned.pop()()


def _known_options() -> set[str]:
    parameters = {
        **inspect.signature(asyncpg.create_pool).parameters,
        **inspect.signature(asyncpg.connect).parameters,
    }
    named = (p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY)
    return set(named) - _FROM_THE_TARGET - _CHOICE_OF_HOST


def _connect_arguments(target: Target, options: dict[str, Any]) -> dict[str, Any]:
    """A target as `asyncpg.connect` takes it: what has no argument of its own goes as a DSN.

    The user's options go first, and so does each of their server settings.
    """
    params = supported(target, _KNOWN)
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
    settings |= options.get("server_settings") or {}
    return arguments | options | {"server_settings": settings}
