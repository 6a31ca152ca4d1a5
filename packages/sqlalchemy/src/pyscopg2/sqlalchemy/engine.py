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
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from pyscopg2.base import BasePoolManager
from pyscopg2.sqlalchemy.adapter import SqlalchemyAdapter

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sqlalchemy.engine import Connection, Dialect, Engine, Transaction
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


class _Loan:
    """A connection that is out."""

    __slots__ = ("connection", "ending")

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.ending: asyncio.TimerHandle | None = None
        """Ends the connection where its rollback takes too long."""


class _Loans:
    """What an engine has from its manager, by the id of the connection that SQLAlchemy sees."""

    def __init__(self, manager: Manager, dialect: Dialect) -> None:
        self._manager = manager
        self._terminate = manager.adapter.terminate_connection
        self._dialect = dialect
        self._is_initialized = False
        self._loans: dict[int, _Loan] = {}
        self._releases: set[asyncio.Task[None]] = set()

    def open(self, acquiring: Awaitable[AsyncConnection]) -> DBAPIConnection:
        """The connection that this acquires. Within a greenlet, as all of a pool's methods."""
        connection = await_only(acquiring)
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
            await_only(self._manager.release(connection))
            raise
        self._loans[id(lent)] = _Loan(connection)
        return lent

    def give_back(self, lent: DBAPIConnection, *, cut: bool = False) -> None:
        """Release it; ``cut``: it is of no use any more. Again, nothing happens."""
        loan = self._loans.pop(id(lent), None)
        if loan is None:
            return
        if loan.ending is not None:
            loan.ending.cancel()
        if cut:
            self._terminate(loan.connection)
        try:
            await_only(self._manager.release(loan.connection))
        except MissingGreenlet:
            # The garbage collector gives back what its user has forgotten, in whatever thread.
            self._terminate(loan.connection)
            loop = self._manager.loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._release_soon, loan.connection)

    def _release_soon(self, connection: AsyncConnection) -> None:
        task = asyncio.ensure_future(self._manager.release(connection))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    def limit_rollback(self, user: Connection) -> None:
        """The listener to "rollback", which is called before it. Unanswered for the refresh
        timeout it has its connection terminated, and fails then: as where a block of `acquire`
        ends."""
        # One that was invalidated has nothing to roll back on the server.
        loan = None if user.invalidated else self._loans.get(id(user.connection.dbapi_connection))
        transaction = user.get_transaction()
        if loan is None or transaction is None:
            return
        if loan.ending is not None:
            loan.ending.cancel()
        loop = asyncio.get_running_loop()
        loan.ending = loop.call_later(
            self._manager.refresh_timeout, self._end, loan, user, transaction
        )

    def _end(self, loan: _Loan, user: Connection, transaction: Transaction) -> None:
        # A transaction is the connection's until its rollback has ended.
        if user.get_transaction() is transaction:
            self._terminate(loan.connection)


class _LendingDialect:
    """What a pool asks of a dialect. To close a connection is to give it back."""

    is_async = True
    has_terminate = True

    def __init__(self, loans: _Loans, dialect: Dialect) -> None:
        self._loans = loans
        self._dialect = dialect

    def do_rollback(self, connection: PoolProxiedConnection) -> None:
        self._dialect.do_rollback(connection)

    def do_commit(self, connection: PoolProxiedConnection) -> None:
        self._dialect.do_commit(connection)

    def do_close(self, connection: DBAPIConnection) -> None:
        self._loans.give_back(connection)

    def do_terminate(self, connection: DBAPIConnection) -> None:
        self._loans.give_back(connection, cut=True)

    def get_driver_connection(self, connection: DBAPIConnection) -> Any:
        return self._dialect.get_driver_connection(connection)


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
        event.listen(self._engine, "rollback", self._loans.limit_rollback)
        event.listen(self._engine, "begin_twophase", _refuse_two_phase)

    def engine(self, **request: Any) -> AsyncEngine:
        """The one for this request, with the arguments of `BasePoolManager.acquire`; likewise the
        errors of wrong ones."""
        manager, loans = self._manager, self._loans
        manager.acquire(**request)  # a wrong argument is known now

        def open_connection() -> DBAPIConnection:
            return loans.open(manager.acquire(**request))

        lending = _LendingDialect(loans, self._engine.dialect)
        engine: Engine = copy.copy(self._engine)
        engine.pool = NullPool(open_connection, dialect=cast("Any", lending))
        return AsyncEngine(engine)


def _refuse_two_phase(_: Connection, __: object) -> None:
    raise InvalidRequestError(
        "two-phase transactions are not for a connection that may be lost with its host: what was"
        " prepared there nobody would commit"
    )
