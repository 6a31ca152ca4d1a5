"""What the core asks of SQLAlchemy."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, partial
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    ResourceClosedError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool

from pyscopg2.sqlalchemy.cancellation import cut_first
from pyscopg2.sqlalchemy.drivers import DRIVERS, Driver, installed_driver, require

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from pyscopg2.core.dsn import Target

_SIZES = {"pool_size": 5, "max_overflow": 10}
"""SQLAlchemy's defaults (`sqlalchemy.pool.QueuePool`)."""

_FROM_THE_TARGET = frozenset(
    {
        "conninfo",
        "dsn",
        "host",
        "hostaddr",
        "load_balance_hosts",
        "passfile",
        "port",
        "service",
        "servicefile",
        "target_session_attrs",
    }
)


_opened: ContextVar[WeakSet[Any]] = ContextVar("pyscopg2.sqlalchemy.opened")
"""The driver's connections that the current acquire has opened. Never reset: an acquire may end in
another context than the one where it began."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """What SQLAlchemy does not tell of an engine's pool."""

    places: int | None
    """The most connections that it ever holds; None: no limit."""
    connections: WeakSet[Any] = field(default_factory=WeakSet[Any])
    """The driver's connections, whoever has them: those that are out, and those that a cancelled
    connect has left behind, too."""


