"""Pools as the core sees them: their sizes, what comes back to them, and what is left of them."""

import asyncio
import gc
import sys
import warnings
import weakref
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool
from tests.adapters.on_sqlalchemy.support import free
from tests.support.waiting import eventually

from pyscopg2.core.dsn import parse_dsn
from pyscopg2.sqlalchemy import SqlalchemyAdapter
from pyscopg2.testing.cluster import LocalCluster

from .support import (
    TESTED,
    all_can_be_taken,
    end_backends,
    ignore,
    insert,
    no_backends,
    notes,
    scalar,
)


@pytest.fixture
def adapter(driver: str) -> SqlalchemyAdapter:
    return SqlalchemyAdapter(driver)


@pytest.fixture(autouse=True)
async def nothing_is_left(cluster: LocalCluster) -> Any:
    cluster.psql(cluster.primary, "TRUNCATE notes")
    yield
    await eventually(lambda: no_backends(cluster, cluster.primary), "no backend is left")


class OwnPool(AsyncAdaptedQueuePool):
    """A user's own."""


# Sizes


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 15),
        ({"pool_size": 3}, 13),
        ({"pool_size": 2, "max_overflow": 0}, 2),
        ({"pool_size": 2, "max_overflow": 1, "poolclass": OwnPool}, 3),
        ({"pool_size": 0}, None),
        ({"max_overflow": -1}, None),
        ({"poolclass": NullPool}, None),
    ],
    ids=str,
)
async def test_a_pool_is_of_the_users_own_size(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, options: dict[str, Any], size: int | None
) -> None:
    if size is not None:
        options = {**options, "pool_timeout": 0.05}
    pool = await adapter.create_pool(TESTED.target(cluster.primary), **options)
    assert adapter.get_pool_maxsize(pool) == size
    taken = [await adapter.acquire_from_pool(pool) for _ in range(size or 20)]
    if size is None:
        assert free(pool) == sys.maxsize
    else:
        assert free(pool) == 0
        with pytest.raises(SQLAlchemyError):
            await adapter.acquire_from_pool(pool)
    for connection in taken:
        await adapter.release_to_pool(connection, pool)
    await adapter.close_pool(pool)


