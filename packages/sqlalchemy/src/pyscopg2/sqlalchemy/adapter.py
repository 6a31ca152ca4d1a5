"""What the core asks of SQLAlchemy."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InvalidRequestError,
    PendingRollbackError,
    ResourceClosedError,
    SQLAlchemyError,
)
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool
from sqlalchemy.util import greenlet_spawn

from pyscopg2.core.adapter import HookError
from pyscopg2.core.adapter.cutting import cut_first, go_on
from pyscopg2.sqlalchemy.drivers import DRIVERS, Driver, installed_driver, require
from pyscopg2.sqlalchemy.pools import (
    Apart,
    Attempt,
    NotAtHand,
    Watch,
    Watched,
    gives_back_at_once,
    takes_at_once,
    watch_of,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from pyscopg2.core.adapter import ReservedConnection
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


_TO_CONNECT = frozenset({"async_creator", "client_encoding", "creator", "module", "plugins"})
"""Of the options, beside `connect_args`, those that say how a connection is opened."""

_HOSTS_FAULTS = ("08", "53", "57", "58", "XX")
"""SQLSTATEs of a host in trouble: a broken connection, too few resources, an operator, the system,
PostgreSQL itself (manual, appendix A)."""


_INVALIDATED = "8s2b"
"""SQLAlchemy's code for a connection that was lost within a transaction which goes on."""


class ConnectionTerminated(ResourceClosedError):  # noqa: N818  SQLAlchemy's is an error already
    """What a connection that the manager has terminated raises."""


class _Tried(Exception):  # noqa: N818  it is no error
    """A connection was opened and set up: that is all that was to be known."""


