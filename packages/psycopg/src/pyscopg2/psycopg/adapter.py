"""What the core asks of psycopg and psycopg_pool."""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo, TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from pyscopg2.core.adapter import HookError
from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.refusals import refusal_sqlstate
from pyscopg2.core.dsn import Target
from pyscopg2.psycopg.cutting import cut, cut_off, cut_query, is_closed, let_go
from pyscopg2.psycopg.reserved import Reserved, connect, in_recovery, resolved
from pyscopg2.psycopg.steps import (
    TIMED,
    bounded_by_psycopg,
    cancellations,
    in_a_task,
    to_its_end,
)
from pyscopg2.psycopg.watch import Connection, Pool, Watch

_CHOICE_OF_HOST = {"target_session_attrs", "load_balance_hosts"}
"""They are the manager's."""

_FROM_THE_TARGET = {"conninfo", "host", "hostaddr", "port"} | _CHOICE_OF_HOST


class PsycopgAdapter:
    """`pyscopg2.core.adapter.Adapter` over psycopg's and psycopg_pool's public API."""

    def __init__(self) -> None:
        self._watches: WeakKeyDictionary[Pool, Watch] = WeakKeyDictionary()
        self._resetting_in: WeakKeyDictionary[Connection, Watch] = WeakKeyDictionary()
        """Those whose release waits for a worker's reset. Looked up, never gone through: one
        adapter serves the managers of all threads."""
        self._cut_in: WeakKeyDictionary[Connection, TransactionStatus] = WeakKeyDictionary()
        """Those that were terminated, and whether a transaction was open then."""
        self._ends: WeakKeyDictionary[Connection, asyncio.Future[None]] = WeakKeyDictionary()
        """Those whose block waits to end, until they are terminated."""

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
        watch = Watch(self.terminate_connection, partial(_try_to_connect, target, options), **hooks)
        # The pool's workers only log their errors.
        await watch.try_for_all()
        pool: Pool = AsyncConnectionPool(
            _conninfo(target), open=False, **{**_with_ours(options), **watch.hooks}
        )
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

    # Taking and giving back

    async def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Connection:
        """A connection that is open, as far as this machine knows, and that passed the user's
        check.

        Those of which that is not so are discarded, and the next one is taken at once: the pool
        itself would sleep for a second after the second such connection, and for two after the
        next. Of those that it connects meanwhile, the second one is an error.

        Where the pool has to connect for it and can't, the driver's own error is raised; the
        pool itself would only log it and let the caller wait.
        """
        watch = self._watches[pool]
        opened = watch.opened
        new = 0
        until: float | None = None
        if kwargs and kwargs.get("timeout") is not None:
            until = time.monotonic() + kwargs["timeout"]
        while True:
            steps = pool.getconn(**kwargs).__await__()
            watch.taking = True
            try:
                pending = next(steps)
            except StopIteration as idle:
                watch.taking = False
                connection: Connection = idle.value
            except BaseException:
                watch.taking = False
                raise
            else:
                watch.taking = False
                connection = await self._wait_for_connect(pool, watch, steps, pending)
            refusal: Exception
            if is_closed(connection):
                refusal = psycopg.OperationalError("the server closed the connection")
            elif not watch.checks:
                return connection
            else:
                try:
                    await self._check(pool, watch, connection)
                    return connection
                except psycopg.Error as exc:
                    refusal = exc
            await self._discard(pool, watch, connection)
            new += not watch.is_among_first(connection, opened)
            if new > 1:
                raise refusal
            if until is not None:
                kwargs["timeout"] = until - time.monotonic()

    async def _wait_for_connect(
        self, pool: Pool, watch: Watch, steps: Generator[Any, Any, Connection], pending: Any
    ) -> Connection:
        failures = watch.failures
        before = cancellations()
        heard: list[asyncio.CancelledError] = []
        try:
            connection = await watch.wait(steps, pending, heard)
        except BaseException as exc:
            if heard and cancellations() > before:
                raise heard[-1] from None
            if not isinstance(exc, asyncio.CancelledError) or watch.failures == failures:
                raise
        else:
            if heard and cancellations() > before:
                # `asyncio.wait_for`, which psycopg_pool uses, may forget that on Python 3.11.
                await self._put(pool, watch, connection)
                raise heard[-1]
            return connection
        finally:
            heard.clear()  # they refer to this frame
        await watch.try_for_all()
        raise psycopg.OperationalError("the pool could not connect")

    async def _check(self, pool: Pool, watch: Watch, connection: Connection) -> None:
        """Run the user's check. `psycopg.Error` where it refuses the connection, or this has
        broken; `HookError` where it fails."""
        before = cancellations()
        try:
            await watch.ask(connection)
            return
        except psycopg.OperationalError:
            raise
        except Exception as exc:
            if is_closed(connection):
                raise psycopg.OperationalError("the connection broke in the pool's check") from exc
            failure: BaseException = exc
        except BaseException as exc:
            if not isinstance(exc, asyncio.CancelledError) or cancellations() > before:
                await self._discard(pool, watch, connection)
                raise
            failure = exc
        await self._put(pool, watch, connection)
        raise HookError("the pool's check failed") from failure

    async def _discard(self, pool: Pool, watch: Watch, connection: Connection) -> None:
        self.terminate_connection(connection)
        await self._put(pool, watch, connection)

    async def release_to_pool(self, connection: Connection, pool: Pool, /, **kwargs: Any) -> None:
        """The way back into the pool goes on to its end where the task is cancelled, since the pool
        would count the connection for ever; a query that it waits for is cut short then."""
        watch = self._watches[pool]
        if watch.has_back(connection):
            raise ValueError("the connection was given back already")
        steps = self._begin_to_put(pool, connection, kwargs)
        try:
            pending = next(steps)
        except StopIteration:
            back = watch.given_back(connection)
        else:
            back = await self._go_on_to_put(watch, connection, steps, pending)
        if back is not None:
            # Unanswered, it is for the manager to terminate; else its workers hang one by one.
            self._resetting_in[connection] = watch
            await cut_first(back, partial(self.terminate_connection, connection))

    async def _put(self, pool: Pool, watch: Watch, connection: Connection) -> None:
        """Give it to the pool, and wait for no reset."""
        steps = self._begin_to_put(pool, connection, {})
        try:
            pending = next(steps)
        except StopIteration:
            watch.given_back(connection)
        else:
            await self._go_on_to_put(watch, connection, steps, pending)

    def _begin_to_put(
        self, pool: Pool, connection: Connection, kwargs: Mapping[str, Any]
    ) -> Generator[Any, Any, None]:
        returning: Awaitable[None] = pool.putconn(connection, **kwargs)
        if connection.lock.locked():
            # A query is under way. The pool would close the connection; under a task that waits
            # for it, that frees a file descriptor which the event loop still watches.
            self.terminate_connection(connection)
            returning = _put_when_free(connection, returning)
        elif TIMED and connection.pgconn.transaction_status != TransactionStatus.IDLE:
            returning = in_a_task(returning)  # it rolls back
        return returning.__await__()

    async def _go_on_to_put(
        self, watch: Watch, connection: Connection, steps: Generator[Any, Any, None], pending: Any
    ) -> asyncio.Future[None] | None:
        """What `Watch.given_back` returns."""
        watch.returning.add(connection)
        try:
            await to_its_end(steps, pending, partial(cut_query, connection))
        finally:
            watch.returning.discard(connection)
            back = watch.given_back(connection)
        return back

    # Connections

    def terminate_connection(self, connection: Connection, /) -> None:
        status = connection.info.transaction_status
        if status is not TransactionStatus.UNKNOWN and connection not in self._cut_in:
            self._cut_in[connection] = status
        cut(connection)
        ended = self._ends.get(connection)
        if ended is not None and not ended.done():
            ended.set_result(None)
        watch = self._resetting_in.get(connection)
        if watch is not None:
            watch.terminated(connection)

    async def end_block(self, connection: Connection, exc: BaseException | None, /) -> None:
        if connection.lock.locked():
            await self._until_free(connection)
        if exc is None:
            if connection.broken:
                self._end_lost(connection)
                return
            ending = connection.__aexit__(None, None, None)
        else:
            ending = connection.__aexit__(type(exc), exc, exc.__traceback__)
        await cut_first(bounded_by_psycopg(ending), partial(cut_off, connection))

    async def _until_free(self, connection: Connection) -> None:
        """Until no other task uses it, and so a moment after it was terminated at the latest."""
        loop = asyncio.get_running_loop()
        ended = self._ends.setdefault(connection, loop.create_future())
        while connection.lock.locked() and not ended.done():
            taking = asyncio.ensure_future(connection.lock.acquire())
            either: set[asyncio.Future[Any]] = {taking, ended}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not taking.cancel():
                    connection.lock.release()
        if connection.lock.locked():
            await let_go(connection)

    def _end_lost(self, connection: Connection) -> None:
        """Psycopg ends a block on a closed connection in silence, whatever is lost with it."""
        status = self._cut_in.get(connection)
        if status is TransactionStatus.IDLE:
            return  # nothing was: what the block has done is committed, by itself
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            raise psycopg.OperationalError(
                "the connection was terminated: the transaction that was open is not committed"
            )
        raise psycopg.OperationalError(
            "the connection is lost: what the block had not committed before is not committed"
        )

    @asynccontextmanager
    async def transaction(self, connection: Connection, /) -> AsyncGenerator[None]:
        async with connection.transaction():
            yield
            if is_closed(connection):
                # Psycopg ends a transaction on a closed connection in silence.
                raise psycopg.OperationalError(
                    "the connection is lost: the transaction is not committed"
                )

    def is_connection_closed(self, connection: Connection, /) -> bool:
        return is_closed(connection)

    def in_recovery(self, connection: Connection, /) -> bool | None:
        return in_recovery(connection)

    # Questions

    async def reserve(self, target: Target, /, **options: Any) -> Reserved:
        self.check_options(target, **options)
        connection_class = options.get("connection_class", psycopg.AsyncConnection)
        kwargs = await resolved(options.get("kwargs"))
        return await Reserved.connect(connection_class, _conninfo(target), kwargs)

    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        fetching = bounded_by_psycopg(_fetch_scalar(connection, query))
        return await cut_first(fetching, partial(cut_off, connection))

    def sqlstate(self, exc: BaseException, /) -> str | None:
        if not isinstance(exc, psycopg.Error):
            return None
        if exc.sqlstate is None and exc.pgconn is not None:
            return _refusal(exc)
        return exc.sqlstate

    def is_lost_error(self, exc: BaseException, /) -> bool:
        # Psycopg has no class for it: what the server has not sent, libpq has said, or psycopg,
        # of the connection. Derived classes are of timeouts, and of the pool.
        return type(exc) is psycopg.OperationalError and exc.sqlstate is None

    def get_pool_maxsize(self, pool: Pool, /) -> int:
        return pool.max_size

    def get_pool_idle_size(self, pool: Pool, /) -> int:
        return pool.get_stats()["pool_available"]

    def get_pool_idle_limits(self, pool: Pool, /) -> tuple[int, int]:
        return pool.min_size, pool.max_size


