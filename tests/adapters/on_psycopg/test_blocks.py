"""The manager's types, and how its blocks end."""

import asyncio
from typing import assert_type

import psycopg
import pytest
from psycopg.rows import TupleRow
from tests.adapters.on_psycopg.support import Pool, count, end_backend, is_active, opened
from tests.support.waiting import eventually

from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster


async def test_connections_are_psycopgs_own(cluster: LocalCluster) -> None:
    async with PoolManager(cluster.dsn) as manager:
        async with manager.acquire_master() as connection:
            assert_type(connection, psycopg.AsyncConnection[TupleRow])
            assert type(connection) is psycopg.AsyncConnection
        connection = await manager.acquire_replica()
        assert_type(connection, psycopg.AsyncConnection[TupleRow])
        await manager.release(connection)
        assert_type(await manager.get_pool(read_only=False), Pool)


async def test_with_autocommit_a_block_has_nothing_to_commit(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, kwargs={"autocommit": True}) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await connection.execute("INSERT INTO items VALUES ('auto')")
        await adapter.end_block(connection, ZeroDivisionError())
        assert count(cluster, "auto") == 1
        assert await adapter.fetch_scalar(connection, "SELECT 1") == 1
        assert connection.autocommit
        await adapter.release_to_pool(connection, pool)


async def test_a_block_whose_manager_ended_raises_where_it_would_commit(
    cluster: LocalCluster,
) -> None:
    manager = PoolManager(cluster.dsn)
    with pytest.raises(psycopg.OperationalError, match="transaction that was open is not"):
        async with manager.acquire_master() as connection:
            await connection.execute("INSERT INTO items VALUES ('terminated')")
            await manager.terminate()
    assert count(cluster, "terminated") == 0


async def test_a_block_whose_backend_ended_raises_where_it_would_commit(
    cluster: LocalCluster,
) -> None:
    async with PoolManager(cluster.dsn) as manager:
        with pytest.raises(psycopg.OperationalError, match="had not committed before is not"):
            async with manager.acquire_master() as connection:
                await connection.execute("INSERT INTO items VALUES ('lost')")
                pid = connection.info.backend_pid
                await asyncio.to_thread(
                    cluster.psql, cluster.primary, f"SELECT pg_terminate_backend({pid})"
                )
                with pytest.raises(psycopg.OperationalError):
                    await connection.execute("SELECT 1")
    assert count(cluster, "lost") == 0


@pytest.mark.parametrize("autocommit", [False, True], ids=["commit()", "autocommit"])
@pytest.mark.parametrize("how", ["terminated", "lost", "lost and noticed"])
async def test_what_a_block_committed_by_itself_is_never_said_to_be_lost(
    adapter: PsycopgAdapter, cluster: LocalCluster, autocommit: bool, how: str
) -> None:
    """A user that believed it would write twice."""
    options = {"min_size": 1, "max_size": 1, "kwargs": {"autocommit": autocommit}}
    item = f"{autocommit} {how}"
    async with opened(adapter, cluster.primary, **options) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await connection.execute("INSERT INTO items VALUES (%s)", [item])
        if not autocommit:
            await connection.commit()
        if how == "terminated":
            adapter.terminate_connection(connection)
        else:
            await end_backend(cluster, connection)
        if how == "lost and noticed":
            # Whether it was in a transaction, psycopg does not know any more.
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError) as caught:
                await adapter.end_block(connection, None)
            assert "connection is lost" in str(caught.value)
            assert "nothing" not in str(caught.value)
        else:
            await adapter.end_block(connection, None)
        assert count(cluster, item) == 1
        await adapter.release_to_pool(connection, pool)


@pytest.mark.parametrize("how", ["terminated", "terminated in a query", "lost"])
async def test_what_a_block_had_not_committed_is_said_to_be_lost(
    adapter: PsycopgAdapter, cluster: LocalCluster, how: str
) -> None:
    async with opened(adapter, cluster.primary, min_size=1, max_size=1) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await connection.execute("INSERT INTO items VALUES ('first')")
        await connection.commit()
        await connection.execute("INSERT INTO items VALUES ('second')")
        expected = "what the block had not committed before is not committed"
        if how == "terminated":
            adapter.terminate_connection(connection)
            expected = "the transaction that was open is not committed"
        elif how == "terminated in a query":
            query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
            await eventually(lambda: is_active(connection), "the query is sent")
            adapter.terminate_connection(connection)
            with pytest.raises(psycopg.OperationalError):
                await query
        else:
            await end_backend(cluster, connection)
            expected = "terminating connection"  # the driver's own
        with pytest.raises(psycopg.OperationalError, match=expected):
            await adapter.end_block(connection, None)
        await adapter.release_to_pool(connection, pool)
        assert (count(cluster, "first"), count(cluster, "second")) == (1, 0)
        await asyncio.to_thread(cluster.psql, cluster.primary, "DELETE FROM items")


async def test_a_block_that_closed_its_connection_ends_as_psycopgs(cluster: LocalCluster) -> None:
    async with PoolManager(cluster.dsn) as manager:
        async with manager.acquire_master() as connection:
            await connection.close()
        async with manager.acquire_master() as connection:
            await connection.execute("SELECT 1")
