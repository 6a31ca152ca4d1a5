"""What is particular to psycopg's adapter."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import psycopg
import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool

from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster, Node

SOON = 5.0
"""Seconds within which what happens at once has happened, on a busy machine."""

PATIENCE = 30.0

Pool = AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
        cluster.wait_streaming()
        yield cluster


@pytest.fixture
def alone() -> Iterator[LocalCluster]:
    """A primary of this test's own, to be broken."""
    with LocalCluster(replicas=0) as cluster:
        cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
        yield cluster


@pytest.fixture
def adapter() -> PsycopgAdapter:
    return PsycopgAdapter()


def target(node: Node, params: str = "") -> Target:
    (target,) = parse_dsn(f"{node.dsn}?application_name=tested{params}")
    return target


@contextlib.asynccontextmanager
async def opened(adapter: PsycopgAdapter, node: Node, **options: Any) -> AsyncGenerator[Pool]:
    pool = await adapter.create_pool(target(node), **options)
    try:
        yield pool
    finally:
        await adapter.terminate_pool(pool)


async def eventually(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < until, what
        await asyncio.sleep(0.02)


def is_active(connection: psycopg.AsyncConnection[TupleRow]) -> bool:
    """Whether it waits for the server's answer."""
    return connection.info.transaction_status is TransactionStatus.ACTIVE


def count(cluster: LocalCluster, item: str) -> int:
    return int(cluster.psql(cluster.primary, f"SELECT count(*) FROM items WHERE item = '{item}'"))


def backends(cluster: LocalCluster, node: Node) -> int:
    # A server that sleeps does not see that its client is gone.
    sleeps = "query LIKE '%pg_sleep%'"
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tested'"
    return int(cluster.psql(node, f"{sql} AND NOT {sleeps}"))


# Types


async def test_connections_are_psycopgs_own(cluster: LocalCluster) -> None:
    async with PoolManager(cluster.dsn) as manager:
        async with manager.acquire_master() as connection:
            assert_type(connection, psycopg.AsyncConnection[TupleRow])
            assert type(connection) is psycopg.AsyncConnection
        connection = await manager.acquire_replica()
        assert_type(connection, psycopg.AsyncConnection[TupleRow])
        await manager.release(connection)
        assert_type(await manager.get_pool(read_only=False), Pool)


# Blocks


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
    with pytest.raises(psycopg.OperationalError, match="nothing was committed"):
        async with manager.acquire_master() as connection:
            await connection.execute("INSERT INTO items VALUES ('terminated')")
            await manager.terminate()
    assert count(cluster, "terminated") == 0


async def test_a_block_whose_backend_ended_raises_where_it_would_commit(
    cluster: LocalCluster,
) -> None:
    async with PoolManager(cluster.dsn) as manager:
        with pytest.raises(psycopg.OperationalError, match="nothing was committed"):
            async with manager.acquire_master() as connection:
                await connection.execute("INSERT INTO items VALUES ('lost')")
                pid = connection.info.backend_pid
                await asyncio.to_thread(
                    cluster.psql, cluster.primary, f"SELECT pg_terminate_backend({pid})"
                )
                with pytest.raises(psycopg.OperationalError):
                    await connection.execute("SELECT 1")
    assert count(cluster, "lost") == 0


async def test_a_block_that_closed_its_connection_ends_as_psycopgs(cluster: LocalCluster) -> None:
    async with PoolManager(cluster.dsn) as manager:
        async with manager.acquire_master() as connection:
            await connection.close()
        async with manager.acquire_master() as connection:
            await connection.execute("SELECT 1")


# Pool options


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (5, 5)),
        ({"max_size": None}, (5, 5)),
        ({"min_size": 2}, (3, 3)),
        ({"min_size": 0, "max_size": 1}, (1, 2)),
        ({"max_size": 10}, (5, 11)),
    ],
    ids=str,
)
async def test_sizes_are_the_users_and_one_more(
    adapter: PsycopgAdapter,
    cluster: LocalCluster,
    options: dict[str, Any],
    sizes: tuple[int, int],
) -> None:
    async with opened(adapter, cluster.primary, **options) as pool:
        assert (pool.min_size, pool.max_size) == sizes
        assert adapter.get_pool_maxsize(pool) == sizes[1]


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": -1},
        {"min_size": 0},
        {"min_size": 5, "max_size": 4},
        {"max_size": 3},
        {"min_size": "2"},
        {"num_workers": 0},
        {"close_returns": True},
    ],
    ids=str,
)
def test_wrong_values_are_told_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PoolManager("host=a", pool_factory_kwargs=options)


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"open": True},
        {"conninfo": "host=a"},
        {"kwargs": {"host": "a"}},
        {"kwargs": {"target_session_attrs": "any"}},
        {"kwargs": {"no_such_argument": 1}},
    ],
    ids=str,
)
def test_unknown_options_are_told_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        PoolManager("host=a", pool_factory_kwargs=options)


