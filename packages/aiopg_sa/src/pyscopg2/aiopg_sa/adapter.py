"""What the core asks of aiopg.sa."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

import aiopg
import psycopg2
from aiopg.sa import (
    Engine,
    SAConnection,
    create_engine,  # pyright: ignore[reportUnknownVariableType]  it has no annotations
)
from aiopg.sa.exc import ResourceClosedError
from psycopg2 import extensions

from pyscopg2.core.adapter.aiopg.connection import in_recovery
from pyscopg2.core.adapter.aiopg.pools import AiopgPools, DriverPool, give_back
from pyscopg2.core.adapter.stepping import resume

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from aiopg.connection import Connection
    from aiopg.pool import Pool

    from pyscopg2.core.adapter.aiopg.errors import AiopgErrors

_DIALECT: Any = (
    inspect.signature(cast("Callable[..., Any]", create_engine)).parameters["dialect"].default
)
"""aiopg.sa's own SQLAlchemy dialect."""

_IDLE = extensions.TRANSACTION_STATUS_IDLE


class _Transaction(Protocol):
    """What is used of `aiopg.sa.Transaction`."""

    async def rollback(self) -> None: ...


class _Begun(Protocol):
    """What `aiopg.sa.SAConnection.begin` returns: for ``await``, or for ``async with``."""

    def __await__(self) -> Generator[Any, Any, _Transaction]: ...
    async def __aenter__(self) -> _Transaction: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object: ...


class _SAConnection(Protocol):
    """What is used of `aiopg.sa.SAConnection`."""

    @property
    def connection(self) -> Connection | None: ...
    @property
    def closed(self) -> int: ...
    @property
    def in_transaction(self) -> bool: ...
    def begin(self) -> _Begun: ...
    async def close(self) -> None: ...


class _PromptEngine(Engine):
    """An engine to which a connection is given back without waiting."""

    def __init__(self, dialect: Any, pool: Pool, dsn: str | None) -> None:
        super().__init__(dialect, pool, dsn)  # type: ignore[no-untyped-call]
        self.lent: dict[int, SAConnection] = {}
        """What the adapter has handed out, by ``id()``: one that its user has closed knows nothing
        of aiopg's connection any more."""

    def release(self, conn: SAConnection) -> Awaitable[None]:
        """The connection is back when this returns. The engine's own future waits until nobody
        connects, which on a frozen host takes long, and only wakes who waits inside the driver."""
        super().release(conn)  # type: ignore[no-untyped-call]
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class _RootTransaction:
    """aiopg.sa's own around a block, whose `CancelledError` is one."""

    def __init__(self, connection: _SAConnection, errors: AiopgErrors) -> None:
        self._begun = connection.begin()
        self._errors = errors

    async def __aenter__(self) -> None:
        await self._errors.heed(self._begun.__aenter__(), lambda _: None)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ending = self._begun.__aexit__(exc_type, exc, traceback)
        await self._errors.heed(ending, lambda _: None)


class AiopgSaAdapter(AiopgPools[Engine, SAConnection]):
    """`pyscopg2.core.adapter.Adapter` over aiopg.sa's public API."""

    def __init__(self) -> None:
        super().__init__("aiopg.sa", aiopg, psycopg2, own=frozenset({"dialect"}))

    def _made(self, pool: Pool, dsn: str, options: dict[str, Any]) -> Engine:
        return _PromptEngine(options.get("dialect", _DIALECT), pool, dsn)

    def _raw(self, connection: SAConnection) -> Connection | None:
        return cast(_SAConnection, connection).connection

    def _wrapped(self, raw: Connection, pool: Engine) -> SAConnection:
        return SAConnection(raw, pool)  # type: ignore[no-untyped-call]

    async def acquire_from_pool(self, pool: Engine, /, **kwargs: Any) -> SAConnection:
        engine: DriverPool = pool
        steps = engine.acquire(**kwargs).__await__()
        try:
            pending = next(steps)
        except StopIteration as idle:
            connection: SAConnection = idle.value
        except AssertionError as exc:
            raise self._errors.broken(exc) from exc
        else:
            connection = await self._wait_for_connect(pool, resume(steps, pending))
        if isinstance(pool, _PromptEngine):
            pool.lent[id(connection)] = connection
        return connection

    async def release_to_pool(
        self, connection: SAConnection, pool: Engine, /, **kwargs: Any
    ) -> None:
        if kwargs:
            raise TypeError(f"aiopg.sa's release takes no arguments: {', '.join(sorted(kwargs))}")
        typed = cast(_SAConnection, connection)
        raw = typed.connection
        known = isinstance(pool, _PromptEngine) and pool.lent.pop(id(connection), None) is not None
        if raw is None:
            if not known:
                raise ValueError("not a connection of this pool's, or given back already")
            return  # its user has closed it, which gives it back
        if not raw.closed and raw.raw.get_transaction_status() == _IDLE:
            # So that nobody reaches the next user's transaction by this one. A connection that is
            # lost stays as it is: a transaction of its own would end in silence otherwise.
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            try:
                await typed.close()
            except asyncio.CancelledError:
                # Where it believes in a transaction, it asks the server, and goes on with that by
                # itself; or the server has refused, and it will not give the connection back.
                if typed.connection is not None:
                    self.terminate_connection(connection)
                    with suppress(ValueError):
                        give_back(pool, connection, raw)
                if task is None or task.cancelling() > before:
                    raise
            return
        try:
            give_back(pool, connection, raw)
        except ValueError:
            if raw not in self._buried:
                raise
            self._buried.discard(raw)

    def transaction(self, connection: SAConnection, /) -> AbstractAsyncContextManager[object]:
        return _RootTransaction(cast(_SAConnection, connection), self._errors)

    def is_lost_error(self, exc: BaseException, /) -> bool:
        # What aiopg.sa says of a connection that was given back, as a terminated one is.
        return isinstance(exc, ResourceClosedError) or super().is_lost_error(exc)

    def in_recovery(self, connection: SAConnection, /) -> bool | None:
        raw = cast(_SAConnection, connection).connection
        return None if raw is None else in_recovery(raw, self._errors)

    def end_block(
        self, connection: SAConnection, exc: BaseException | None, /
    ) -> Awaitable[None] | None:
        """A block rolls back the transaction that is still open, as the engine's own does."""
        typed = cast(_SAConnection, connection)
        # Not `SAConnection.close`: where that is cancelled, its rollback goes on by itself.
        return self._roll_back(typed) if typed.in_transaction and not typed.closed else None

    async def _roll_back(self, connection: _SAConnection) -> None:
        # As the engine's own block has it; the connection is closed when it is given back.
        with suppress(Exception):
            # The innermost savepoint comes first.
            while connection.in_transaction and not connection.closed:
                await self._errors.heed(_roll_back_innermost(connection), lambda _: None)


async def _roll_back_innermost(connection: _SAConnection) -> None:
    await (await connection.begin()).rollback()
