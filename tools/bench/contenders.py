"""Who is compared: for each driver its own pool, pyscopg2 and hasql, used in the same way."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiopg
import asyncpg
from hasql.driver.aiopg import PoolManager as HasqlAiopg
from hasql.driver.asyncpg import PoolManager as HasqlAsyncpg
from hasql.driver.asyncsqlalchemy import PoolManager as HasqlSqlalchemy
from hasql.driver.psycopg3 import PoolManager as HasqlPsycopg
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from pyscopg2.aiopg import PoolManager as OurAiopg
from pyscopg2.asyncpg import PoolManager as OurAsyncpg
from pyscopg2.psycopg import PoolManager as OurPsycopg
from pyscopg2.sqlalchemy import PoolManager as OurSqlalchemy

from . import null

SIZE = 10
"""Connections for users, in every pool."""

BARE = "bare"
OURS = "pyscopg2"
HASQL = "hasql"

Acquire = Callable[[], AbstractAsyncContextManager[Any]]
Select = Callable[[Any], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that hands out a driver's connections."""

    name: str
    acquire: Acquire
    select: Select
    """A query as users of this driver write it."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver, its own pool, and the managers over it."""

    name: str
    bare: Callable[[str, dict[str, Any]], AbstractAsyncContextManager[Acquire]]
    """From one host's DSN and the options."""
    ours: Callable[..., Any]
    hasql: Callable[..., Any]
    options: dict[str, Any]
    """For the driver's pool."""
    select: Select

    @asynccontextmanager
    async def open(self, host_dsn: str, dsn: str) -> AsyncGenerator[list[Contender]]:
        """All contenders at once, ready; the bare one first. ``host_dsn`` is the master's."""
        async with AsyncExitStack() as stack:
            bare = await stack.enter_async_context(self.bare(host_dsn, self.options))
            ours = await stack.enter_async_context(managed(self.ours, dsn, self.options))
            hasql = await stack.enter_async_context(managed(self.hasql, dsn, self.options))
            yield [
                Contender(BARE, bare, self.select),
                Contender(OURS, ours.acquire_master, self.select),
                Contender(HASQL, hasql.acquire_master, self.select),
            ]


@asynccontextmanager
async def managed(
    factory: Callable[..., Any], dsn: str, options: dict[str, Any], **settings: Any
) -> AsyncGenerator[Any]:
    """A manager of either kind with default settings, all its hosts ready."""
    manager = factory(dsn, pool_factory_kwargs=options, **{"acquire_timeout": 10.0, **settings})
    try:
        await manager.ready()
        yield manager
    finally:
        await manager.close()


# asyncpg


@asynccontextmanager
async def _bare_asyncpg(dsn: str, options: dict[str, Any]) -> AsyncGenerator[Acquire]:
    async with asyncpg.create_pool(dsn, **options) as pool:
        yield pool.acquire


def _select_asyncpg(connection: Any) -> Awaitable[object]:
    return connection.fetchval("select 1")  # type: ignore[no-any-return]


# psycopg


@asynccontextmanager
async def _bare_psycopg(dsn: str, options: dict[str, Any]) -> AsyncGenerator[Acquire]:
    async with AsyncConnectionPool(dsn, open=False, **options) as pool:
        await pool.wait()
        yield pool.connection


async def _select_psycopg(connection: Any) -> object:
    cursor = await connection.execute("select 1")
    return await cursor.fetchone()


# SQLAlchemy over asyncpg


_SELECT_1 = text("select 1")


@asynccontextmanager
async def _bare_sqlalchemy(dsn: str, options: dict[str, Any]) -> AsyncGenerator[Acquire]:
    engine = create_async_engine(_over_asyncpg(dsn), **options)
    try:
        yield engine.connect
    finally:
        await engine.dispose()


def _our_sqlalchemy(dsn: str, **settings: Any) -> OurSqlalchemy:
    return OurSqlalchemy(_over_asyncpg(dsn), **settings)


def _over_asyncpg(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+asyncpg://", 1)


def _select_sqlalchemy(connection: Any) -> Awaitable[object]:
    return connection.scalar(_SELECT_1)  # type: ignore[no-any-return]


# aiopg


@asynccontextmanager
async def _bare_aiopg(dsn: str, options: dict[str, Any]) -> AsyncGenerator[Acquire]:
    async with aiopg.create_pool(dsn, **options) as pool:
        yield pool.acquire


async def _select_aiopg(connection: Any) -> object:
    async with connection.cursor() as cursor:
        await cursor.execute("select 1")
        return await cursor.fetchone()


DRIVERS = {
    driver.name: driver
    for driver in (
        Driver(
            "asyncpg",
            _bare_asyncpg,
            OurAsyncpg,
            HasqlAsyncpg,
            {"min_size": SIZE, "max_size": SIZE},
            _select_asyncpg,
        ),
        Driver(
            "psycopg_pool",
            _bare_psycopg,
            OurPsycopg,
            HasqlPsycopg,
            {"min_size": SIZE, "max_size": SIZE},
            _select_psycopg,
        ),
        Driver(
            "SQLAlchemy",
            _bare_sqlalchemy,
            _our_sqlalchemy,
            HasqlSqlalchemy,
            {"pool_size": SIZE, "max_overflow": 0},
            _select_sqlalchemy,
        ),
        Driver(
            "aiopg",
            _bare_aiopg,
            OurAiopg,
            HasqlAiopg,
            {"minsize": SIZE, "maxsize": SIZE},
            _select_aiopg,
        ),
        Driver(
            "null",
            null.bare,
            null.PoolManager,
            null.HasqlPoolManager,
            {"size": SIZE},
            null.select,
        ),
    )
}
"""``SQLAlchemy`` is over asyncpg; ``null`` asks no server: what remains is the managers' own."""
