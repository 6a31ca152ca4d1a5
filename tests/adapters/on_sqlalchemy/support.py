"""What these tests share."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pyscopg2.sqlalchemy import PoolManager
from pyscopg2.testing.cluster import LocalCluster, Node

APPLICATION = "pyscopg2-test"
"""The application name of every connection of a manager under test, and of no other."""

PATIENCE = 30.0
"""Seconds after which a condition is taken for one that never comes, also on a busy machine."""


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


async def eventually(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(0.01)


def backends(cluster: LocalCluster, node: Node, where: str = "true") -> int:
    """How many connections of managers under test the server has."""
    return int(
        cluster.psql(
            node,
            "SELECT count(*) FROM pg_stat_activity"
            f" WHERE application_name = '{APPLICATION}' AND ({where})",
        )
    )


def no_backends(cluster: LocalCluster, node: Node) -> bool:
    return not node.is_running or node.is_frozen or not backends(cluster, node)


def notes(cluster: LocalCluster) -> list[str]:
    return cluster.psql(cluster.primary, "SELECT body FROM notes ORDER BY id").split()


async def scalar(on: AsyncConnection | AsyncSession, sql: str) -> Any:
    return (await on.execute(text(sql))).scalar()


async def insert(on: AsyncConnection | AsyncSession, body: str) -> None:
    await on.execute(text("INSERT INTO notes (body) VALUES (:body)"), {"body": body})
