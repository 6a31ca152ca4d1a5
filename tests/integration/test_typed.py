"""A manager of asyncpg that is typed by its rows: what checkers say comes true."""

from typing import Any, TypeAlias, assert_type

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy

from pyscopg2.asyncpg import PoolManager, TypedPoolManager
from pyscopg2.testing.cluster import LocalCluster


class Person(asyncpg.Record):
    @property
    def name(self) -> str:
        return str(self["name"])


Connection: TypeAlias = "PoolConnectionProxy[Person]"
Pool: TypeAlias = "asyncpg.Pool[Person]"

PEOPLE = "SELECT 'Ada' AS name"


async def test_rows_are_of_the_record_class(cluster: LocalCluster) -> None:
    options = {"min_size": 1, "command_timeout": 30}
    async with TypedPoolManager(
        cluster.dsn, record_class=Person, acquire_timeout=30, pool_factory_kwargs=options
    ) as manager:
        assert_type(manager, TypedPoolManager[Person])
        async with manager.acquire_master() as connection:
            assert_type(connection, Connection)
            rows = await connection.fetch(PEOPLE)
            assert_type(rows, list[Person])
            assert [row.name for row in rows] == ["Ada"]
            row = await connection.fetchrow(PEOPLE)
            assert_type(row, Person | None)
            assert isinstance(row, Person)
        assert_type(manager.pools, tuple[Pool, ...])
    assert options == {"min_size": 1, "command_timeout": 30}


def test_the_record_class_is_given_once() -> None:
    dsn = "postgresql://db1"
    assert_type(PoolManager(dsn), PoolManager)
    options: dict[str, Any] = {"record_class": Person}
    with pytest.raises(TypeError, match="record_class is given twice"):
        TypedPoolManager(dsn, record_class=Person, pool_factory_kwargs=options)
