# pyright: reportUnknownMemberType=false, reportIncompatibleMethodOverride=false
# hasql's types are partial.
"""A driver that does nothing, at once: what an acquire costs over it is the manager's own."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from hasql.abc import PoolDriver
from hasql.metrics import PoolStats
from hasql.pool_manager import BasePoolManager as HasqlBasePoolManager
from hasql.utils import Dsn

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import Adapter
from pyscopg2.core.dsn import Target

DSN = "postgresql://bench@master:5432,replica1:5432,replica2:5432/bench"


LOG = "0/3000148 1 7412345678901234567"
"""Where all hosts are: position, timeline and system."""


class NullConnection:
    __slots__ = ("host",)

    def __init__(self, host: str) -> None:
        self.host = host

    @property
    def is_masters(self) -> bool:
        return "master" in self.host


class NullPool:
    """Hands out what is idle; whoever finds nothing waits, as in the drivers' own pools."""

    def __init__(self, host: str, size: int) -> None:
        self.host = host
        self.size = size
        self._idle = deque(NullConnection(host) for _ in range(size))
        self._waiters: deque[asyncio.Future[NullConnection]] = deque()

    @property
    def free(self) -> int:
        return len(self._idle)

    def acquire(self) -> "NullAcquire":
        return NullAcquire(self)

    async def take(self) -> NullConnection:
        if self._idle:
            return self._idle.pop()
        waiter: asyncio.Future[NullConnection] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return await waiter

    async def give_back(self, connection: NullConnection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)


class NullAcquire:
    """``async with pool.acquire()``."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: NullPool) -> None:
        self._pool = pool
        self._connection: NullConnection | None = None

    def __await__(self) -> Generator[Any, None, NullConnection]:
        return self._pool.take().__await__()

    async def __aenter__(self) -> NullConnection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            await self._pool.give_back(self._connection)


@asynccontextmanager
async def bare(_: str, options: dict[str, Any]) -> AsyncGenerator[Callable[[], NullAcquire]]:
    yield NullPool("master", options["size"]).acquire


async def select(_: NullConnection) -> object:
    """One turn of the event loop, in place of a round trip."""
    await asyncio.sleep(0)
    return 1


class NullAdapter:
    """The `Adapter`: hosts with "master" in their name are that."""

    async def create_pool(self, target: Target, /, **options: Any) -> NullPool:
        return NullPool(target.host or "", options["size"] + 1)

    async def close_pool(self, pool: NullPool, /) -> None: ...

    async def terminate_pool(self, pool: NullPool, /) -> None: ...

    def acquire_from_pool(self, pool: NullPool, /, **_: Any) -> Awaitable[NullConnection]:
        return pool.take()

    def release_to_pool(
        self, connection: NullConnection, pool: NullPool, /, **_: Any
    ) -> Awaitable[None]:
        return pool.give_back(connection)

    def terminate_connection(self, connection: NullConnection, /) -> None: ...

    async def end_block(self, connection: NullConnection, exc: BaseException | None, /) -> None: ...

    async def fetch_scalar(self, connection: NullConnection, query: str, /) -> object:
        if connection.is_masters:
            return f"f off {LOG} 1 - {LOG.split()[0]},328,8192,0/3000148,1,200ms"
        return f"t off {LOG} 2 - 1"

    def sqlstate(self, exc: BaseException, /) -> str | None:
        return None

    def get_pool_maxsize(self, pool: NullPool, /) -> int | None:
        return pool.size

    def is_connection_closed(self, connection: NullConnection, /) -> bool:
        return False


class PoolManager(BasePoolManager[NullPool, NullConnection]):
    adapter: Adapter[NullPool, NullConnection] = NullAdapter()


class HasqlDriver(PoolDriver[NullPool, NullConnection]):
    """The same for hasql."""

    def get_pool_freesize(self, pool: NullPool) -> int:
        return pool.free

    def acquire_from_pool(
        self, pool: NullPool, *, timeout: float | None = None, **_: Any
    ) -> NullAcquire:
        return pool.acquire()

    async def release_to_pool(self, connection: NullConnection, pool: NullPool, **_: Any) -> None:
        await pool.give_back(connection)

    async def is_master(self, connection: NullConnection) -> bool:
        return connection.is_masters

    async def fetch_scalar(self, connection: NullConnection, query: str) -> object:
        raise NotImplementedError

    async def pool_factory(self, dsn: Dsn, **options: Any) -> NullPool:
        return NullPool(str(dsn), options["size"] + 1)

    async def close_pool(self, pool: NullPool) -> None: ...

    async def terminate_pool(self, pool: NullPool) -> None: ...

    def is_connection_closed(self, connection: NullConnection) -> bool:
        return False

    def host(self, pool: NullPool) -> str:
        return pool.host

    def pool_stats(self, pool: NullPool) -> PoolStats:
        return PoolStats(min=pool.size, max=pool.size, idle=pool.free, used=pool.size - pool.free)


class HasqlPoolManager(HasqlBasePoolManager[NullPool, NullConnection]):
    def __init__(self, dsn: str, **settings: Any) -> None:
        super().__init__(dsn, driver=HasqlDriver(), **settings)
