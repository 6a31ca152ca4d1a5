"""Who takes part: how each one opens, acquires, asks and ends. Runs in the contestant's process.

Drivers are imported by name, because no environment has them all.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .operation import Kind

POOL_SIZE = 10
"""Connections to each host for users."""

Block = contextlib.AbstractAsyncContextManager[Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """A contestant at work."""

    acquire: Mapping[Kind, Callable[[], Block]]
    """A block with a connection for a write, or for a read."""
    terminate: Callable[[], Awaitable[object]]
    """Its quickest way to end."""


Fetch = Callable[[Any, str, int | None], Awaitable[str]]
"""Run a statement that may have one parameter, ``{}``, and return the one value it gives."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to reach a cluster."""

    open: Callable[[str, Mapping[str, Any]], Awaitable[Opened]]
    """With a multi-host DSN, and options for `pyscopg2` that no other has."""
    fetch: Fetch
    environment: str | None = "contestants"
    """Hatch's name of the environment that has it; None: the bench's own."""

    @property
    def is_ours(self) -> bool:
        return getattr(self.open, "module", "").startswith("pyscopg2")


@dataclass(frozen=True, slots=True)
class _Manager:
    """pyscopg2 and hasql: one manager that knows the roles."""

    module: str
    pool_options: Mapping[str, Any]
    scheme: str = "postgresql"

    async def __call__(self, dsn: str, options: Mapping[str, Any]) -> Opened:
        manager = import_module(self.module).PoolManager(
            dsn.replace("postgresql", self.scheme, 1),
            **(options if self.module.startswith("pyscopg2") else {}),
            pool_factory_kwargs=dict(self.pool_options),
        )
        await manager.ready()
        acquire: Mapping[Kind, Callable[[], Block]] = {
            "write": manager.acquire_master,
            "read": manager.acquire_replica,
        }
        return Opened(acquire, manager.terminate)


async def _bare_asyncpg(dsn: str, _: Mapping[str, Any]) -> Opened:
    asyncpg = import_module("asyncpg")
    sizes = {"min_size": 1, "max_size": POOL_SIZE}
    writers = await asyncpg.create_pool(dsn, target_session_attrs="read-write", **sizes)
    readers = await asyncpg.create_pool(dsn, target_session_attrs="prefer-standby", **sizes)

    async def terminate() -> None:
        writers.terminate()
        readers.terminate()

    return Opened({"write": writers.acquire, "read": readers.acquire}, terminate)


async def _bare_psycopg(dsn: str, _: Mapping[str, Any]) -> Opened:
    pool_class = import_module("psycopg_pool").AsyncConnectionPool

    def pool(attributes: str) -> Any:
        return pool_class(
            f"{dsn}?target_session_attrs={attributes}&load_balance_hosts=random",
            open=False,
            min_size=1,
            max_size=POOL_SIZE,
            kwargs={"autocommit": True},
        )

    writers, readers = pool("read-write"), pool("prefer-standby")
    for each in (writers, readers):
        await each.open(wait=True)

    async def terminate() -> None:
        for each in (writers, readers):
            await each.close(timeout=0)

    return Opened({"write": writers.connection, "read": readers.connection}, terminate)


async def _fetch_asyncpg(connection: Any, sql: str, row: int | None) -> str:
    return str(await connection.fetchval(sql.format("$1"), *_parameters(row)))


async def _fetch_psycopg(connection: Any, sql: str, row: int | None) -> str:
    cursor = await connection.execute(sql.format("%s"), _parameters(row))
    return str((await cursor.fetchone())[0])


async def _fetch_aiopg(connection: Any, sql: str, row: int | None) -> str:
    async with connection.cursor() as cursor:
        await cursor.execute(sql.format("%s"), _parameters(row))
        return str((await cursor.fetchone())[0])


async def _fetch_aiopg_sa(connection: Any, sql: str, row: int | None) -> str:
    return str(await connection.scalar(sql.format("%s"), _parameters(row)))


async def _fetch_sqlalchemy(connection: Any, sql: str, row: int | None) -> str:
    text = import_module("sqlalchemy").text
    values = {} if row is None else {"row": row}
    return str(await connection.scalar(text(sql.format(":row")), values))


def _parameters(row: int | None) -> tuple[int, ...]:
    return () if row is None else (row,)


_ASYNCPG = {"min_size": 1, "max_size": POOL_SIZE}
_AIOPG = {"minsize": 1, "maxsize": POOL_SIZE}
_PSYCOPG = {"min_size": 1, "max_size": POOL_SIZE, "kwargs": {"autocommit": True}}
_SQLALCHEMY = {"pool_size": POOL_SIZE, "max_overflow": 0, "isolation_level": "AUTOCOMMIT"}

# In this order, so many as run at the same time: side by side are those of one driver.
CONTESTANTS: Mapping[str, Contestant] = {
    "pyscopg2-asyncpg": Contestant(_Manager("pyscopg2.asyncpg", _ASYNCPG), _fetch_asyncpg, None),
    "hasql-asyncpg": Contestant(_Manager("hasql.driver.asyncpg", _ASYNCPG), _fetch_asyncpg),
    "bare-asyncpg": Contestant(_bare_asyncpg, _fetch_asyncpg, None),
    "pyscopg2-psycopg": Contestant(_Manager("pyscopg2.psycopg", _PSYCOPG), _fetch_psycopg),
    "hasql-psycopg": Contestant(_Manager("hasql.driver.psycopg3", _PSYCOPG), _fetch_psycopg),
    "bare-psycopg": Contestant(_bare_psycopg, _fetch_psycopg),
    "pyscopg2-sqlalchemy-asyncpg": Contestant(
        _Manager("pyscopg2.sqlalchemy", _SQLALCHEMY, "postgresql+asyncpg"), _fetch_sqlalchemy
    ),
    "hasql-sqlalchemy": Contestant(
        _Manager("hasql.driver.asyncsqlalchemy", _SQLALCHEMY), _fetch_sqlalchemy
    ),
    "pyscopg2-sqlalchemy-psycopg": Contestant(
        _Manager("pyscopg2.sqlalchemy", _SQLALCHEMY, "postgresql+psycopg"), _fetch_sqlalchemy
    ),
    "pyscopg2-aiopg": Contestant(_Manager("pyscopg2.aiopg", _AIOPG), _fetch_aiopg),
    "hasql-aiopg": Contestant(_Manager("hasql.driver.aiopg", _AIOPG), _fetch_aiopg),
    "pyscopg2-aiopg_sa": Contestant(
        _Manager("pyscopg2.aiopg_sa", _AIOPG), _fetch_aiopg_sa, "contestants-sqlalchemy1"
    ),
    "pyscopg2-asyncpgsa": Contestant(
        _Manager("pyscopg2.asyncpgsa", _ASYNCPG), _fetch_asyncpg, "contestants-sqlalchemy1"
    ),
}
QUICK = ("pyscopg2-asyncpg", "hasql-asyncpg")
