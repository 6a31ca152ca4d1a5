"""What the core asks of psycopg and psycopg_pool."""

import asyncio
import inspect
import re
import socket
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from traceback import clear_frames
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo, PGconn, TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from pyscopg2.core.dsn import Target
from pyscopg2.core.hangup import hung_up
from pyscopg2.psycopg.steps import cut_first, note_pending
from pyscopg2.psycopg.watch import Connection, Pool, Watch

_MIN_SIZE = 4
"""psycopg_pool's default. That of `max_size`, None, is the minimum."""

_CHOICE_OF_HOST = {"target_session_attrs", "load_balance_hosts"}
"""They are the manager's."""

_FROM_THE_TARGET = {"conninfo", "host", "hostaddr", "port"} | _CHOICE_OF_HOST

_REFUSALS = {
    re.compile(r"password authentication failed for user"): "28P01",
    re.compile(r"no pg_hba\.conf entry for|pg_hba\.conf rejects connection for"): "28000",
    re.compile(r'role ".*" (does not exist|is not permitted to log in)'): "28000",
    re.compile(r'database ".*" does not exist'): "3D000",
}


class PsycopgAdapter:
    """`pyscopg2.core.adapter.Adapter` over psycopg's and psycopg_pool's public API."""

    def __init__(self) -> None:
        self._watches: WeakKeyDictionary[Pool, Watch] = WeakKeyDictionary()

    def check_options(self, target: Target, /, **options: Any) -> None:
        if misplaced := {"conninfo", "open"} & options.keys():
            raise TypeError(f"not a pool option here: {', '.join(sorted(misplaced))}")
        if options.get("close_returns"):
            raise ValueError(
                "close_returns: the manager would not hear of a connection that goes back to the"
                " pool where it is closed, and count it as one that is out"
            )
        pool: Pool = AsyncConnectionPool(open=False, **_with_ours(options))
        kwargs: Any = options.get("kwargs") or {}
        _check_conninfo(target, {} if callable(kwargs) else kwargs, pool.connection_class)

    async def create_pool(self, target: Target, /, **options: Any) -> Pool:
        self.check_options(target, **options)
        hooks = {
            name: options.get(name) for name in ("configure", "check", "reset", "reconnect_failed")
        }
        watch = Watch(self.terminate_connection, _cut_off, self.is_connection_closed, **hooks)
        pool: Pool = AsyncConnectionPool(
            _conninfo(target), open=False, **{**_with_ours(options), **watch.hooks}
        )
        # The pool's workers only log their errors.
        await _try_to_connect(pool, watch)
        await watch.open(pool)
        self._watches[pool] = watch
        return pool

    async def close_pool(self, pool: Pool, /) -> None:
        try:
            await pool.close()
        finally:
            await self.terminate_pool(pool)

    async def terminate_pool(self, pool: Pool, /) -> None:
        await self._watches[pool].end()

    async def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Connection:
        """Where the pool has to connect for it and can't, the driver's own error is raised; the
        pool itself would only log it and let the caller wait."""
        steps = pool.getconn(**kwargs).__await__()
        try:
            pending = next(steps)
        except StopIteration as idle:
            connection: Connection = idle.value
            return connection
        return await self._wait_for_connect(pool, steps, pending)

    async def _wait_for_connect(
        self, pool: Pool, steps: Generator[Any, Any, Connection], pending: Any
    ) -> Connection:
        watch = self._watches[pool]
        failures = watch.failures
        cancellations = _cancellations()
        try:
            connection = await note_pending(steps, pending, watch.acquiring)
        except asyncio.CancelledError:
            if watch.failures == failures or _cancellations() > cancellations:
                raise
        else:
            if _cancellations() > cancellations:
                # `asyncio.wait_for`, which psycopg_pool uses, may forget that on Python 3.11.
                await pool.putconn(connection)
                watch.given_back(connection)  # but nobody waits for its reset
                raise asyncio.CancelledError
            return connection
        await watch.try_for_all(partial(_try_to_connect, pool, watch))
        raise psycopg.OperationalError("the pool could not connect")

    async def release_to_pool(self, connection: Connection, pool: Pool, /, **kwargs: Any) -> None:
        watch = self._watches[pool]
        if watch.is_on_the_way_back(connection):
            # The pool notices a second return only when a worker has done with the first.
            raise ValueError("the connection was given back already")
        try:
            if connection.lock.locked():
                # A query is under way. The pool would close the connection; under a task that
                # waits for it, that frees a file descriptor which the event loop still watches.
                self.terminate_connection(connection)
                async with connection.lock:
                    pass
        finally:
            await cut_first(pool.putconn(connection, **kwargs), _cut_off, connection)
        back = watch.given_back(connection)
        if back is not None:
            # Unanswered, it is for the manager to terminate; else its workers hang one by one.
            await cut_first(back, self.terminate_connection, connection)

    def terminate_connection(self, connection: Connection, /) -> None:
        _shut_down(connection)
        if not connection.lock.locked():
            _finish(connection)
        # Else the task that waits for the socket finds it at its end, in the next loop turn.
        for watch in list(self._watches.values()):
            watch.terminated(connection)

    async def end_block(self, connection: Connection, exc: BaseException | None, /) -> None:
        if exc is None and connection.broken:
            # Psycopg ends a block on a closed connection in silence.
            raise psycopg.OperationalError("the connection is lost: nothing was committed")
        if exc is None:
            ending = connection.__aexit__(None, None, None)
        else:
            ending = connection.__aexit__(type(exc), exc, exc.__traceback__)
        if connection.lock.locked():
            await ending
        else:
            await cut_first(ending, _cut_off, connection)

    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        fetching = _fetch_scalar(connection, query)
        return await cut_first(fetching, _cut_off, connection)

    def sqlstate(self, exc: BaseException, /) -> str | None:
        if not isinstance(exc, psycopg.Error):
            return None
        if exc.sqlstate is None and exc.pgconn is not None:
            return _refusal(exc)
        return exc.sqlstate

    def get_pool_freesize(self, pool: Pool, /) -> int:
        return pool.max_size - self._watches[pool].count_out(pool)

    def get_pool_maxsize(self, pool: Pool, /) -> int:
        return pool.max_size

    def is_connection_closed(self, connection: Connection, /) -> bool:
        # psycopg looks at the socket only while it waits for something.
        return connection.closed or hung_up(connection.fileno())