def _with_ours(options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's pool options.

    A failed connect is not repeated at growing intervals, unless the user wants that: the slot
    is free again at once, and the next acquire tries anew. The manager knows when to.
    """
    for name in ("min_size", "max_size"):
        size = options.get(name)
        if size is not None and not isinstance(size, int):
            raise ValueError(f"{name} must be a whole number: {size!r}")
    return {"reconnect_timeout": 0.0, **options}


def _conninfo(target: Target) -> str:
    # Of one host there is nothing to choose, whatever the environment says.
    params = {**target.params, "target_session_attrs": "any"}
    return replace(target, params=params).to_conninfo()


def _check_conninfo(
    target: Target, kwargs: Mapping[str, Any], connection_class: type[Connection]
) -> None:
    if misplaced := _FROM_THE_TARGET & kwargs.keys():
        raise TypeError(f"kwargs: {', '.join(sorted(misplaced))} is for the DSN")
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    params = {name: value for name, value in kwargs.items() if name in known}
    arguments = inspect.signature(psycopg.AsyncConnection.connect).parameters.keys()
    if _connect_of(connection_class) is not _connect_of(psycopg.AsyncConnection):
        own = inspect.signature(connection_class.connect).parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in own.values())
        # A class that connects by itself may take what psycopg does not know out of these.
        arguments = kwargs.keys() if takes_any else own.keys()
    if unknown := kwargs.keys() - known - arguments:
        raise TypeError(f"psycopg knows no such argument: {', '.join(sorted(unknown))}")
    try:
        make_conninfo(_conninfo(target), **params)
    except psycopg.ProgrammingError as exc:
        raise ValueError(str(exc).strip()) from None
    except UnicodeEncodeError:
        # It carries the whole text, password included.
        raise ValueError("psycopg takes a DSN in UTF-8 only") from None


def _connect_of(connection_class: type[Connection]) -> object:
    return getattr(connection_class.connect, "__func__", None)


async def _try_to_connect(
    target: Target, options: Mapping[str, Any], try_out: Callable[[Connection], Awaitable[None]]
) -> None:
    """Connect as the pool does, and close again: raises what the pool would only log."""
    connection_class: type[Connection] = options.get("connection_class", psycopg.AsyncConnection)
    kwargs = await resolved(options.get("kwargs"))
    connection = await connect(connection_class, _conninfo(target), kwargs)
    try:
        await try_out(connection)
    finally:
        await connection.close()


async def _put_when_free(connection: Connection, returning: Awaitable[None]) -> None:
    await let_go(connection)
    await returning


async def _fetch_scalar(connection: Connection, query: str) -> object:
    """One round trip, outside of transactions, whatever the user's settings are; within the one
    that the user has open, where there is one."""
    switch = (
        not connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE
    )
    if switch:
        await connection.set_autocommit(True)
    try:
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(query.encode(), prepare=False)
            row = await cursor.fetchone()
    finally:
        if switch and connection.info.transaction_status is TransactionStatus.IDLE:
            await connection.set_autocommit(False)
    return None if row is None else row[0]


def _refusal(exc: psycopg.Error) -> str | None:
    """The SQLSTATE of a failed connect."""
    if exc.pgconn is not None and exc.pgconn.needs_password:
        return "28P01"  # libpq had none to send
    # Of several addresses the last one counts, which comes first.
    return refusal_sqlstate(str(exc).partition("Multiple connection attempts failed")[0])
