"""Beyond the contract: a cluster, a failover, a program; and no thread outlives what it is for."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, assert_type

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
async def pool(cluster: LocalCluster) -> Any:
    pool = await Pool.open(primary(cluster), 2)
    yield pool
    pool.terminate()


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


@pytest.mark.parametrize("frozen", [False, True], ids=["well", "frozen"])
def test_a_program_that_never_closes_ends_at_once(cluster: LocalCluster, frozen: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PROGRAM],
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
        PoolManager("postgresql://user@host/", pool_factory_kwargs={"min_size": 1})


# A frozen host


async def test_a_cancelled_query_is_over_at_once_on_a_frozen_server(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await pool.acquire()
    cluster.freeze(cluster.primary)
    asking = asyncio.create_task(value(connection, "SELECT 1"))
    await eventually(threads)
    assert all(thread.daemon for thread in threads())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(asking)
    assert connection.closed
    await soon(pool.release(connection))
    assert pool.freesize == 2


async def test_a_pool_that_is_terminated_ends_the_acquire_that_is_connecting(
    cluster: LocalCluster, pool: Pool
) -> None:
    idle = await pool.acquire()
    cluster.freeze(cluster.primary)
    acquiring = asyncio.create_task(pool.acquire())
    await eventually(threads)
    assert pool.freesize == 0
    for _ in range(2):
        pool.terminate()
    with pytest.raises(InterfaceError, match="closed"):
        await soon(acquiring)
    assert idle.closed
    with pytest.raises(InterfaceError, match="closed"):
        await pool.acquire()


async def test_a_commit_on_a_terminated_connection_raises(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await pool.acquire()
    await connection.run("BEGIN")
    await connection.run("INSERT INTO items VALUES ('lost')")
    cluster.freeze(cluster.primary)
    committing = asyncio.create_task(connection.run("COMMIT"))
    await eventually(threads)
    connection.terminate()
    with pytest.raises((InterfaceError, OSError)):
        await soon(committing)
    with pytest.raises(InterfaceError):
        await soon(connection.run("COMMIT"))
    await soon(pool.release(connection))


# What the server says


async def test_a_query_that_the_server_cancels_is_an_ordinary_error(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await pool.acquire()
    await connection.run("SET statement_timeout = 10")
    with pytest.raises(DatabaseError) as caught:
        await connection.run("SELECT pg_sleep(60)")
    assert adapter.sqlstate(caught.value) == "57014"
    assert await value(connection, "SELECT 1") == 1
    await pool.release(connection)


async def test_the_servers_last_words_are_the_error(cluster: LocalCluster, pool: Pool) -> None:
    connection = await pool.acquire()
    with pytest.raises(DatabaseError) as caught:
        await connection.run("SELECT pg_terminate_backend(pg_backend_pid())")
    assert adapter.sqlstate(caught.value) == "57P01"
    assert connection.closed
    await pool.release(connection)


async def test_an_idle_connection_that_the_server_closed_is_not_handed_out(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await pool.acquire()
    pid = await value(connection, "SELECT pg_backend_pid()")
    await pool.release(connection)
    assert connection.is_quiet()
    cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({pid})")
    await eventually(lambda: not connection.is_quiet())
    another = await pool.acquire()
    assert await value(another, "SELECT pg_backend_pid()") != pid
    assert connection.closed
    await pool.release(another)


@pytest.mark.parametrize(
    ("said", "quiet"),
    [(b"", True), (b"A", True), (b"N", True), (b"S", True), (b"E", False), (None, False)],
    ids=["nothing", "notification", "notice", "setting", "error", "goodbye"],
)
def test_what_an_idle_server_may_say(said: bytes | None, quiet: bool) -> None:
    ours, servers = socket.socketpair()
    connection = Connection(ours)
    with servers:
        if said is None:
            servers.shutdown(socket.SHUT_WR)
        else:
            servers.send(said)
        assert connection.is_quiet() is quiet
        connection.terminate()
    assert ours.fileno() == -1


# What a user leaves behind


async def test_a_transaction_that_was_left_open_is_rolled_back(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await pool.acquire()
    await connection.run("BEGIN")
    await connection.run("INSERT INTO items VALUES ('lost')")
    with contextlib.suppress(DatabaseError):
        await connection.run("SELECT no_such_function()")
    await pool.release(connection)
    assert await pool.acquire() is connection
    assert await value(connection, "SELECT count(*) FROM items") == 0
    await pool.release(connection)


async def test_a_query_that_still_runs_ends_before_the_next_user_comes(
    cluster: LocalCluster, pool: Pool
) -> None:
    connection = await pool.acquire()
    rows = await connection.run("SELECT pg_backend_pid()")
    assert rows is not None
    ((pid,),) = rows
    asking = asyncio.create_task(connection.run("SELECT pg_sleep(1)"))
    doing = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
    await eventually(lambda: cluster.psql(cluster.primary, doing) == "PgSleep")
    await pool.release(connection)
    assert asking.done()
    assert await pool.acquire() is connection
    await pool.release(connection)
