"""A manager that is typed by its rows, or its connections' class: what checkers say comes true."""

import asyncio
from dataclasses import dataclass
from typing import Any, assert_type

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, TupleRow, class_row, dict_row
from psycopg_pool import AsyncConnectionPool
from tests.support.waiting import PATIENCE

from pyscopg2.psycopg import PoolManager, TypedPoolManager
from pyscopg2.testing.cluster import LocalCluster


@dataclass
class Person:
    name: str


class Own(AsyncConnection[TupleRow]):
    def shout(self) -> str:
        return "here"


class OwnOfDicts(AsyncConnection[DictRow]):
    pass


SMALL = {"min_size": 1, "kwargs": {"application_name": "typed"}}
PEOPLE = "SELECT 'Ada' AS name"


async def test_rows_are_what_the_row_factory_makes(cluster: LocalCluster) -> None:
    async with TypedPoolManager(
        cluster.dsn, row_factory=dict_row, acquire_timeout=PATIENCE, pool_factory_kwargs=SMALL
    ) as manager:
        assert_type(manager, TypedPoolManager[AsyncConnection[DictRow]])
        async with manager.acquire_master() as connection:
            assert_type(connection, AsyncConnection[DictRow])
            cursor = await connection.execute(PEOPLE)
            row = await cursor.fetchone()
            assert_type(row, dict[str, Any] | None)
            assert row == {"name": "Ada"}
            named = await connection.execute("SHOW application_name")
            assert await named.fetchone() == {"application_name": "typed"}
        taken = await manager.acquire_replica(fallback_master=True)
        assert_type(taken, AsyncConnection[DictRow])
        await manager.release(taken)
        assert_type(manager.pools, tuple[AsyncConnectionPool[AsyncConnection[DictRow]], ...])
    assert SMALL == {"min_size": 1, "kwargs": {"application_name": "typed"}}


async def test_rows_of_a_class(cluster: LocalCluster) -> None:
    async with (
        TypedPoolManager(
            cluster.dsn,
            row_factory=class_row(Person),
            acquire_timeout=PATIENCE,
            pool_factory_kwargs={"min_size": 1},
        ) as manager,
        manager.acquire_master() as connection,
    ):
        cursor = await connection.execute(PEOPLE)
        people = await cursor.fetchall()
        assert_type(people, list[Person])
        assert people == [Person("Ada")]


async def test_connections_are_of_the_class(cluster: LocalCluster) -> None:
    async with TypedPoolManager(
        cluster.dsn,
        connection_class=Own,
        acquire_timeout=PATIENCE,
        pool_factory_kwargs={"min_size": 1},
    ) as manager:
        assert_type(manager, TypedPoolManager[Own])
        async with manager.acquire_master() as connection:
            assert_type(connection, Own)
            assert connection.shout() == "here"


async def test_connections_of_a_class_with_rows_of_their_own(cluster: LocalCluster) -> None:
    manager: TypedPoolManager[OwnOfDicts] = TypedPoolManager(
        cluster.dsn,
        connection_class=OwnOfDicts,
        row_factory=dict_row,
        acquire_timeout=PATIENCE,
        pool_factory_kwargs={"min_size": 1},
    )
    async with manager, manager.acquire_master() as connection:
        assert isinstance(connection, OwnOfDicts)
        row = await (await connection.execute(PEOPLE)).fetchone()
        assert_type(row, dict[str, Any] | None)
        assert row == {"name": "Ada"}


def test_what_can_be_given_once_only() -> None:
    dsn = "postgresql://db1"
    assert_type(PoolManager(dsn), PoolManager)
    untyped: Any = TypedPoolManager
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "give a row_factory or a connection_class, or use PoolManager"),
        (
            {"row_factory": dict_row, "pool_factory_kwargs": {"kwargs": {"row_factory": dict_row}}},
            "row_factory is given twice",
        ),
        (
            {"connection_class": Own, "pool_factory_kwargs": {"connection_class": Own}},
            "connection_class is given twice",
        ),
        (
            {"row_factory": dict_row, "pool_factory_kwargs": {"kwargs": asyncio.sleep}},
            "a function has to give the row_factory by itself",
        ),
    ]
    for arguments, message in wrong:
        with pytest.raises(TypeError, match=message):
            untyped(dsn, **arguments)
