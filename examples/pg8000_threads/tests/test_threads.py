"""Beyond the contract: a cluster, a failover, a program; and no thread outlives what it is for."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import assert_type

import pytest
from pg8000.native import DatabaseError, InterfaceError

from pg8000_threads import Connection, Pg8000Adapter, Pool, PoolManager
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster

SOON = 5.0
"""Seconds within which what happens at once has happened, on however slow a machine."""

PATIENCE = 30.0
"""Seconds after which a program is taken for one that never ends."""

adapter = Pg8000Adapter()


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=0) as cluster:
        cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """A primary with an empty table. No thread may be left after the test."""
    shared_cluster.psql(shared_cluster.primary, "TRUNCATE items")
    yield shared_cluster
    shared_cluster.thaw(shared_cluster.primary)
    asyncio.run(eventually(lambda: not threads()))


@pytest.fixture
async def pool(cluster: LocalCluster) -> AsyncGenerator[Pool]:
    pool = await adapter.create_pool(primary(cluster), max_size=2)
    yield pool
    await adapter.terminate_pool(pool)


def primary(cluster: LocalCluster) -> Target:
    (target,) = parse_dsn(cluster.primary.dsn)
    return target


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pg8000"]


async def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until, f"it does not come true; threads: {threads()}"
        await asyncio.sleep(0.01)


async def soon(awaitable: Awaitable[object]) -> None:
    await asyncio.wait_for(awaitable, SOON)


async def value(connection: Connection, sql: str) -> object:
    return await adapter.fetch_scalar(connection, sql)


def count(cluster: LocalCluster) -> str:
    return cluster.psql(cluster.primary, "SELECT count(*) FROM items")


# A cluster


async def test_roles_and_a_failover(make_local_cluster: Callable[..., LocalCluster]) -> None:
    cluster = await asyncio.to_thread(make_local_cluster, replicas=1)
    first, second = cluster.nodes
    async with PoolManager(
        cluster.dsn, acquire_timeout=20, pool_factory_kwargs={"max_size": 2}
    ) as manager:
        await manager.ready(masters_count=1, replicas_count=1)
        async with manager.acquire_master() as connection:
            assert_type(connection, Connection)
            assert await value(connection, "SHOW cluster_name") == first.name
            await connection.run("CREATE TABLE items (item text)")
        async with manager.acquire_replica() as connection:
            assert await value(connection, "SHOW cluster_name") == second.name
            with pytest.raises(DatabaseError, match="25006"):
                await connection.run("CREATE TABLE more (item text)")
        await asyncio.to_thread(cluster.wait_streaming)

        await asyncio.to_thread(cluster.kill, first)
        await asyncio.to_thread(cluster.promote, second)
        async with manager.acquire_master() as connection:
            assert await value(connection, "SHOW cluster_name") == second.name
            await connection.run("INSERT INTO items VALUES (:item)", item="after")
        assert count(cluster) == "1"
    await eventually(lambda: not threads())


PROGRAM = """
import asyncio, os, sys, threading

from pg8000_threads import PoolManager


async def main():
    manager = PoolManager(os.environ["DSN"], pool_factory_kwargs={"max_size": 2})
    await manager.ready()
    held = await manager.acquire()
    asking = asyncio.create_task(held.run("SELECT pg_sleep(600)"))
    async with manager.acquire() as connection:
        await connection.run("SELECT 1")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


