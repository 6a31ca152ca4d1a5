"""An adapter over aiopg's pools, or over what is made of them."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from pyscopg2.core.adapter.aiopg.addresses import addresses
from pyscopg2.core.adapter.aiopg.arguments import PoolArguments, connect_timeout
from pyscopg2.core.adapter.aiopg.connection import cut, in_recovery
from pyscopg2.core.adapter.aiopg.errors import AiopgErrors
from pyscopg2.core.adapter.aiopg.reserved import AiopgReserved
from pyscopg2.core.adapter.aiopg.transaction import AiopgTransaction
from pyscopg2.core.adapter.protocol import HookError
from pyscopg2.core.adapter.stepping import resume
from pyscopg2.core.dsn.target import Target

T = TypeVar("T")

_PAUSE = 0.01
"""Seconds between two looks at a pool that is closing."""


class DriverPool(Protocol):
    """What aiopg's `Pool` and aiopg.sa's `Engine` have in common."""

    @property
    def minsize(self) -> int: ...
    @property
    def maxsize(self) -> int | None: ...
    @property
    def size(self) -> int: ...
    @property
    def freesize(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def acquire(self) -> Any: ...
    def release(self, conn: Any, /) -> Any: ...
    def close(self) -> None: ...
    def terminate(self) -> None: ...
    def wait_closed(self) -> Coroutine[Any, Any, None]: ...


class DriverConnection(Protocol):
    """What aiopg's `Connection` and aiopg.sa's `SAConnection` have in common."""

    @property
    def closed(self) -> object: ...


DriverPoolT = TypeVar("DriverPoolT", bound=DriverPool)
DriverConnT = TypeVar("DriverConnT", bound=DriverConnection)


class AiopgPools(Generic[DriverPoolT, DriverConnT]):
    """`pyscopg2.core.adapter.Adapter` by aiopg's public API.

    As it stands, for its `Pool`. Over pools of another kind, what makes them and their connections
    of aiopg's, and back, is overridden, and so is the way out of them and in again.
    """

    def __init__(
        self, driver: str, aiopg: Any, psycopg2: Any, *, own: frozenset[str] = frozenset()
    ) -> None:
        """The name to call it by, the modules, and the options that are neither's."""
        self._aiopg = aiopg
        self._psycopg2 = psycopg2
        self._arguments = PoolArguments(driver, aiopg, psycopg2, own=own)
        self._errors = AiopgErrors(psycopg2)
        self._connect_timeouts: WeakKeyDictionary[DriverPoolT, float] = WeakKeyDictionary()
        """Seconds, for pools whose DSN limits a connect: asynchronous libpq leaves that to us."""
        self._connecting: list[asyncio.Task[Any] | None] = []
        """The tasks whose acquires connect, once for each: others ask the pool itself."""
        self._cut: WeakSet[Any] = WeakSet()
        """What was terminated, be it out or back: aiopg's connections."""
        self._buried: WeakSet[Any] = WeakSet()
        """Of those, what `terminate_pool` has given back."""
        self._ended: WeakSet[Any] = WeakSet()
        """The pools that `terminate_pool` has ended."""

    # What pools of another kind are made of

    def _made(self, pool: Any, dsn: str, options: dict[str, Any]) -> DriverPoolT:
        """The adapter's, of aiopg's. ``dsn`` is that of a connection."""
        made: DriverPoolT = pool
        return made

    def _raw(self, connection: DriverConnT) -> Any:
        """The connection of aiopg's under it; None where the user has given it back."""
        return connection

    def _wrapped(self, raw: Any, pool: DriverPoolT) -> Any:
        """A user's connection over one of aiopg's."""
        return raw

    # Pools

    def check_options(self, target: Target, /, **options: Any) -> None:
        self._arguments.check(target, options)

    async def create_pool(self, target: Target, /, **options: Any) -> DriverPoolT:
        self.check_options(target, **options)
        settings = self._arguments.settings(target, options)
        return await self._at_one_of(
            await addresses(target), lambda address: self._open(settings | address, options)
        )

    async def reserve(self, target: Target, /, **options: Any) -> AiopgReserved:
        self.check_options(target, **options)
        # That of the login may be one that psycopg2 can't read.
        settings = self._arguments.settings(target, options) | {"client_encoding": "UTF8"}
        return await self._at_one_of(
            await addresses(target), lambda address: self._reserve(settings | address)
        )

    async def _at_one_of(
        self, addresses: list[dict[str, str]], connect: Callable[[dict[str, str]], Awaitable[T]]
    ) -> T:
        """The first of a host's addresses where somebody answers."""
        *others, last = addresses
        for address in others:
            try:
                return await connect(address)
            except (self._errors.operational, TimeoutError) as exc:
                # pg_hba.conf judges by where one comes from, which may differ between them.
                if self.sqlstate(exc) not in (None, "28000"):
                    raise
        return await connect(last)

    async def _open(self, settings: dict[str, Any], options: dict[str, Any]) -> DriverPoolT:
        arguments = self._arguments.of_pool(options)
        arguments["on_connect"] = partial(
            self._on_connect, arguments["enable_hstore"], arguments["on_connect"]
        )
        arguments["enable_hstore"] = False
        # Not `aiopg.create_pool`: if that fails halfway, what it has opened stays open until
        # the garbage collector comes by. The constructor opens nothing, the first acquire does.
        pool = self._aiopg.Pool(self._arguments.dsn(settings), **arguments)
        timeout = connect_timeout(settings)
        # aiopg opens as many as the minimum first, one after another.
        limit = timeout and timeout * max(1, pool.minsize)
        failure: BaseException
        try:
            raw = await self._connect(
                pool, limit, pool.acquire(), lambda raw: give_back(pool, raw, raw)
            )
            give_back(pool, raw, raw)
        except HookError as exc:
            await _end(pool)
            failure = exc.__cause__ or exc
        except BaseException:
            await _end(pool)
            raise
        else:
            made = self._made(pool, raw.dsn, options)
            if timeout is not None:
                self._connect_timeouts[made] = timeout
            return made
        raise failure  # as the hook raised it

    async def _reserve(self, settings: dict[str, Any]) -> AiopgReserved:
        async with asyncio.timeout(connect_timeout(settings)):
            connecting = self._aiopg.connect(
                self._arguments.dsn(settings),
                enable_json=False,
                enable_hstore=False,
                enable_uuid=False,
            )
            connection = await self._errors.heed(connecting, cut)
        return AiopgReserved(connection, self._psycopg2.extensions, self._errors)

    async def _on_connect(
        self,
        hstore: bool,
        on_connect: Callable[[Any], Awaitable[None]] | None,
        connection: Any,
    ) -> None:
        """What remains to be done on a new connection; where it fails, the connection is closed.

        aiopg forgets it without closing it, in its own `enable_hstore` as in the user's function.
        """
        try:
            if hstore:
                await self._register_hstore(connection)
            if on_connect is None:
                return
            try:
                await on_connect(connection)
            except Exception as exc:
                ours = asyncio.current_task() in self._connecting
                if not ours or connection.closed or self._errors.tells_of_the_host(exc):
                    raise
                raise HookError from exc
        except BaseException:
            cut(connection)
            raise

    async def _register_hstore(self, connection: Any) -> None:
        """What aiopg's `enable_hstore` does."""
        async with connection.cursor(cursor_factory=self._psycopg2.extensions.cursor) as cursor:
            await cursor.execute("SELECT oid, typarray FROM pg_type WHERE typname = 'hstore'")
            types = await cursor.fetchall()
        # aiopg has imported it.
        self._psycopg2.extras.register_hstore(
            connection.raw,
            oid=tuple(oid for oid, _ in types),
            array_oid=tuple(array_oid for _, array_oid in types),
        )

    async def close_pool(self, pool: DriverPoolT, /) -> None:
        pool.close()
        while not pool.closed:
            try:
                # Nobody wakes it where the last connection comes back closed: so look again.
                async with asyncio.timeout(_PAUSE):
                    await pool.wait_closed()
            except TimeoutError:
                pass

    async def terminate_pool(self, pool: DriverPoolT, /) -> None:
        for raw in tuple(self._cut):
            # aiopg closes all that are out, once more. A connection that has ended it only drops.
            with suppress(ValueError):
                give_back(pool, self._wrapped(raw, pool), raw)
                self._buried.add(raw)
        self._ended.add(pool)
        await _end(pool)

    # Taking and giving back

    async def acquire_from_pool(self, pool: DriverPoolT, /, **kwargs: Any) -> DriverConnT:
        steps = pool.acquire(**kwargs).__await__()
        try:
            pending = next(steps)
        except StopIteration as idle:
            connection: DriverConnT = idle.value
            return connection
        except AssertionError as exc:
            raise self._errors.broken(exc) from exc
        return await self._wait_for_connect(pool, resume(steps, pending))

    async def _wait_for_connect(
        self, pool: DriverPoolT, acquiring: Awaitable[DriverConnT]
    ) -> DriverConnT:
        """The rest of an acquire that has taken its first step."""
        limit = None if pool.freesize else self._connect_timeouts.get(pool)
        if limit is not None:
            # aiopg opens first what is missing to the minimum, one after another. It counts the
            # one that is being opened already.
            limit *= max(1, pool.minsize - pool.size + 1)
        return await self._connect(
            pool,
            limit,
            acquiring,
            lambda connection: give_back(pool, connection, self._raw(connection)),
        )

    async def _connect(
        self,
        pool: DriverPool,
        limit: float | None,
        acquiring: Awaitable[T],
        undo: Callable[[T], None],
    ) -> T:
        """``limit``: seconds for all that the pool opens meanwhile."""
        task = asyncio.current_task()
        self._connecting.append(task)
        try:
            async with asyncio.timeout(limit):
                return await self._errors.heed(_past_the_dead(pool, acquiring), undo)
        finally:
            self._connecting.remove(task)
            if pool in self._ended:
                # aiopg fills its pool up to the minimum, and what it has opened since stays there.
                _close_free(pool)

    async def release_to_pool(
        self, connection: DriverConnT, pool: DriverPoolT, /, **kwargs: Any
    ) -> None:
        # The connection is back when this returns. The future that it returns waits until nobody
        # connects, which on a frozen host takes long, and only wakes who waits inside the driver.
        try:
            give_back(pool, connection, connection, **kwargs)
        except ValueError:
            if connection not in self._buried:
                raise
            self._buried.discard(connection)

    # Connections

    def terminate_connection(self, connection: DriverConnT, /) -> None:
        raw = self._raw(connection)
        if raw is not None:
            cut(raw)
            self._cut.add(raw)

    def is_connection_closed(self, connection: DriverConnT, /) -> bool:
        return bool(connection.closed)

    def in_recovery(self, connection: DriverConnT, /) -> bool | None:
        return in_recovery(connection, self._errors)

    # Questions

    async def fetch_scalar(self, connection: DriverConnT, query: str, /) -> object:
        raw = self._raw(connection)
        if raw is None:
            raise self._errors.interface("the connection was given back already")
        return await self._errors.heed(self._fetch_scalar(raw, query), lambda _: None)

    async def _fetch_scalar(self, connection: Any, query: str) -> object:
        # The user's cursor_factory may make rows that have no first column.
        async with connection.cursor(cursor_factory=self._psycopg2.extensions.cursor) as cursor:
            await cursor.execute(query)
            return (await cursor.fetchone())[0]

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return self._errors.sqlstate(exc)

    def transaction(self, connection: DriverConnT, /) -> AbstractAsyncContextManager[object]:
        return AiopgTransaction(connection, self._psycopg2.extensions.cursor, self._errors)

    def is_lost_error(self, exc: BaseException, /) -> bool:
        return self._errors.is_lost(exc)

    def get_pool_maxsize(self, pool: DriverPoolT, /) -> int | None:
        return pool.maxsize

    def get_pool_idle_size(self, pool: DriverPoolT, /) -> int:
        return pool.freesize

    def get_pool_idle_limits(self, pool: DriverPoolT, /) -> tuple[int, int]:
        return pool.minsize, sys.maxsize if pool.maxsize is None else pool.maxsize


def give_back(pool: DriverPool, connection: Any, raw: Any, /, **kwargs: Any) -> None:
    """``raw`` is aiopg's, under the connection. `ValueError`: it is not out."""
    try:
        pool.release(connection, **kwargs)
    except ResourceWarning:
        # An open transaction, and warnings are errors: aiopg had yet to close it.
        cut(raw)
        raise
    except (AssertionError, LookupError):
        raise ValueError("not a connection of this pool's, or given back already") from None


async def _past_the_dead(pool: DriverPool, acquiring: Awaitable[T]) -> T:
    """What was idle may have died when aiopg has filled the pool up. It asserts that it has not,
    once the connection is not in the pool any more."""
    for _ in range(max(pool.minsize, pool.size)):
        try:
            return await acquiring
        except AssertionError:
            acquiring = pool.acquire()
    return await acquiring


async def _end(pool: DriverPool) -> None:
    pool.terminate()
    _close_free(pool)


def _close_free(pool: DriverPool) -> None:
    """In its first step the pool's `wait_closed` closes what is free. After that it would wait for
    connects under way, which are for the acquires to end that wait for them."""
    steps = pool.wait_closed().__await__()
    with suppress(StopIteration):
        next(steps)
    steps.close()