class SqlalchemyAdapter:
    """`pyscopg2.core.adapter.Adapter` over the public API of SQLAlchemy's asyncio extension."""

    def __init__(self, driver: str | None = None) -> None:
        """
        :param driver: ``asyncpg`` or ``psycopg``; None: the one that is installed, asyncpg first,
            when it is used for the first time.
        """
        self._asked = driver

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
        return self._make_nowhere()

    @cached_property
    def _given_back(self) -> Engine:
        """What a connection belongs to that was given back, its user's object that is."""
        return self._make_nowhere()

    def _make_nowhere(self) -> Engine:
        return sqlalchemy_asyncio.create_async_engine(
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
        """An engine. That it can connect has been tried, by a connection that is closed again: the
        pool is empty, as SQLAlchemy's are at first."""
        engine = self._make_engine(target, options)
        watch = watch_of(engine.pool)

        def refuse_closed(_: object, entry: ConnectionPoolEntry, __: object) -> None:
            if self._driver.is_closed(entry.driver_connection):
                if watch.at_once:
                    raise NotAtHand
                raise DisconnectionError("the server closed the connection while it was idle")

        def note_failure(_: object, entry: ConnectionPoolEntry, exc: BaseException | None) -> None:
            if exc is not None:
                attempt = watch.attempt
                refused = isinstance(exc, DisconnectionError)
                attempt.refused |= refused
                attempt.failed |= not refused
                connection = entry.driver_connection
                attempt.broken = self._driver.is_closed(connection)
                attempt.stale |= attempt.broken and connection not in attempt.opened

        def note_ready(_: object, entry: ConnectionPoolEntry) -> None:
            watch.attempt.ready = True
            if watch.trying:
                self._driver.abandon(entry.driver_connection)
                raise _Tried

        # Where it is refused, SQLAlchemy opens another in its place.
        event.listen(engine.sync_engine, "checkout", refuse_closed, insert=True)
        event.listen(engine.sync_engine, "invalidate", note_failure, insert=True)
        # After SQLAlchemy's own listeners and those of users, which set up the connection.
        event.listen(engine.sync_engine, "connect", note_ready)
        watch.trying = True
        try:
            # Nothing that this waits for, nobody else waits for.
            await cut_first(self._try(engine), partial(self._abandon, watch))
        except BaseException as exc:
            await self.terminate_pool(engine)
            if isinstance(exc, ArgumentError):  # an isolation level that there is not
                raise ValueError(str(exc)) from exc
            raise
        finally:
            watch.trying = False
        return engine

    async def _try(self, engine: AsyncEngine) -> None:
        """Open a connection, and close it before listeners to users' acquires hear of it."""
        try:
            await engine.connect()
        except _Tried:
            return
        finally:
            watch_of(engine.pool).end()

    async def reserve(self, target: Target, /, **options: Any) -> ReservedConnection:
        """The driver's connection, opened as SQLAlchemy would: by what the user's ``connect_args``
        say, by their creator, after the listeners of "do_connect"."""
        self._make_engine(target, options)
        connect_args = self._driver.to_reserve(options.get("connect_args") or {})
        kept = {name: value for name, value in options.items() if name in _TO_CONNECT}
        kept |= {"connect_args": connect_args, "poolclass": NullPool}
        engine = self._make_engine(target, kept)
        watch = watch_of(engine.pool)
        try:
            opening = self._open(engine, own=bool(kept.keys() & {"async_creator", "creator"}))
            return await cut_first(opening, partial(self._abandon, watch), _terminate)
        except BaseException as exc:
            self._abandon(watch)
            # What SQLAlchemy makes of asyncpg's errors, to wrap it later, is of no use to anybody.
            cause = exc.__cause__
            if _is_dialects(exc, engine) and cause is not None and self._driver.is_own(cause):
                raise cause from None
            raise

    async def _open(self, engine: AsyncEngine, *, own: bool) -> ReservedConnection:
        pool = cast(Watched, engine.pool)
        adapted = await greenlet_spawn(pool.open, Apart())
        connection = engine.dialect.get_driver_connection(adapted)
        return await self._driver.reserved(connection, own=own)

    def _make_engine(self, target: Target, options: dict[str, Any]) -> AsyncEngine:
        """The engine, which opens nothing yet. Its pool is watched."""
        if misplaced := options.keys() & {"url", "pool"}:
            raise TypeError(f"{', '.join(sorted(misplaced))}: each host's comes from the DSN")
        connect_args: dict[str, Any] = dict(options.get("connect_args") or {})
        if misplaced := connect_args.keys() & _FROM_THE_TARGET:
            raise TypeError(f"connect_args: {', '.join(sorted(misplaced))} is for the DSN")
        poolclass = _poolclass(options)
        slots = _slots(poolclass, options)
        url = URL.create(
            f"postgresql+{self.driver}",
            username=target.user,
            host=target.hostaddr or target.host,
            port=target.port,
            database=target.dbname,
        )
        arguments = {
            **options,
            "connect_args": self._driver.connect_args(target, connect_args),
            "poolclass": watched(cast(Any, poolclass)),
        }
        try:
            # Looked up each time: tracing puts its own there, maybe after this module was imported.
            engine = sqlalchemy_asyncio.create_async_engine(url, **arguments)
        except ArgumentError as exc:
            raise ValueError(str(exc)) from exc
        watch = watch_of(engine.pool)
        watch.slots = slots
        watch.is_prompt = not options.get("pool_pre_ping")
        dialect = engine.dialect
        self._driver.make_prompt(dialect)
        dialect.is_disconnect = partial(_is_disconnect, dialect.is_disconnect)  # type: ignore[method-assign]
        return engine

    async def close_pool(self, pool: AsyncEngine, /) -> None:
        # Not by `dispose`, which logs an error with a traceback for a server that does not answer.
        try:
            for connection in list(watch_of(pool.pool).connections):
                with suppress(Exception):
                    await self._driver.close(connection)
        finally:
            await self.terminate_pool(pool)

    async def terminate_pool(self, pool: AsyncEngine, /) -> None:
        for connection in list(watch_of(pool.pool).connections):
            self._driver.terminate(connection)
        # There is nothing left that SQLAlchemy would have to close, and wait for: so this is said
        # also where the event loop is gone, and from where nobody can wait.
        pool.sync_engine.dispose(close=False)

    def _abandon(self, watch: Watch) -> None:
        for connection in list(watch.connections):
            self._driver.abandon(connection)

    def get_pool_maxsize(self, pool: AsyncEngine, /) -> int | None:
        return watch_of(pool.pool).slots

    def get_pool_idle_size(self, pool: AsyncEngine, /) -> int:
        # Other pools keep none for later.
        return pool.pool.checkedin() if isinstance(pool.pool, QueuePool) else 0

    def get_pool_idle_limits(self, pool: AsyncEngine, /) -> tuple[int, int]:
        if not isinstance(pool.pool, QueuePool):
            return 0, 0
        # SQLAlchemy has 0 for no limit.
        return 0, pool.pool.size() or sys.maxsize

    # Connections

    async def acquire_from_pool(self, pool: AsyncEngine, /, **kwargs: Any) -> AsyncConnection:
        watch = watch_of(pool.sync_engine.pool)
        if not kwargs and takes_at_once(pool.sync_engine):
            watch.at_once = True
            try:
                return AsyncConnection(pool, pool.sync_engine.connect())
            except NotAtHand:
                pass  # it was dead, or is to be opened anew
            finally:
                watch.at_once = False
        while True:
            if watch.attempts:
                watch.end()  # of a connect by hand, or of the one at once
            try:
                # Mostly, there is an idle one, and nothing to wait for.
                steps = pool.connect(**kwargs).__await__()
                try:
                    pending = next(steps)
                except StopIteration as stop:
                    connection: AsyncConnection = stop.value
                else:
                    give_up = partial(self._give_up, watch)
                    connection = await go_on(steps, pending, give_up, self.terminate_connection)
            except BaseException as exc:
                attempt = watch.end()
                if attempt is None or not isinstance(exc, Exception):
                    raise
                if attempt.stale and _is_over(exc, attempt):
                    # It took one that had died while it was idle, and so did its listeners, or
                    # SQLAlchemy, which tries three times. One less of these is there now.
                    continue
                if self._is_hooks(exc, attempt, pool):
                    raise HookError("a listener to the pool's events has failed") from exc
                raise
            if watch.attempts and watch.end() and self.is_connection_closed(connection):
                # A listener's own timeout has passed: a cancellation, by all that was known.
                self.terminate_connection(connection)
                continue
            return connection

    def _is_hooks(self, exc: Exception, attempt: Attempt, pool: AsyncEngine) -> bool:
        """Whether a listener of the user's is to blame, and not the host."""
        drivers = isinstance(exc, SQLAlchemyError) or _is_dialects(exc, pool)
        drivers = drivers or self._driver.is_own(exc)
        if not attempt.ready:
            # Of "connect": it could not be set up.
            return not drivers and not isinstance(exc, OSError)
        if attempt.failed:
            # Of "checkout".
            code = self.sqlstate(exc) or ""
            return not (attempt.broken or (drivers and code.startswith(_HOSTS_FAULTS)))
        # SQLAlchemy has given up: they have refused each connection.
        return attempt.refused and not attempt.broken and isinstance(exc, InvalidRequestError)

    def _give_up(self, watch: Watch) -> None:
        """Before SQLAlchemy parts in good order from what it is still setting up."""
        for connection in list(watch.attempt.opened):
            self._driver.abandon(connection)

    async def release_to_pool(
        self, connection: AsyncConnection, pool: AsyncEngine, /, **kwargs: Any
    ) -> None:
        if kwargs:
            raise TypeError(f"SQLAlchemy's close takes no arguments: {', '.join(sorted(kwargs))}")
        sync = connection.sync_connection
        if sync is None or sync.engine is self._given_back:
            raise ValueError("this connection was given back before")
        driver = self._driver
        raw = self._raw(connection)
        detached = raw is not None and sync.connection.is_detached
        try:
            if raw is None:
                if not sync.closed and sync.engine is not self._nowhere:
                    # It was invalidated, and asks nobody.
                    await cut_first(connection.close(), lambda: None)
            elif driver.is_in_use(raw) or driver.is_closed(raw):
                # By another task: the rollback would wait for it, without an end where that
                # listens; and cancelled meanwhile, it would close the socket under it. Or it is
                # broken, which SQLAlchemy would not see: where there is nothing to roll back it
                # does not use it.
                self.terminate_connection(connection)
            elif sync.in_transaction():
                await cut_first(connection.close(), partial(driver.abandon, raw))
            elif not driver.is_idle(raw):
                closing = self._close_after_rollback(connection, raw)
                await cut_first(closing, partial(driver.abandon, raw))
            elif not detached and gives_back_at_once(sync.engine):
                sync.close()
            else:
                await cut_first(connection.close(), partial(driver.abandon, raw))
        except BaseException as exc:
            self.terminate_connection(connection)
            # A rollback that failed on a broken connection is done all the same.
            if not isinstance(exc, DBAPIError | OSError):
                raise
        finally:
            sync.engine = self._given_back
            if detached:
                # By its user; over psycopg, SQLAlchemy leaves such a connection open.
                driver.terminate(raw)

    async def _close_after_rollback(self, connection: AsyncConnection, raw: Any) -> None:
        """Where the user has begun a transaction past SQLAlchemy. Over asyncpg that would leave it
        to the next user."""
        try:
            await self._driver.roll_back(raw)
        finally:
            await connection.close()

    def terminate_connection(self, connection: AsyncConnection, /) -> None:
        sync = connection.sync_connection
        if sync is None or sync.closed:
            return
        if not sync.invalidated:
            raw = self._raw(connection)
            if raw is not None:
                self._driver.terminate(raw)
            # It may have none left, and yet its slot: where it was cancelled while it was reset.
            entry = sync.connection
            if not entry.is_detached:
                # Frees its slot in the pool, and without a greenlet, unlike `invalidate` alone.
                entry.detach()
            # A transaction that was begun cannot be committed any more, only rolled back. Were the
            # connection closed, `commit` and the end of `async with connection.begin()` would do
            # nothing, and raise nothing.
            sync.invalidate()
        # After a rollback SQLAlchemy would connect anew, in a slot that nobody has counted.
        sync.engine = self._nowhere

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

    def is_lost_error(self, exc: BaseException, /) -> bool:
        if isinstance(exc, DBAPIError):
            # Over asyncpg, its driver's own error is the cause of what SQLAlchemy makes of it.
            causes = (exc.orig, None if exc.orig is None else exc.orig.__cause__)
            return exc.connection_invalidated or any(
                cause is not None and self._driver.is_lost_error(cause) for cause in causes
            )
        if isinstance(exc, PendingRollbackError):
            return exc.code == _INVALIDATED
        return isinstance(exc, ConnectionTerminated)

    def transaction(self, connection: AsyncConnection, /) -> AbstractAsyncContextManager[object]:
        sync = connection.sync_connection
        adapted: Any = None
        if sync is not None and not sync.closed and not sync.invalidated:
            adapted = sync.connection.dbapi_connection
        if adapted is not None and adapted.autocommit:
            raise ValueError(
                "isolation_level AUTOCOMMIT: each statement is committed by itself, and a block"
                " that writes can't be tried again"
            )
        return connection.begin()

    def is_connection_closed(self, connection: AsyncConnection, /) -> bool:
        raw = self._raw(connection)
        return raw is None or self._driver.is_closed(raw)

    def in_recovery(self, connection: AsyncConnection, /) -> bool | None:
        raw = self._raw(connection)
        return None if raw is None else self._driver.in_recovery(raw)

    def _raw(self, connection: AsyncConnection) -> Any:
        """The driver's connection; None where there is none, or not any more."""
        sync = connection.sync_connection
        if sync is None or sync.closed or sync.invalidated:
            return None
        adapted = sync.connection.dbapi_connection
        # Not `driver_connection`, which a connection that its user detached has not.
        return None if adapted is None else sync.dialect.get_driver_connection(adapted)


def _is_disconnect(
    ask: Callable[[Any, Any, Any], bool], exc: Any, connection: Any, cursor: Any
) -> bool:
    """What a dialect says of an error. Of a statement on a connection that the manager has
    terminated, SQLAlchemy shows it the cursor alone; of a connect that failed, neither."""
    return (connection is None and cursor is not None) or ask(exc, connection, cursor)


def _refuse() -> NoReturn:
    raise ConnectionTerminated("the pool manager has terminated this connection")


def _terminate(reserved: ReservedConnection) -> None:
    reserved.terminate()


def _is_over(exc: Exception, attempt: Attempt) -> bool:
    """Whether what a listener raised on a broken connection, or that SQLAlchemy has tried often
    enough, ended the acquire; not that it could not connect."""
    return (attempt.failed and attempt.broken) or isinstance(exc, InvalidRequestError)


def _is_dialects(exc: BaseException, pool: AsyncEngine) -> bool:
    """Whether it is what SQLAlchemy makes of a driver's error, to wrap it later."""
    return isinstance(exc, pool.dialect.loaded_dbapi.Error)


def _poolclass(options: dict[str, Any]) -> type[QueuePool | NullPool]:
    poolclass = options.get("poolclass") or AsyncAdaptedQueuePool
    if not isinstance(poolclass, type) or not issubclass(poolclass, QueuePool | NullPool):
        raise ValueError(
            "poolclass must be AsyncAdaptedQueuePool, NullPool, or derived from one of them: the"
            " others keep one connection for all, or fail where a second one is taken"
        )
    return poolclass


def _slots(poolclass: type[QueuePool | NullPool], options: dict[str, Any]) -> int | None:
    """The most connections that a pool of these options ever holds; None: no limit."""
    if not issubclass(poolclass, QueuePool):
        return None
    size, overflow = (options.get(name, default) for name, default in _SIZES.items())
    for name, value, least in (("pool_size", size, 0), ("max_overflow", overflow, -1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}: {value!r}")
    return None if size == 0 or overflow == -1 else size + overflow
