"""What the core asks of aiopg."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import re
import socket
import sys
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import aiopg
import psycopg2
from aiopg.pool import Pool
from psycopg2 import extensions, extras

from pyscopg2.core.deadline import resume
from pyscopg2.core.demands import may_be_left_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiopg.connection import Connection

    from pyscopg2.core.dsn import Target

_DEFAULTS: dict[str, Any] = {
    parameter.name: parameter.default
    for parameter in inspect.signature(aiopg.create_pool).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
}
"""aiopg's own pool options."""

_FACTORIES = {"connection_factory", "cursor_factory"}
"""What `psycopg2.connect` takes beside libpq's parameters."""

_FROM_THE_TARGET = {"dsn", "host", "hostaddr", "port"}

_OURS = {"target_session_attrs", "load_balance_hosts"}
"""They steer the choice of a host, which is the manager's."""

_REFUSALS = (
    (re.compile(r"FATAL: +password authentication failed for user "), "28P01"),
    (re.compile(r'FATAL: +database ".*" does not exist'), "3D000"),
)
"""psycopg2 gives no SQLSTATE with a failed connect, only what the server said."""

_PAUSE = 0.01
"""Seconds between two looks at a pool that is closing."""

_CLOSED = 1
"""`closed` of a psycopg2 connection that was closed on our side; 2 is one that broke."""