class SqlalchemyAdapter:
    """`pyscopg2.core.adapter.Adapter` over the public API of SQLAlchemy's asyncio extension."""

    def __init__(self, driver: str | None = None) -> None:
        """:param driver: ``asyncpg`` or ``psycopg``; None: the one that is installed, asyncpg
        first, when it is used for the first time.
        """
        self._asked = driver
        self._pools: WeakKeyDictionary[AsyncEngine, _Pool] = WeakKeyDictionary()

    @cached_property
    def driver(self) -> str:
        """The name of the driver. `ModuleNotFoundError` where none is installed."""
        return self._asked or installed_driver()

    @cached_property
    def _driver(self) -> Driver:
        return DRIVERS[self.driver]

    @property
    def extra_params(self) -> bool:
        """Asyncpg makes them settings of the session."""
        return self._driver.extra_params

    @cached_property
    def _nowhere(self) -> Engine:
        """What a terminated connection belongs to: an engine that never connects."""
        return create_async_engine(
            f"postgresql+{self.driver}://", poolclass=NullPool, creator=_refuse
        ).sync_engine

    # Pools

    def check_options(self, target: Target, /, **options: Any) -> None:
        """`ModuleNotFoundError`: the driver is not installed."""
        require(self.driver)
        self._make_engine(target, options)
        known = self._driver.known_arguments()
        if unknown := dict(options.get("connect_args") or {}).keys() - known:
            raise TypeError(f"{self.driver} knows no such argument: {', '.join(sorted(unknown))}")
        if unknown := self._driver.connect_args(target, {}).keys() - known:
            raise ValueError(
                f"{self.driver} knows no such parameter of a DSN: {', '.join(sorted(unknown))}"
            )

    async def create_pool(self, target: Target, /, **options: Any) -> AsyncEngine:
        engine, places = self._make_engine(target, options)
        self._pools[engine] = pool = _Pool(places)

        def remember(_: object, entry: ConnectionPoolEntry) -> None:
            pool.connections.add(entry.driver_connection)
            _opened.get(pool.connections).add(entry.driver_connection)

        def refuse_closed(_: object, entry: ConnectionPoolEntry, __: object) -> None:
            if self._driver.is_closed(entry.driver_connection):
                raise DisconnectionError("the server closed the connection while it was idle")

        # Where it is refused, SQLAlchemy opens another in its place.
        event.listen(engine.sync_engine, "checkout", refuse_closed)
        # Before SQLAlchemy's own listeners, which ask the server and so may fail.
        event.listen(engine.sync_engine, "connect", remember, insert=True)
        try:
            # Nothing that this waits for, nobody else waits for.
            await cut_first(self._connect_once(engine), partial(self._abandon, pool))
        except BaseException as exc:
            await self.terminate_pool(engine)
            if isinstance(exc, ArgumentError):  # an isolation level that there is not
                raise ValueError(str(exc)) from exc
            raise
        return engine

    async def _connect_once(self, engine: AsyncEngine) -> None:
        """Open a connection, and leave it in the pool."""
        connection = await self.acquire_from_pool(engine)
        await connection.close()

    def _make_engine(
        self, target: Target, options: dict[str, Any]
    ) -> tuple[AsyncEngine, int | None]:
        """The engine, which opens nothing yet, and the most connections it will hold."""
        if misplaced := options.keys() & {"url", "pool"}:
            raise TypeError(f"{', '.join(sorted(misplaced))}: each host's comes from the DSN")
        connect_args: dict[str, Any] = dict(options.get("connect_args") or {})
        if misplaced := connect_args.keys() & _FROM_THE_TARGET:
            raise TypeError(f"connect_args: {', '.join(sorted(misplaced))} is for the DSN")
        sizes, places = _sizes(options)
        url = URL.create(
            f"postgresql+{self.driver}",
            username=target.user,
            host=target.hostaddr or target.host,
            port=target.port,
            database=target.dbname,
        )
        arguments = {
            **options,
            **sizes,
            "connect_args": self._driver.connect_args(target, connect_args),
        }
        try:
            return create_async_engine(url, **arguments), places
        except ArgumentError as exc:
            raise ValueError(str(exc)) from exc

    async def close_pool(self, pool: AsyncEngine, /) -> None:
        # Not by `dispose`, which logs an error with a traceback for a server that does not answer.
        try:
            for connection in list(self._pools[pool].connections):
                with suppress(Exception):
                    await self._driver.close(connection)
        finally:
            await self.terminate_pool(pool)

    async def terminate_pool(self, pool: AsyncEngine, /) -> None:
        # What is closed already, SQLAlchemy disposes of without a word to the server.
        for connection in self._pools[pool].connections:
            self._driver.terminate(connection)
        await pool.dispose()

    def _abandon(self, pool: _Pool) -> None:
        for connection in pool.connections:
            self._driver.abandon(connection)

    def get_pool_freesize(self, pool: AsyncEngine, /) -> int:
        places = self._pools[pool].places
        if places is None:
            return sys.maxsize
        return places - cast(QueuePool, pool.pool).checkedout()

    def get_pool_maxsize(self, pool: AsyncEngine, /) -> int | None:
        return self._pools[pool].places

    # Connections

    async def acquire_from_pool(self, pool: AsyncEngine, /, **kwargs: Any) -> AsyncConnection:
        opened = WeakSet[Any]()
        _opened.set(opened)
        try:
            return await pool.connect(**kwargs)
        except asyncio.CancelledError as exc:
            # Older releases of SQLAlchemy lose a connection that they are still setting up.
            for connection in opened:
                self._driver.abandon(connection)
            # What psycopg was opening is closed when it is freed, and SQLAlchemy's tracebacks refer
            # to themselves: the garbage collector may take its time.
            clear_frames(exc.__traceback__)
            raise

    async def release_to_pool(
        self, connection: AsyncConnection, pool: AsyncEngine, /, **kwargs: Any
    ) -> None:
        if kwargs:
            raise TypeError(f"SQLAlchemy's close takes no arguments: {', '.join(sorted(kwargs))}")
        sync = connection.sync_connection
        if sync is None or sync.closed or sync.engine is self._nowhere:
            return
        raw = self._raw(connection)
        if raw is not None and self._driver.is_in_use(raw):
            # By another task. The rollback would wait for it, without an end where that listens;
            # and cancelled meanwhile, it would close the socket under it.
            self.terminate_connection(connection)
            return
        detached = raw is not None and sync.connection.is_detached
        try:
            if raw is not None and self._driver.is_closed(raw):
                # SQLAlchemy would not see that: where there is nothing to roll back it does not
                # use the connection.
                await connection.invalidate()
            if raw is None:
                await connection.close()
            else:
                await cut_first(connection.close(), partial(self._driver.abandon, raw))
            if detached:
                # By its user; over psycopg, SQLAlchemy leaves such a connection open.
                self._driver.terminate(raw)
        except BaseException as exc:
            self.terminate_connection(connection)
            # A rollback that failed on a broken connection is done all the same.
            if not isinstance(exc, DBAPIError | OSError):
                raise

    def terminate_connection(self, connection: AsyncConnection, /) -> None:
        sync = connection.sync_connection
        if sync is None or sync.closed:
            return
        if not sync.invalidated:
            raw = self._raw(connection)
            if raw is not None:
                self._driver.terminate(raw)
            # It may have none left, and yet its place: where it was cancelled while it was reset.
            entry = sync.connection
            if not entry.is_detached:
                # Frees its place in the pool, and without a greenlet, unlike `invalidate` alone.
                entry.detach()
            # A transaction that was begun cannot be committed any more, only rolled back. Were the
            # connection closed, `commit` and the end of `async with connection.begin()` would do
            # nothing, and raise nothing.
            sync.invalidate()
        # After a rollback SQLAlchemy would connect anew, in a place that nobody has counted.
        sync.engine = self._nowhere

    def end_block(self, connection: AsyncConnection, exc: BaseException | None, /) -> None:
        """What was not committed is rolled back when the connection is given back."""

    async def fetch_scalar(self, connection: AsyncConnection, query: str, /) -> object:
        # Past SQLAlchemy: one round trip and no transaction, whatever isolation level or
        # `postgresql_readonly` is set, and nothing in the user's log and event listeners.
        raw = self._raw(connection)
        if raw is None:
            raise ResourceClosedError("this connection is closed")
        return await self._driver.fetch_scalar(raw, query)

    def sqlstate(self, exc: BaseException, /) -> str | None:
        # What the driver raised is a part of SQLAlchemy's error.
        raised = exc.orig if isinstance(exc, DBAPIError) else exc
        return None if raised is None else self._driver.sqlstate(raised)

    def is_connection_closed(self, connection: AsyncConnection, /) -> bool:
        raw = self._raw(connection)
        return raw is None or self._driver.is_closed(raw)

    def _raw(self, connection: AsyncConnection) -> Any:
        """The driver's connection; None where there is none, or not any more."""
        sync = connection.sync_connection
        if sync is None or sync.closed or sync.invalidated:
            return None
        adapted = sync.connection.dbapi_connection
        # Not `driver_connection`, which a connection that its user detached has not.
        return None if adapted is None else sync.dialect.get_driver_connection(adapted)


def _refuse() -> NoReturn:
    raise ResourceClosedError("the pool manager has terminated this connection")


def _sizes(options: dict[str, Any]) -> tuple[dict[str, int], int | None]:
    """The sizes to give to SQLAlchemy, and the most connections that they allow."""
    poolclass = options.get("poolclass") or AsyncAdaptedQueuePool
    if not isinstance(poolclass, type) or not issubclass(poolclass, QueuePool | NullPool):
        raise ValueError(
            "poolclass must be AsyncAdaptedQueuePool, NullPool, or derived from one of them: the"
            " monitor needs a connection of its own"
        )
    if not issubclass(poolclass, QueuePool):
        return {}, None
    size, overflow = (options.get(name, default) for name, default in _SIZES.items())
    for name, value, least in (("pool_size", size, 0), ("max_overflow", overflow, -1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}: {value!r}")
    if size == 0 or overflow == -1:
        return {}, None
    # Not the pool's size: so many connections it keeps when nobody uses them, and the monitor
    # never gives its own back.
    return {"max_overflow": overflow + 1}, size + overflow + 1