async def test_a_pool_is_of_the_users_own_class_and_logs_as_that(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    for poolclass in (AsyncAdaptedQueuePool, OwnPool, NullPool):
        pool = await adapter.create_pool(TESTED.target(cluster.primary), poolclass=poolclass)
        assert isinstance(pool.pool, poolclass)
        # By these its logger is known: people set the level of "sqlalchemy.pool".
        assert type(pool.pool).__name__ == poolclass.__name__
        assert type(pool.pool).__module__ == poolclass.__module__
        await pool.dispose()
        assert isinstance(pool.pool, poolclass)
        connection = await adapter.acquire_from_pool(pool)
        assert await scalar(connection, "SELECT 1") == 1
        # By the user's own hand, with one of its connections out.
        await pool.dispose()
        await adapter.terminate_pool(pool)
        assert adapter.is_connection_closed(connection)
        await adapter.release_to_pool(connection, pool)


# Giving back


async def test_a_second_release_is_told_and_harms_nobody(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    pool = await adapter.create_pool(TESTED.target(cluster.primary), pool_size=1, max_overflow=0)
    connection = await adapter.acquire_from_pool(pool)
    await adapter.release_to_pool(connection, pool)
    with pytest.raises(ValueError, match="given back before"):
        await adapter.release_to_pool(connection, pool)
    other = await adapter.acquire_from_pool(pool)
    await insert(other, "kept")
    with pytest.raises(ValueError, match="given back before"):
        await adapter.release_to_pool(connection, pool)
    adapter.terminate_connection(connection)
    await other.commit()
    adapter.terminate_connection(other)
    await adapter.release_to_pool(other, pool)
    with pytest.raises(ValueError, match="given back before"):
        await adapter.release_to_pool(other, pool)
    assert notes(cluster) == ["kept"]
    await all_can_be_taken(adapter, pool)
    await adapter.close_pool(pool)


async def test_what_its_user_has_closed_is_given_back_once(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    pool = await adapter.create_pool(TESTED.target(cluster.primary), pool_size=1, max_overflow=0)
    connection = await adapter.acquire_from_pool(pool)
    await connection.close()
    # SQLAlchemy has given it to somebody else meanwhile.
    other = await adapter.acquire_from_pool(pool)
    await insert(other, "kept")
    await adapter.release_to_pool(connection, pool)
    with pytest.raises(ValueError, match="given back before"):
        await adapter.release_to_pool(connection, pool)
    await other.commit()
    await adapter.release_to_pool(other, pool)
    assert notes(cluster) == ["kept"]
    await all_can_be_taken(adapter, pool)
    await adapter.close_pool(pool)


async def test_a_transaction_of_the_drivers_does_not_reach_the_next_user(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    """SQLAlchemy over asyncpg does not know of it."""
    pool = await adapter.create_pool(TESTED.target(cluster.primary), pool_size=1, max_overflow=0)
    for used in (False, True):
        connection = await adapter.acquire_from_pool(pool)
        if used:
            await connection.execute(text("SELECT 1"))
            await connection.commit()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        pid = await scalar(connection, "SELECT pg_backend_pid()")
        await connection.commit()
        await driver.execute("BEGIN")
        await driver.execute("INSERT INTO notes (body) VALUES ('begun past SQLAlchemy')")
        await adapter.release_to_pool(connection, pool)
        connection = await adapter.acquire_from_pool(pool)
        assert await scalar(connection, "SELECT pg_backend_pid()") == pid
        await connection.commit()
        await adapter.release_to_pool(connection, pool)
    assert notes(cluster) == []
    await adapter.close_pool(pool)


# Commits


@pytest.mark.parametrize("how", ["terminated", "by the server"])
@pytest.mark.parametrize("commits", ["commit()", "AUTOCOMMIT"])
async def test_what_was_committed_before_a_connection_was_lost_stays_committed(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, commits: str, how: str
) -> None:
    """And nobody says that it was not: who believes that, writes it again."""
    pool = await adapter.create_pool(TESTED.target(cluster.primary))
    connection = await adapter.acquire_from_pool(pool)
    if commits == "AUTOCOMMIT":
        await connection.execution_options(isolation_level="AUTOCOMMIT")
    await insert(connection, "committed")
    if commits == "commit()":
        await connection.commit()
    if how == "terminated":
        adapter.terminate_connection(connection)
    else:
        await end_backends(cluster, cluster.primary)
    await adapter.release_to_pool(connection, pool)
    assert notes(cluster) == ["committed"]
    await all_can_be_taken(adapter, pool)
    await adapter.close_pool(pool)


@pytest.mark.parametrize("how", ["terminated", "by the server"])
async def test_what_was_not_committed_is_never_said_to_be(
    adapter: SqlalchemyAdapter, cluster: LocalCluster, how: str
) -> None:
    pool = await adapter.create_pool(TESTED.target(cluster.primary))
    connection = await adapter.acquire_from_pool(pool)
    await insert(connection, "first")
    await connection.commit()
    await insert(connection, "lost")
    if how == "terminated":
        adapter.terminate_connection(connection)
    else:
        await end_backends(cluster, cluster.primary)
    with pytest.raises(SQLAlchemyError):
        await connection.commit()
    await adapter.release_to_pool(connection, pool)
    assert notes(cluster) == ["first"]
    await adapter.close_pool(pool)


# What is left


async def test_nothing_keeps_a_pool_alive(
    adapter: SqlalchemyAdapter, cluster: LocalCluster
) -> None:
    pools: list[weakref.ref[Any]] = []

    async def live_and_die(number: int) -> None:
        engine = await adapter.create_pool(
            TESTED.target(cluster.primary), pool_size=2, max_overflow=0
        )
        pools.extend(
            (weakref.ref(engine), weakref.ref(engine.sync_engine), weakref.ref(engine.pool))
        )
        taken = [await adapter.acquire_from_pool(engine) for _ in range(2)]
        await insert(taken[0], "lost")
        waiting = asyncio.ensure_future(adapter.acquire_from_pool(engine))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        for index, connection in enumerate(taken):
            releasing = asyncio.ensure_future(adapter.release_to_pool(connection, engine))
            if (number + index) % 2:
                await asyncio.sleep(0)
                releasing.cancel()
            await asyncio.wait({releasing})
        if number % 3:
            connecting = asyncio.ensure_future(adapter.acquire_from_pool(engine))
            await asyncio.sleep(0.001)
            connecting.cancel()
            await asyncio.wait({connecting})
            if not connecting.cancelled():
                adapter.terminate_connection(connecting.result())
                await adapter.release_to_pool(connecting.result(), engine)
        reserved = await adapter.reserve(TESTED.target(cluster.primary))
        await reserved.fetch_scalar("SELECT 1")
        reserved.terminate()
        if number % 2:
            await adapter.close_pool(engine)
        await adapter.terminate_pool(engine)

    async def fail() -> None:
        (nowhere,) = parse_dsn("postgresql://u:p@127.0.0.1:1/d")
        for attempt in (adapter.create_pool(nowhere), adapter.reserve(nowhere)):
            with pytest.raises((OSError, SQLAlchemyError, psycopg.Error)):
                await attempt

    asyncio.get_running_loop().set_exception_handler(ignore)
    counts: list[int] = []
    for number in range(24):
        await live_and_die(number)
        await fail()
        if number % 8 == 7:
            for _ in range(3):
                await asyncio.sleep(0)
                gc.collect()
            counts.append(
                sum(isinstance(each, AsyncEngine | QueuePool) for each in gc.get_objects())
            )
    assert [ref() for ref in pools if ref() is not None] == []
    assert counts[0] == counts[-1]


def test_garbage_of_a_lost_event_loop_is_quiet(
    driver: str, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for ever in an event loop that is closed ends the pool when it is freed, together
    with the adapter and all that refers to them."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    ended = 0

    async def main() -> None:
        adapter = SqlalchemyAdapter(driver)
        pool = await adapter.create_pool(TESTED.target(cluster.primary))
        connection = await adapter.acquire_from_pool(pool)
        await adapter.release_to_pool(connection, pool)
        cycle: list[Any] = []

        async def use() -> None:
            nonlocal ended
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await adapter.terminate_pool(cycle[0])
                ended += 1

        using = use()
        using.send(None)
        cycle += [pool, using]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del loop
    with warnings.catch_warnings():
        # asyncio's, of the transport that it cannot close any more.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert ended == 1
    assert [each.exc_value for each in unraisable] == []
