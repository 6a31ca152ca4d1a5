"""What these tests share."""

import asyncio
import sys
from typing import Any, Protocol, cast

import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import QueuePool
from tests.support.application import Application, sockets
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.sqlalchemy import PoolManager, SqlalchemyAdapter
from pyscopg2.sqlalchemy.pools import watch_of
from pyscopg2.testing.cluster import LocalCluster, Node

TESTED = Application("pyscopg2-test")
"""Every connection of a manager under test."""


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


class MakeManager(Protocol):
    """The type of the fixture `make_manager`."""

    def __call__(self, dsn: str | None = None, params: str = "", **options: Any) -> PoolManager: ...


def with_driver(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


def no_backends(cluster: LocalCluster, node: Node) -> bool:
    return not node.is_running or node.is_frozen or not TESTED.backends(cluster, node)


def notes(cluster: LocalCluster) -> list[str]:
    return cluster.psql(cluster.primary, "SELECT body FROM notes ORDER BY id").split()


async def scalar(on: AsyncConnection | AsyncSession, sql: str) -> Any:
    return (await on.execute(text(sql))).scalar()


async def insert(on: AsyncConnection | AsyncSession, body: str) -> None:
    await on.execute(text("INSERT INTO notes (body) VALUES (:body)"), {"body": body})


async def all_can_be_taken(adapter: SqlalchemyAdapter, pool: AsyncEngine) -> None:
    """As many as the pool has slots, all different and all working, and the counts agree."""
    size = adapter.get_pool_maxsize(pool)
    assert size is not None
    async with asyncio.timeout(PATIENCE):
        taken = [await adapter.acquire_from_pool(pool) for _ in range(size)]
        pids = {await scalar(connection, "SELECT pg_backend_pid()") for connection in taken}
        assert len(pids) == size
        assert free(pool) == 0
        for connection in taken:
            await adapter.release_to_pool(connection, pool)
    assert free(pool) == size


async def end_backends(cluster: LocalCluster, node: Node) -> None:
    """As an administrator would; until the kernel knows, and the event loop has had its chance to
    tell the driver."""
    TESTED.end_backends(cluster, node)
    await eventually(lambda: not sockets(node, psutil.CONN_ESTABLISHED), "all have hung up")
    for _ in range(5):
        await asyncio.sleep(0)


def ignore(*_: object) -> None:
    """For what happens without being of interest: asyncpg's own noise, where it is cancelled."""


def free(engine: AsyncEngine) -> int:
    """How many connections could be taken now, opened or not."""
    slots = watch_of(engine.pool).slots
    return sys.maxsize if slots is None else slots - cast(QueuePool, engine.pool).checkedout()
