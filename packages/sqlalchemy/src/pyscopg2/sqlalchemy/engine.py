"""Engines whose connections are a manager's: acquired from it, and given back to it.

Such an engine has a dialect and events of its own, and a pool that keeps nothing: SQLAlchemy's
`NullPool`, which opens a connection for each checkout and closes it at the checkin. To open one is
to acquire it here, and to close it is to release it. So whatever SQLAlchemy does with an engine it
does with this one: a session takes a connection when a transaction begins and gives it back when
that ends, options end with it, and what is lost is replaced by a connection to a host that serves.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, NoReturn, cast

from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from pyscopg2.base import AcquireContext, BasePoolManager, WalPosition
from pyscopg2.sqlalchemy.adapter import SqlalchemyAdapter

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

Manager = BasePoolManager[AsyncEngine, AsyncConnection]

_OF_HOSTS = frozenset(
    {
        "async_creator",
        "connect_args",
        "creator",
        "echo_pool",
        "max_overflow",
        "module",
        "pool_events",
        "pool_logging_name",
        "pool_pre_ping",
        "pool_recycle",
        "pool_reset_on_return",
        "pool_size",
        "pool_timeout",
        "pool_use_lifo",
        "poolclass",
    }
)
"""Of the options for `create_async_engine`, those that are for each host's own engine: for its
pool, and for how it connects."""


_FEW = 100
"""So many different requests a program may well have."""


class _Loan:
    """A connection that is out, and the block of `acquire` that it came from."""

    __slots__ = ("block", "connection")

    def __init__(self, block: AcquireContext[AsyncConnection], connection: AsyncConnection) -> None:
        self.block = block
        self.connection = connection


class _Loans:
    """What the engines have from their manager, by the id of the connection that SQLAlchemy sees.
    The dialect's ways to end one are made to end the loan.

    SQLAlchemy calls all of it within a greenlet, where it may wait; or the garbage collector does,
    where nobody can.
    """

    def __init__(self, manager: Manager, dialect: Dialect) -> None:
        self._manager = manager
        self._terminate = manager.adapter.terminate_connection
        self._dialect = dialect
        self._roll_back = dialect.do_rollback
        self._is_initialized = False
        self._loans: dict[int, _Loan] = {}
        self._endings: set[asyncio.Task[None]] = set()
        # Not by listeners to events: an engine that has any pays for it with each statement.
        dialect.do_rollback = self.roll_back  # type: ignore[method-assign]
        dialect.do_close = self.give_back  # type: ignore[method-assign]
        dialect.do_terminate = self.cut  # type: ignore[method-assign]
        dialect.has_terminate = True
        dialect.do_begin_twophase = _refuse_two_phase  # type: ignore[method-assign]

    def open(self, block: AcquireContext[AsyncConnection]) -> DBAPIConnection:
        """Enter the block: its connection, as SQLAlchemy sees it."""
        connection = await_only(block.__aenter__())
        try:
            # Both are there, since it was acquired in this very step of the event loop.
            sync = cast("Connection", connection.sync_connection)
            if not self._is_initialized:
                # What SQLAlchemy finds out about the server with an engine's first connection.
                self._dialect.initialize(sync)
                sync.rollback()
                self._is_initialized = True
            lent = cast("DBAPIConnection", sync.connection.dbapi_connection)
        except BaseException:
            await_only(block.__aexit__(None, None, None))
            raise
        self._loans[id(lent)] = _Loan(block, connection)
        return lent

    def give_back(self, dbapi_connection: DBAPIConnection) -> None:
        """The dialect's `do_close`: end the block that it came from. Again, nothing happens."""
        loan = self._loans.pop(id(dbapi_connection), None)
        if loan is not None:
            self._end(loan, loan.block.__aexit__(None, None, None))

    def cut(self, dbapi_connection: DBAPIConnection) -> None:
        """The dialect's `do_terminate`: it is of no use any more."""
        loan = self._loans.pop(id(dbapi_connection), None)
        if loan is not None:
            self._end(loan, self._cut(loan))

    async def _cut(self, loan: _Loan) -> None:
        self._terminate(loan.connection)
        await loan.block.__aexit__(None, None, None)

    def _end(self, loan: _Loan, ending: Coroutine[Any, Any, None]) -> None:
        try:
            await_only(ending)
        except MissingGreenlet:
            # Its user has forgotten it, and the garbage collector ends it, in whatever thread.
            ending.close()
            loop = self._manager.loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._cut_soon, loan)

    def _cut_soon(self, loan: _Loan) -> None:
        task = asyncio.ensure_future(self._cut(loan))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def roll_back(self, dbapi_connection: PoolProxiedConnection) -> None:
        """The dialect's `do_rollback`. Unanswered for the refresh timeout, its connection is
        terminated, and it fails: as where a block of `acquire` ends."""
        loan = self._loans.get(id(dbapi_connection.dbapi_connection))
        if loan is None:
            self._roll_back(dbapi_connection)
            return
        ending = asyncio.get_running_loop().call_later(
            self._manager.refresh_timeout, self._terminate, loan.connection
        )
        try:
            self._roll_back(dbapi_connection)
        finally:
            ending.cancel()