class AiopgAdapter:
    """`pyscopg2.core.adapter.Adapter` over aiopg's public API."""

    def __init__(self) -> None:
        self._connect_timeouts: WeakKeyDictionary[Pool, float] = WeakKeyDictionary()
        """Seconds, for pools whose DSN limits a connect: asynchronous libpq leaves that to us."""

    def check_options(self, target: Target, /, **options: Any) -> None:
        unknown = [
            name
            for name in options.keys() - _DEFAULTS.keys() - _FACTORIES
            if name in _FROM_THE_TARGET | _OURS or not _is_known_to_libpq(name)
        ]
        if unknown:
            raise TypeError(f"aiopg knows no such pool option: {', '.join(sorted(unknown))}")
        sizes = {name: options.get(name, _DEFAULTS[name]) for name in ("minsize", "maxsize")}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 0:
                raise ValueError(f"{name} must be a whole number, at least 0: {size!r}")
        if 0 < sizes["maxsize"] < sizes["minsize"]:
            raise ValueError(f"minsize ({sizes['minsize']}) is above maxsize ({sizes['maxsize']})")
        _connect_timeout(_settings(target, options))

    async def create_pool(self, target: Target, /, **options: Any) -> Pool:
        self.check_options(target, **options)
        settings = _settings(target, options)
        *others, last = await _addresses(target)
        for address in others:
            try:
                return await self._open(settings | address, options)
            except (psycopg2.OperationalError, TimeoutError) as exc:
                if self.sqlstate(exc) is not None:
                    raise
        return await self._open(settings | last, options)

    async def _open(self, settings: dict[str, Any], options: dict[str, Any]) -> Pool:
        arguments = _DEFAULTS | {
            name: value for name, value in options.items() if name in _DEFAULTS.keys() | _FACTORIES
        }
        arguments["minsize"] += 1
        if arguments["maxsize"]:  # 0: no limit
            arguments["maxsize"] += 1
        arguments["on_connect"] = partial(
            _on_connect, arguments.pop("enable_hstore"), arguments["on_connect"]
        )
        arguments["enable_hstore"] = False
        # Not `aiopg.create_pool`: if that fails halfway, what it has opened stays open until
        # the garbage collector comes by. The constructor opens nothing, the first acquire does.
        pool = Pool(extensions.make_dsn(**settings), **arguments)
        timeout = _connect_timeout(settings)
        if timeout is not None:
            self._connect_timeouts[pool] = timeout
        try:
            pool.release(await self.acquire_from_pool(pool))
        except BaseException:
            await self.terminate_pool(pool)
            raise
        return pool

    async def close_pool(self, pool: Pool, /) -> None:
        pool.close()
        while not pool.closed:
            try:
                # Nobody wakes it where the last connection comes back closed: so look again.
                async with asyncio.timeout(_PAUSE):
                    await pool.wait_closed()
            except TimeoutError:
                pass

    async def terminate_pool(self, pool: Pool, /) -> None:
        pool.terminate()
        try:
            # In its first step this closes what is free. After that it would wait for connects
            # under way, which are for those to end who wait for them.
            async with asyncio.timeout(0):
                await pool.wait_closed()
        except TimeoutError:
            pass

    async def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Connection:
        steps = pool.acquire(**kwargs).__await__()
        try:
            pending = next(steps)
        except StopIteration as idle:
            connection: Connection = idle.value
            return connection
        return await self._wait_for_connect(pool, resume(steps, pending))

    async def _wait_for_connect(
        self, pool: Pool, acquiring: Coroutine[Any, Any, Connection]
    ) -> Connection:
        """The rest of an acquire that has taken its first step."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        timeout = None if pool.freesize else self._connect_timeouts.get(pool)
        try:
            if timeout is None:
                connection = await acquiring
            else:
                # aiopg opens first what is missing to the minimum, one after another. It counts
                # the one that is being opened already.
                async with asyncio.timeout(timeout * max(1, pool.minsize - pool.size + 1)):
                    connection = await acquiring
        except asyncio.CancelledError as exc:
            if (said := _servers_error(exc)) is not None:
                raise said from None
            raise
        if task and task.cancelling() > cancelled:
            # `asyncio.wait_for`, which aiopg uses, may forget that on Python 3.11.
            pool.release(connection)
            raise asyncio.CancelledError
        return connection

    async def release_to_pool(self, connection: Connection, pool: Pool, /, **kwargs: Any) -> None:
        # The connection is back when this returns. The future that it returns waits until nobody
        # connects, which on a frozen host takes long, and only wakes who waits inside the driver.
        try:
            pool.release(connection, **kwargs)
        except ResourceWarning:
            # An open transaction, and warnings are errors: aiopg had yet to close it.
            self.terminate_connection(connection)
            raise

    def terminate_connection(self, connection: Connection, /) -> None:
        # Closed twice, aiopg stops watching a file descriptor that may be another connection's.
        if connection.closed != _CLOSED:
            connection.close()

    def end_block(self, connection: Connection, exc: BaseException | None, /) -> None:
        """A block neither commits nor rolls back."""

    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        try:
            # The user's cursor_factory may make rows that have no first column.
            async with connection.cursor(cursor_factory=extensions.cursor) as cursor:
                await cursor.execute(query)
                return (await cursor.fetchone())[0]
        except asyncio.CancelledError as exc:
            if (said := _servers_error(exc)) is not None:
                raise said from None
            raise

    def sqlstate(self, exc: BaseException, /) -> str | None:
        if not isinstance(exc, psycopg2.Error):
            return None
        if exc.pgcode is None and isinstance(exc, psycopg2.OperationalError):
            said = str(exc)
            return next((code for refusal, code in _REFUSALS if refusal.search(said)), None)
        return exc.pgcode

    def get_pool_freesize(self, pool: Pool, /) -> int:
        return (pool.maxsize or sys.maxsize) - pool.size + pool.freesize

    def get_pool_maxsize(self, pool: Pool, /) -> int | None:
        return pool.maxsize

    def is_connection_closed(self, connection: Connection, /) -> bool:
        return bool(connection.closed)


def _servers_error(exc: BaseException) -> BaseException | None:
    """What the server said, where it has cancelled a query, by a statement_timeout perhaps.

    aiopg raises `CancelledError` then, as if the task had been cancelled.
    """
    said = exc.__context__
    cancelled = isinstance(exc, asyncio.CancelledError)
    return said if cancelled and isinstance(said, extensions.QueryCanceledError) else None


@cache
def _is_known_to_libpq(name: str) -> bool:
    try:
        extensions.make_dsn(**{name: ""})
    except psycopg2.ProgrammingError:
        return False
    return True


def _settings(target: Target, options: dict[str, Any]) -> dict[str, Any]:
    """What libpq is told. `ValueError` where it would not take that."""
    # An older libpq does not know all that there may be, in the environment above all.
    settings: dict[str, Any] = {
        name: value
        for name, value in target.to_kwargs().items()
        if _is_known_to_libpq(name) or not may_be_left_out(name, str(value))
    }
    settings |= {
        "dbname" if name == "database" else name: value
        for name, value in options.items()
        if name not in _DEFAULTS and name not in _FACTORIES
    }
    # Of one host there is nothing to choose, whatever the environment says.
    settings["target_session_attrs"] = "any"
    try:
        extensions.make_dsn(**settings)
    except (psycopg2.ProgrammingError, UnicodeEncodeError):
        # Without the cause, which may show the password.
        raise ValueError(f"libpq {extensions.libpq_version()} refuses the DSN") from None
    return settings


def _connect_timeout(settings: dict[str, Any]) -> float | None:
    """Seconds, or None for no limit; `ValueError` where it is not a whole number."""
    timeout = int(settings.get("connect_timeout") or 0)
    return timeout if timeout > 0 else None


async def _addresses(target: Target) -> list[dict[str, str]]:
    """What to add to the settings, for each address to be tried in turn.

    libpq would look a name up in the event loop's thread, and on its way from one address to the
    next it changes the socket, of which aiopg takes no notice.
    """
    host = target.host
    if host is None or target.hostaddr or not _is_name(host):
        return [{}]
    found = await asyncio.get_running_loop().getaddrinfo(host, target.port, type=socket.SOCK_STREAM)
    return [{"hostaddr": address} for address in dict.fromkeys(str(i[4][0]) for i in found)]


def _is_name(host: str) -> bool:
    """Rather than the directory of a socket, or an address."""
    if host.startswith(("/", "@")):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


async def _on_connect(
    hstore: bool, on_connect: Callable[[Connection], Awaitable[None]] | None, connection: Connection
) -> None:
    """What remains to be done on a new connection; where it fails, the connection is closed.

    aiopg forgets it without closing it, in its own `enable_hstore` as in the user's function.
    """
    try:
        if hstore:
            await _register_hstore(connection)
        if on_connect is not None:
            await on_connect(connection)
    except BaseException:
        if connection.closed != _CLOSED:
            connection.close()
        raise


async def _register_hstore(connection: Connection) -> None:
    """What aiopg's `enable_hstore` does."""
    async with connection.cursor(cursor_factory=extensions.cursor) as cursor:
        await cursor.execute("SELECT oid, typarray FROM pg_type WHERE typname = 'hstore'")
        types = await cursor.fetchall()
    extras.register_hstore(  # pyright: ignore[reportUnknownMemberType]  half annotated
        connection.raw,
        oid=tuple(oid for oid, _ in types),
        array_oid=tuple(array_oid for _, array_oid in types),
    )