asyncio.run(main())
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join()
print("over")
"""


UNCLOSED = "ignore:unclosed pool manager:ResourceWarning"
"""What the manager rightly says of itself."""


@pytest.mark.parametrize("frozen", [False, True], ids=["well", "frozen"])
def test_a_program_that_never_closes_ends_at_once(cluster: LocalCluster, frozen: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-W", UNCLOSED, "-X", "dev", "-c", PROGRAM],
        env=os.environ | {"DSN": cluster.dsn},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if frozen:
                cluster.freeze(cluster.primary)
            assert process.communicate("\n", timeout=PATIENCE) == ("over\n", "")
        finally:
            process.kill()


def test_what_it_cannot_give_is_known_when_the_manager_is_made() -> None:
    for query in ("sslmode=require", "sslmode=verify-full", "require_auth=none"):
        with pytest.raises(ValueError):
            PoolManager(f"postgresql://user@host/?{query}")
    with pytest.raises(TypeError):
        PoolManager("postgresql://user@host/", pool_factory_kwargs={"no_such": 1})


# A frozen host


async def test_a_cancelled_query_is_over_at_once_on_a_frozen_server(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await adapter.acquire_from_pool(pool)
    cluster.freeze(cluster.primary)
    asking = asyncio.create_task(value(connection, "SELECT 1"))
    await eventually(threads)
    assert all(thread.daemon for thread in threads())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(asking)
    assert connection.closed
    await soon(adapter.release_to_pool(connection, pool))
    assert pool.size == 0


async def test_a_pool_that_is_terminated_ends_the_acquire_that_is_connecting(
    cluster: LocalCluster, pool: Pool
) -> None:
    taken = await adapter.acquire_from_pool(pool)
    cluster.freeze(cluster.primary)
    acquiring = asyncio.create_task(adapter.acquire_from_pool(pool))
    await eventually(threads)
    for _ in range(2):
        await adapter.terminate_pool(pool)
    acquiring.cancel()  # as the core does
    with pytest.raises(asyncio.CancelledError):
        await soon(acquiring)
    assert taken.closed


async def test_a_commit_on_a_terminated_connection_raises(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await adapter.acquire_from_pool(pool)
    await connection.run("BEGIN")
    await connection.run("INSERT INTO items VALUES ('lost')")
    cluster.freeze(cluster.primary)
    committing = asyncio.create_task(connection.run("COMMIT"))
    await eventually(threads)
    adapter.terminate_connection(connection)
    with pytest.raises((InterfaceError, OSError)):
        await soon(committing)
    with pytest.raises(InterfaceError):
        await soon(connection.run("COMMIT"))
    await soon(adapter.release_to_pool(connection, pool))


# What the server says


async def test_a_query_that_the_server_cancels_is_an_ordinary_error(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await adapter.acquire_from_pool(pool)
    await connection.run("SET statement_timeout = 10")
    with pytest.raises(DatabaseError) as caught:
        await connection.run("SELECT pg_sleep(60)")
    assert adapter.sqlstate(caught.value) == "57014"
    assert await value(connection, "SELECT 1") == "1"
    await adapter.release_to_pool(connection, pool)


async def test_the_servers_last_words_are_the_error(cluster: LocalCluster, pool: Pool) -> None:
    connection = await adapter.acquire_from_pool(pool)
    with pytest.raises(DatabaseError) as caught:
        await connection.run("SELECT pg_terminate_backend(pg_backend_pid())")
    assert adapter.sqlstate(caught.value) == "57P01"
    assert connection.closed
    await adapter.release_to_pool(connection, pool)


# What a user leaves behind


async def test_a_transaction_that_was_left_open_is_rolled_back(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await adapter.acquire_from_pool(pool)
    await connection.run("BEGIN")
    await connection.run("INSERT INTO items VALUES ('lost')")
    with contextlib.suppress(DatabaseError):
        await connection.run("SELECT no_such_function()")
    await adapter.release_to_pool(connection, pool)
    assert await adapter.acquire_from_pool(pool) is connection
    assert await value(connection, "SELECT count(*) FROM items") == "0"
    await adapter.release_to_pool(connection, pool)


async def test_a_connection_whose_query_still_runs_is_not_the_next_users(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await adapter.acquire_from_pool(pool)
    pid = await value(connection, "SELECT pg_backend_pid()")
    asking = asyncio.create_task(connection.run("SELECT pg_sleep(600)"))
    doing = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
    await eventually(lambda: cluster.psql(cluster.primary, doing) == "PgSleep")
    await adapter.release_to_pool(connection, pool)
    with pytest.raises(InterfaceError):
        await soon(asking)
    assert connection.closed
    assert await adapter.acquire_from_pool(pool) is not connection


# What a DSN asks for


async def test_an_address_that_does_not_answer_is_given_up_after_connect_timeout(
    cluster: LocalCluster,
) -> None:
    (target,) = parse_dsn(f"{cluster.primary.dsn}?connect_timeout=1")
    cluster.freeze(cluster.primary)
    with pytest.raises(TimeoutError):
        await soon(adapter.create_pool(target))


async def test_the_server_is_told_what_the_dsn_says(cluster: LocalCluster) -> None:
    settings = "application_name=mine&options=-c%20search_path%3Delsewhere"
    (target,) = parse_dsn(f"{cluster.primary.dsn}?{settings}")
    connection = await adapter.connect(target)
    assert await connection.run("SHOW application_name") == [["mine"]]
    assert await connection.run("SHOW search_path") == [["elsewhere"]]
    assert await connection.run("SELECT 1::int8") == [[1]]
    assert await value(connection, "SELECT 1::int8") == "1"
    connection.close()