class Engines:
    """A manager's engines, one for each kind of request. They share all but their pools: listeners,
    options, and the cache of compiled statements."""

    def __init__(self, manager: Manager) -> None:
        adapter = manager.adapter
        if not isinstance(adapter, SqlalchemyAdapter):
            raise TypeError(f"not a manager over SQLAlchemy: its adapter is {adapter!r}")
        targets = manager.targets.values()
        first = next(iter(targets))
        url = URL.create(
            f"postgresql+{adapter.driver}",
            username=first.user,
            database=first.dbname,
            query={"host": [f"{target.host}:{target.port}" for target in targets]},
        )
        options = {
            name: value
            for name, value in manager.pool_factory_kwargs.items()
            if name not in _OF_HOSTS
        }
        # Looked up each time: tracing puts its own there, maybe after this module was imported.
        engine = sqlalchemy_asyncio.create_async_engine(url, **options, poolclass=NullPool)
        self._manager = manager
        self._engine = engine.sync_engine
        self._loans = _Loans(manager, self._engine.dialect)
        self._made: dict[tuple[object, ...], AsyncEngine] = {}
        """Engines by their requests, which are few: to make one costs more than a transaction."""

    def engine(
        self,
        read_only: bool = False,
        fallback_master: bool | None = None,
        master_as_replica_weight: float | None = None,
        timeout: float | None = None,
        max_lag: float | None = None,
        after: WalPosition | str | None = None,
        patience: float | None = None,
    ) -> AsyncEngine:
        """The one for this request, with the arguments of `BasePoolManager.acquire`; likewise the
        errors of wrong ones."""
        request = (read_only, fallback_master, master_as_replica_weight, timeout, max_lag, patience)
        made = self._made.get(request) if after is None else None
        if made is not None:
            return made
        manager, loans = self._manager, self._loans

        def acquire() -> AcquireContext[AsyncConnection]:
            return manager.acquire(
                read_only,
                fallback_master,
                master_as_replica_weight,
                timeout,
                max_lag=max_lag,
                after=after,
                patience=patience,
            )

        acquire().close()  # a wrong argument is known now
        engine: Engine = copy.copy(self._engine)
        # Whatever is left on a connection, the end of its block rolls back.
        engine.pool = NullPool(
            lambda: loans.open(acquire()), dialect=engine.dialect, reset_on_return=None
        )
        made = AsyncEngine(engine)
        if after is None and len(self._made) < _FEW:
            self._made[request] = made
        return made


def _refuse_two_phase(connection: Connection, xid: Any) -> NoReturn:
    raise InvalidRequestError(
        "two-phase transactions are not for a connection that may be lost with its host: what was"
        " prepared there nobody would commit"
    )
