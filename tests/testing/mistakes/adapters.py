"""Adapters that are wrong in one thing each, as their authors might have written them.

Those on the kit are the page's adapter (`plain_psycopg`); where the driver's own pool matters, they
are asyncpg's.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import psycopg
from tests.testing import plain_psycopg as plain
from tests.testing.right_adapters import Committing, Kept, Reserving

from pyscopg2.asyncpg import AsyncpgAdapter
from pyscopg2.core.adapter.pooled import ConnectionPool
from pyscopg2.core.dsn import Target
from pyscopg2.testing.bench import chain

Right = plain.PsycopgAdapter
Connection = plain.Connection
Pool = plain.Pool


class RoomOnlyAsANumber(AsyncpgAdapter):
    """Says that there is room for the monitor, and has the driver's pool as small as ever."""

    reserve: Any = None

    def get_pool_maxsize(self, pool: Any, /) -> int:
        return int(pool.get_max_size()) + 1


class RoomAsARealLimit(AsyncpgAdapter):
    """Has no room for the monitor, and says so."""

    reserve: Any = None


class SwallowsCancellations(Right):
    async def create_pool(self, target: Target, /, **options: Any) -> Pool:
        creating = asyncio.ensure_future(super().create_pool(target, **options))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(creating)
        return await creating


class SucceedsWhenCancelled(Right):
    async def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Connection:
        acquiring = asyncio.ensure_future(super().acquire_from_pool(pool, **kwargs))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(acquiring)
        return await acquiring


class TellsOfCancellationsAsErrors(Right):
    async def fetch_scalar(self, connection: Connection, query: str, /) -> object:
        try:
            return await super().fetch_scalar(connection, query)
        except asyncio.CancelledError:
            raise psycopg.errors.QueryCanceled from None


class LeaksTransactions(Right):
    async def reset(self, connection: Connection, /) -> None: ...


class WaitsForTheServerToEnd(Right):
    """Takes leave in good order, and for a frozen server that is long."""

    def terminate_connection(self, connection: Connection, /) -> None:
        try:
            other = socket.socket(fileno=connection.fileno())
        except psycopg.OperationalError:
            return  # it is closed
        try:
            other.shutdown(socket.SHUT_WR)
            other.setblocking(True)
            while other.recv(4096):
                pass
        finally:
            other.detach()


def forget(task: asyncio.Future[Any]) -> None:
    """Nobody hears of its error."""
    if not task.cancelled():
        task.exception()


class OnlyClosesTheObject(AsyncpgAdapter):
    """Which asks the server first to cancel what is under way."""

    def terminate_connection(self, connection: Any, /) -> None:
        closing = asyncio.ensure_future(connection.close())
        closing.add_done_callback(forget)


class TerminatesLater(Right):
    def terminate_connection(self, connection: Connection, /) -> None:
        asyncio.get_running_loop().call_later(2, super().terminate_connection, connection)


class WaitsForUsers(Right):
    async def terminate_pool(self, pool: Pool, /) -> None:
        while pool.out:
            await asyncio.sleep(0.01)
        await super().terminate_pool(pool)


class ReadsTheCause(Right):
    def sqlstate(self, exc: BaseException, /) -> str | None:
        return next(filter(None, map(super().sqlstate, chain(exc))), None)


class CommitsOnErrors(Committing):
    async def end_block(self, connection: Any, exc: BaseException | None, /) -> None:
        await connection.execute("COMMIT")


class HandsOutWhatIsClosed(Right):
    async def acquire_from_pool(self, pool: Pool, /, **kwargs: Any) -> Connection:
        if not pool.idle or kwargs:
            return await super().acquire_from_pool(pool, **kwargs)
        connection = pool.idle.pop()
        pool.out[id(connection)] = connection
        return connection


class ConnectsInTheBackground(Right):
    async def create_pool(self, target: Target, /, **options: Any) -> Pool:
        return ConnectionPool(target, options.get("max_size", 10), {})


class HasNoLimitWhereThereIsOne(AsyncpgAdapter):
    def get_pool_maxsize(self, pool: Any, /) -> Any:
        return None


class FreesTwice(Right):
    async def release_to_pool(self, connection: Connection, pool: Pool, /, **kwargs: Any) -> None:
        pool.out.pop(id(connection), None)
        pool.idle.append(connection)


class DropsParameters(Right):
    async def connect(self, target: Target, /) -> Connection:
        return await super().connect(replace(target, params={}))


class IgnoresOptions(Right):
    check_options: Any = None

    async def create_pool(
        self, target: Target, /, min_size: int = 1, max_size: int = 10, **_: Any
    ) -> Pool:
        pool = Pool(target, max_size, {})
        pool.idle.append(await self.connect(target))
        return pool


class DoesNotLookAtTheSocket(Right):
    def is_connection_closed(self, connection: Connection, /) -> bool:
        return connection.closed


class LosesItsPlaceWhenCancelled(AsyncpgAdapter):
    async def release_to_pool(self, connection: Any, pool: Any, /, **kwargs: Any) -> None:
        await asyncio.sleep(0)  # for whatever is done first
        await super().release_to_pool(connection, pool, **kwargs)


class RunsHooksForTheMonitor(Reserving):
    async def reserve(self, target: Any, /, **options: Any) -> Any:
        pool = await self.create_pool(target, **options)
        return Kept(await pool.acquire())


def at_each_acquire(hook: Callable[[], None]) -> Mapping[str, Any]:
    async def setup(_: object) -> None:
        hook()

    return {"setup": setup}