def _with_ours(options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's pool options, with room for the monitor's connection.

    A failed connect is not repeated at growing intervals, unless the user wants that: the place
    is free again at once, and the next acquire tries anew. The manager knows when to.
    """
    min_size: Any = options.get("min_size", _MIN_SIZE)
    max_size: Any = options.get("max_size")
    # Here and not after the addition, which would hide a minimum below 0.
    for name, size in {"min_size": min_size, "max_size": max_size}.items():
        if size is not None and (not isinstance(size, int) or size < 0):
            raise ValueError(f"{name} must be a whole number, at least 0: {size!r}")
    if max_size is None:
        max_size = min_size
    if max_size < 1:
        raise ValueError("max_size must be at least 1")
    if max_size < min_size:
        raise ValueError(f"min_size ({min_size}) is above max_size ({max_size})")
    sizes = {"min_size": min_size + 1, "max_size": max_size + 1}
    return {"reconnect_timeout": 0.0, **options, **sizes}


def _conninfo(target: Target) -> str:
    # Of one host there is nothing to choose, whatever the environment says.
    params = {**target.params, "target_session_attrs": "any"}
    return replace(target, params=params).to_conninfo()


def _check_conninfo(
    target: Target, kwargs: Mapping[str, Any], connection_class: type[Connection]
) -> None:
    if misplaced := _FROM_THE_TARGET & kwargs.keys():
        raise TypeError(f"kwargs: {', '.join(sorted(misplaced))} is for the DSN")
    arguments = inspect.signature(connection_class.connect).parameters
    params = {name: value for name, value in kwargs.items() if name not in arguments}
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    if unknown := params.keys() - known:
        raise TypeError(f"psycopg knows no such argument: {', '.join(sorted(unknown))}")
    try:
        make_conninfo(_conninfo(target), **params)
    except psycopg.ProgrammingError as exc:
        raise ValueError(str(exc).strip()) from None
    except UnicodeEncodeError:
        # It carries the whole text, password included.
        raise ValueError("psycopg takes a DSN in UTF-8 only") from None


async def _try_to_connect(pool: Pool, watch: Watch) -> None:
    """Connect as the pool does, and close again: raises what the pool would only log."""
    kwargs: Any = pool.kwargs or {}
    if callable(kwargs):
        kwargs = kwargs()
        if inspect.isawaitable(kwargs):
            kwargs = await kwargs
    # What the pool was made with; only newer ones take a callable here, and we never do.
    conninfo = str(pool.conninfo)
    try:
        connection: Connection = await pool.connection_class.connect(conninfo, **kwargs)
    except asyncio.CancelledError as exc:
        # What libpq was opening is closed when it is freed: not by the garbage collector, in time.
        clear_frames(exc.__traceback__)
        raise
    try:
        await watch.try_out(connection)
    finally:
        await connection.close()


def _shut_down(connection: Connection) -> None:
    """Shut its socket down, which whoever waits for it reads as the end of the stream."""
    try:
        fileno = connection.fileno()
    except psycopg.OperationalError:
        return  # closed already
    # The family does not matter: the descriptor has its own.
    with socket.fromfd(fileno, socket.AF_INET, socket.SOCK_STREAM) as twin:
        try:
            twin.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first


def _cut_off(connection: Connection) -> None:
    """Terminate a connection whose lock is held by the one who is about to hear of it."""
    _shut_down(connection)
    connection.pgconn.finish()


def _finish(connection: Connection) -> None:
    """Close it, in a way that whoever has a transaction open cannot take for a success."""
    if connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
        connection.pgconn.finish()
    else:
        # `connection.transaction()` ends in silence where its own PGconn is closed. So that one
        # stays as it is, with its socket shut down, for as long as the transaction refers to it.
        dead = PGconn.connect_start(b"=")  # no conninfo: it fails before it opens anything
        dead.finish()
        connection.pgconn = dead


async def _fetch_scalar(connection: Connection, query: str) -> object:
    """One round trip, outside of transactions, whatever the user's settings are."""
    autocommit = connection.autocommit
    if not autocommit:
        await connection.set_autocommit(True)
    try:
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(query.encode(), prepare=False)
            row = await cursor.fetchone()
    finally:
        if not autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
            await connection.set_autocommit(False)
    return None if row is None else row[0]


def _refusal(exc: psycopg.Error) -> str | None:
    """The SQLSTATE of a failed connect. Libpq keeps it to itself, so the message has to tell;
    a server that speaks another language than English is not understood."""
    if exc.pgconn is not None and exc.pgconn.needs_password:
        return "28P01"  # libpq had none to send
    # Of several addresses the last one counts, which comes first.
    text = str(exc).partition("Multiple connection attempts failed")[0]
    return next((code for pattern, code in _REFUSALS.items() if pattern.search(text)), None)


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