async def test_arguments_of_connect_go_into_kwargs(cluster: LocalCluster) -> None:
    kwargs = {"autocommit": True, "row_factory": dict_row, "application_name": "mine"}
    manager = PoolManager(cluster.dsn, pool_factory_kwargs={"kwargs": kwargs})
    async with manager, manager.acquire_master() as connection:
        assert connection.autocommit
        cursor = await connection.execute("SHOW application_name")
        row: Any = await cursor.fetchone()
        assert row == {"application_name": "mine"}


@pytest.mark.skipif(
    tuple(map(int, psycopg_pool.__version__.split(".")[:2])) < (3, 3),
    reason="psycopg_pool takes callables since 3.3",
)
async def test_a_password_may_come_from_a_callable(cluster: LocalCluster) -> None:
    async def kwargs() -> dict[str, Any]:
        return {"password": cluster.password}

    dsn = cluster.dsn.replace(cluster.password, "wrong")
    manager = PoolManager(dsn, pool_factory_kwargs={"kwargs": kwargs})
    async with manager, manager.acquire_master(timeout=PATIENCE) as connection:
        await connection.execute("SELECT 1")


async def test_other_options_mean_what_they_mean_in_the_pool(cluster: LocalCluster) -> None:
    class MyConnection(psycopg.AsyncConnection[TupleRow]):
        pass

    called: list[str] = []

    async def configure(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        called.append("configure")

    async def reset(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        called.append("reset")

    async def check(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        called.append("check")

    options = {
        "connection_class": MyConnection,
        "configure": configure,
        "reset": reset,
        "check": check,
        "name": "mine",
        "timeout": 7.0,
        "max_waiting": 8,
        "max_lifetime": 9.0,
        "max_idle": 10.0,
        "reconnect_timeout": 11.0,
        "num_workers": 2,
    }
    async with PoolManager(cluster.dsn, pool_factory_kwargs=options) as manager:
        async with manager.acquire_master(timeout=PATIENCE) as connection:
            assert isinstance(connection, MyConnection)
        await eventually(lambda: {"configure", "reset", "check"} == set(called), str(called))
        pool = await manager.get_pool(read_only=False)
        assert pool.name == "mine"
        assert (pool.timeout, pool.max_waiting) == (7.0, 8)
        assert (pool.max_lifetime, pool.max_idle) == (9.0, 10.0)
        assert (pool.reconnect_timeout, pool.num_workers) == (11.0, 2)


async def test_a_configure_that_fails_is_the_error_of_the_pool(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async def fail(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        raise ZeroDivisionError

    async def leave_open(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        await connection.execute("SELECT 1")

    async with asyncio.timeout(SOON):
        with pytest.raises(ZeroDivisionError):
            await adapter.create_pool(target(cluster.primary), configure=fail)
        with pytest.raises(psycopg.ProgrammingError, match="left a transaction open"):
            await adapter.create_pool(target(cluster.primary), configure=leave_open)
    await eventually(lambda: not backends(cluster, cluster.primary), "backends are left")


# Acquire and release


async def test_acquire_takes_the_pools_argument_and_no_other(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, min_size=0, max_size=1) as pool:
        taken = [await adapter.acquire_from_pool(pool, timeout=SOON) for _ in range(2)]
        with pytest.raises(psycopg_pool.PoolTimeout):
            await adapter.acquire_from_pool(pool, timeout=0.05)
        with pytest.raises(TypeError):
            await adapter.acquire_from_pool(pool, no_such_argument=1)
        for connection in taken:
            await adapter.release_to_pool(connection, pool)
        assert adapter.get_pool_freesize(pool) == 2


async def test_an_acquire_for_which_the_host_refuses_a_connect_fails_at_once(
    adapter: PsycopgAdapter, alone: LocalCluster
) -> None:
    node = alone.primary
    async with opened(adapter, node, min_size=0, max_size=3) as pool:
        await adapter.acquire_from_pool(pool)
        await asyncio.to_thread(alone.kill, node)
        async with asyncio.timeout(SOON):
            with pytest.raises(psycopg.OperationalError, match="refused"):
                # The pool may have opened others in advance, which are dead now.
                for _ in range(4):
                    await adapter.acquire_from_pool(pool)
        # And again: no growing interval stands in the way once the host is back.
        await asyncio.to_thread(alone.start, node)
        async with asyncio.timeout(SOON):
            connection = await adapter.acquire_from_pool(pool)
            await connection.execute("SELECT 1")


def connecting_in_turn(limit: int) -> type[psycopg.AsyncConnection[TupleRow]]:
    """Of a host that lets so many in, and takes its time to refuse others."""

    class MyConnection(psycopg.AsyncConnection[TupleRow]):
        attempts = 0
        now = most = 0

        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            cls.attempts += 1
            if cls.attempts <= limit:
                return await super().connect(*args, **kwargs)
            cls.now += 1
            cls.most = max(cls.most, cls.now)
            try:
                await asyncio.sleep(0.02)
                raise psycopg.OperationalError("too many connections")
            finally:
                cls.now -= 1

    return MyConnection


@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
async def test_a_connect_that_fails_is_not_repeated_by_each_of_those_who_wait(
    adapter: PsycopgAdapter, cluster: LocalCluster, cancelled: bool
) -> None:
    connection_class: Any = connecting_in_turn(2)
    options = {"min_size": 0, "max_size": 20, "connection_class": connection_class}
    async with opened(adapter, cluster.primary, **options) as pool:
        connection = await adapter.acquire_from_pool(pool)
        acquiring = [asyncio.ensure_future(_take(adapter, pool)) for _ in range(20)]
        if cancelled:
            # By the pool's worker, and by one for all who wait.
            await eventually(lambda: connection_class.attempts == 4, "one tries for all")
            acquiring[0].cancel()
            acquiring[3].cancel()
        async with asyncio.timeout(SOON):
            done = await asyncio.gather(*acquiring, return_exceptions=True)
        refused = [exc for exc in done if isinstance(exc, psycopg.OperationalError)]
        assert len(refused) == (18 if cancelled else 20)
        assert connection_class.most <= 2
        assert connection_class.attempts < 10
        await adapter.release_to_pool(connection, pool)


async def _take(adapter: PsycopgAdapter, pool: Pool) -> psycopg.AsyncConnection[TupleRow]:
    return await adapter.acquire_from_pool(pool)


@pytest.mark.parametrize("how", ["terminated", "cancelled", "pool ended", "closed"])
async def test_giving_back_waits_for_the_reset(
    adapter: PsycopgAdapter, cluster: LocalCluster, how: str
) -> None:
    """Whatever comes of it, it ends, and the workers go on."""
    resets = 0

    async def reset(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        nonlocal resets
        resets += 1
        if resets <= 4:
            await connection.execute("SELECT pg_sleep(60)")

    async with opened(adapter, cluster.primary, min_size=0, max_size=3, reset=reset) as pool:
        taken = [await adapter.acquire_from_pool(pool) for _ in range(4)]
        if how == "closed":
            for connection in taken:
                await connection.close()
        back = [asyncio.ensure_future(adapter.release_to_pool(c, pool)) for c in taken]
        if how != "closed":
            await eventually(lambda: resets == 3, "all workers are busy")
            assert not any(task.done() for task in back)
        async with asyncio.timeout(SOON):
            if how == "pool ended":
                await adapter.terminate_pool(pool)
            for connection, task in zip(taken, back, strict=True):
                if how == "terminated":
                    adapter.terminate_connection(connection)
                elif how == "cancelled":
                    task.cancel()
            ends = await asyncio.gather(*back, return_exceptions=True)
            if how == "cancelled":
                assert all(isinstance(end, asyncio.CancelledError) for end in ends)
            else:
                assert ends == [None] * 4
            if how != "pool ended":
                resets = 4
                taken = [await adapter.acquire_from_pool(pool) for _ in range(4)]
                for connection in taken:
                    await adapter.release_to_pool(connection, pool)
                assert resets == 8
                assert adapter.get_pool_freesize(pool) == 4


async def test_a_reset_that_hangs_costs_its_connection_and_not_the_host(
    cluster: LocalCluster,
) -> None:
    hangs = False

    async def reset(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        if hangs:
            await connection.execute("SELECT pg_sleep(60)")

    options = {"min_size": 1, "max_size": 3, "reset": reset}
    async with PoolManager(
        cluster.dsn, refresh_timeout=0.5, acquire_timeout=PATIENCE, pool_factory_kwargs=options
    ) as manager:
        held = [await manager.acquire_master() for _ in range(3)]
        hangs = True
        await asyncio.wait_for(asyncio.gather(*map(manager.release, held)), SOON)
        hangs = False
        for _ in range(6):
            async with manager.acquire_master() as connection:
                await connection.execute("SELECT 1")


async def test_release_while_a_query_runs_ends_the_query(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, min_size=0, max_size=1) as pool:
        connection = await adapter.acquire_from_pool(pool)
        query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
        await eventually(lambda: is_active(connection), "the query is sent")
        async with asyncio.timeout(SOON):
            await adapter.release_to_pool(connection, pool)
            with pytest.raises(psycopg.OperationalError):
                await query
        assert adapter.get_pool_freesize(pool) == 2


async def test_terminating_ends_what_waits_without_a_query(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, min_size=0, max_size=1) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await connection.set_autocommit(True)
        await connection.execute("LISTEN channel")

        async def listen() -> None:
            async for _ in connection.notifies():
                pass

        listening = asyncio.ensure_future(listen())
        await eventually(connection.lock.locked, "it listens")
        adapter.terminate_connection(connection)
        assert adapter.is_connection_closed(connection)
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(listening, SOON)
        await adapter.release_to_pool(connection, pool)


async def test_fetch_scalar_leaves_the_users_settings(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    kwargs = {"row_factory": dict_row, "prepare_threshold": 0}
    async with opened(adapter, cluster.primary, kwargs=kwargs) as pool:
        connection = await adapter.acquire_from_pool(pool)
        assert await adapter.fetch_scalar(connection, "SELECT '%s' || 'x', 2") == "%sx"
        with pytest.raises(psycopg.errors.UndefinedTable):
            await adapter.fetch_scalar(connection, "SELECT * FROM nowhere")
        assert not connection.autocommit
        assert (
            await adapter.fetch_scalar(connection, "SELECT count(*) FROM pg_prepared_statements")
            == 0
        )
        await adapter.release_to_pool(connection, pool)


async def test_a_cancelled_check_of_a_frozen_server_ends_at_once(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """Psycopg would ask the server to cancel, for five seconds or, with an old libpq, for ever."""
    async with opened(adapter, cluster.primary) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        try:
            check = asyncio.ensure_future(adapter.fetch_scalar(connection, "SELECT 1"))
            await eventually(lambda: is_active(connection), "the check is sent")
            check.cancel()
            done, _ = await asyncio.wait({check}, timeout=2)
            assert done
            assert check.cancelled()
            assert connection.closed
        finally:
            await asyncio.to_thread(cluster.thaw, cluster.primary)
        await adapter.release_to_pool(connection, pool)


# The DSN


async def test_parameters_of_the_dsn_reach_libpq(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    params = "&options=-c%20work_mem%3D3MB&connect_timeout=7"
    pool = await adapter.create_pool(target(cluster.primary, params))
    connection = await adapter.acquire_from_pool(pool)
    assert await adapter.fetch_scalar(connection, "SHOW work_mem") == "3MB"
    assert await adapter.fetch_scalar(connection, "SHOW application_name") == "tested"
    assert connection.info.get_parameters()["connect_timeout"] == "7"
    await adapter.terminate_pool(pool)
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        await adapter.create_pool(target(cluster.primary, "&sslmode=require"))


async def test_to_choose_a_host_is_not_libpqs_work(
    adapter: PsycopgAdapter, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    (replica,) = cluster.replicas
    params = "&target_session_attrs=primary&load_balance_hosts=random"
    pool = await adapter.create_pool(target(replica, params))
    connection = await adapter.acquire_from_pool(pool)
    assert await adapter.fetch_scalar(connection, "SELECT pg_is_in_recovery()") is True
    await adapter.terminate_pool(pool)


def test_a_parameter_that_libpq_refuses_is_told_at_construction() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        PoolManager("postgresql://a/%ff")


# Errors of connecting


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"password": "wrong"}, "28P01"),
        ({"user": "nobody"}, "28P01"),
        ({"dbname": "nowhere"}, "3D000"),
        ({"password": ""}, "28P01"),
    ],
    ids=str,
)
async def test_refusals_have_their_sqlstate(
    adapter: PsycopgAdapter,
    cluster: LocalCluster,
    params: dict[str, Any],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(cluster.primary.dsn, **params)
    assert adapter.sqlstate(caught.value) == code


# Ends


async def test_terminate_leaves_nothing_even_of_a_pool_that_connects(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    node = cluster.primary
    before = asyncio.all_tasks()
    pool = await adapter.create_pool(target(node), min_size=0, max_size=8)
    held = await adapter.acquire_from_pool(pool)
    await asyncio.to_thread(cluster.freeze, node)
    waiting: list[asyncio.Future[Any]] = []

    def connecting() -> bool:
        # The pool's size counts those that are being opened; one may have been when it froze.
        out = 1 + sum(each.done() for each in waiting)
        stats = pool.get_stats()
        return stats["requests_waiting"] >= 3 and stats["pool_size"] > out

    try:
        waiting += [asyncio.ensure_future(adapter.acquire_from_pool(pool)) for _ in range(4)]
        await eventually(connecting, "workers connect, and users wait")
        began = time.monotonic()
        await adapter.terminate_pool(pool)
        await asyncio.wait(waiting, timeout=SOON)
        await adapter.terminate_pool(pool)
        assert time.monotonic() - began < 2
        assert asyncio.all_tasks() - set(waiting) == before
        assert adapter.is_connection_closed(held)
        assert all(isinstance(w.exception(), Exception) for w in waiting[1:])
    finally:
        await asyncio.to_thread(cluster.thaw, node)
    await eventually(lambda: not backends(cluster, node), "backends are left")


FORGETFUL = """
import asyncio, os, signal, sys
from pyscopg2.psycopg import PoolManager

async def main():
    manager = PoolManager(sys.argv[1], pool_factory_kwargs={"min_size": 0, "max_size": 4})
    connection = await manager.acquire_master(timeout=30)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    # Workers of the pool begin to connect, and get no answer where the server is frozen.
    async def acquire():
        await manager.acquire_master(timeout=30)
    waiting = [asyncio.ensure_future(acquire()) for _ in range(2)]
    await asyncio.sleep(float(sys.argv[2]))

asyncio.run(main())
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["healthy", "frozen"])
@pytest.mark.parametrize("pause", ["0.05", "1.5"])
async def test_a_program_that_never_closes_ends_at_once(
    cluster: LocalCluster, frozen: bool, pause: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", FORGETFUL, cluster.primary.dsn, pause]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
        if frozen:
            await asyncio.to_thread(cluster.freeze, cluster.primary)
        began = time.monotonic()
        process.stdin.write(b"\n")
        await process.stdin.drain()
        await asyncio.wait_for(process.wait(), PATIENCE)
        assert time.monotonic() - began < float(pause) + 3
        assert b"Traceback" not in await process.stderr.read()
    finally:
        await asyncio.to_thread(cluster.thaw, cluster.primary)
        if process.returncode is None:
            process.kill()
            await process.wait()
