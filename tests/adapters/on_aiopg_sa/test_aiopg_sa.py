"""What is particular to aiopg.sa."""

import asyncio
import contextlib
import gc
import importlib
import os
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import psutil
import psycopg2
import pytest
from aiopg.connection import Connection
from aiopg.sa import Engine, SAConnection
from aiopg.sa.exc import InvalidRequestError, ResourceClosedError
from psycopg2 import extensions, extras
from tests.adapters.on_aiopg.support import free
from tests.support.application import Application
from tests.support.waiting import PATIENCE, SOON, eventually

from pyscopg2.aiopg_sa import AiopgSaAdapter, PoolManager
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster, Node

sa: Any = importlib.import_module("sqlalchemy")  # it has no types before 2.0

TESTED = Application("on-aiopg-sa")
"""All connections under test."""

SMALL = {"minsize": 0, "maxsize": 2}


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        cluster.psql(cluster.primary, "CREATE TABLE items (item text)")
        cluster.wait_streaming()
        yield cluster
        for node in cluster.nodes:
            asyncio.run(TESTED.no_backends(cluster, node))


@pytest.fixture
def cluster(whole_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """A primary and a replica; after the test neither is frozen."""
    yield whole_cluster
    for node in whole_cluster.nodes:
        whole_cluster.thaw(node)


@pytest.fixture
async def manager(cluster: LocalCluster) -> AsyncIterator[PoolManager]:
    async with manage(cluster) as manager:
        await manager.ready()
        yield manager


def manage(cluster: LocalCluster, **arguments: Any) -> PoolManager:
    defaults: dict[str, Any] = {"acquire_timeout": PATIENCE, "pool_factory_kwargs": SMALL}
    return PoolManager(f"{cluster.dsn}?application_name={TESTED.name}", **(defaults | arguments))


async def fetch(connection: Any, sql: str) -> Any:
    return await connection.scalar(sql)


async def execute(connection: Any, sql: str) -> None:
    await connection.execute(sql)


async def end_block(adapter: AiopgSaAdapter, connection: Any) -> None:
    ending = adapter.end_block(connection, None)
    assert ending is not None
    await ending


def raw_of(connection: Any) -> Connection:
    raw = connection.connection
    assert isinstance(raw, Connection)
    return raw


@contextlib.asynccontextmanager
async def opened(target: Target, **options: Any) -> AsyncGenerator[tuple[AiopgSaAdapter, Engine]]:
    adapter = AiopgSaAdapter()
    pool = await adapter.create_pool(target, **options)
    try:
        yield adapter, pool
    finally:
        await adapter.terminate_pool(pool)


# The manager


async def test_connections_are_typed_as_aiopgs_own(manager: PoolManager) -> None:
    async with manager.acquire_master() as connection:
        assert_type(connection, SAConnection)
        assert type(connection) is SAConnection
    awaited = await manager.acquire_replica()
    assert_type(awaited, SAConnection)
    await manager.release(awaited)
    assert_type(await manager.get_pool(read_only=True), Engine)


ITEMS = sa.table("items", sa.column("item", sa.Text))


async def count(connection: Any, item: str) -> int:
    query = sa.func.count().select().select_from(ITEMS).where(ITEMS.c.item == item)
    return int(await connection.scalar(query))


async def test_a_block_rolls_back_what_is_open_and_otherwise_each_statement_commits(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    kept: Any
    with pytest.raises(RuntimeError, match="the block's"):
        async with manager.acquire_master() as kept:
            await kept.execute(ITEMS.insert().values(item="kept"))
            raise RuntimeError("the block's")
    pids: set[object] = set()
    for nested in (False, True):
        async with manager.acquire_master() as kept:
            pids.add(await fetch(kept, "SELECT pg_backend_pid()"))
            await kept.begin()
            await kept.execute(ITEMS.insert().values(item="lost"))
            if nested:
                await kept.begin_nested()
    async with manager.acquire_master() as kept:
        async with kept.begin():
            await kept.execute(ITEMS.insert().values(item="kept"))
        pids.add(await fetch(kept, "SELECT pg_backend_pid()"))
        assert (await count(kept, "kept"), await count(kept, "lost")) == (2, 0)
    assert len(pids) == 1  # the connection was kept throughout


async def test_expressions_of_sqlalchemy(manager: PoolManager) -> None:
    connection: Any
    async with manager.acquire_master() as connection:
        query = ITEMS.insert().values(item="a 'quoted' %s").returning(ITEMS.c.item)
        assert await connection.scalar(query) == "a 'quoted' %s"
        query = ITEMS.select().where(ITEMS.c.item.in_(["a 'quoted' %s", "none"]))
        assert [row.item async for row in connection.execute(query)] == ["a 'quoted' %s"]


@pytest.mark.parametrize("block", [True, False], ids=["block", "awaited"])
async def test_a_connection_that_the_user_closed_is_given_back(
    manager: PoolManager, block: bool
) -> None:
    connection: Any
    if block:
        async with manager.acquire_master() as connection:
            await connection.begin()
            await connection.close()
    else:
        connection = await manager.acquire_master()
        await connection.close()
        assert manager.is_connection_closed(connection)
        await manager.release(connection)
    pool = await manager.get_pool(read_only=False)
    assert manager.get_pool_freesize(pool) == 2
    held = [await manager.acquire_master() for _ in range(2)]
    for connection in held:
        await manager.release(connection)


@pytest.mark.parametrize("block", [True, False], ids=["block", "awaited"])
async def test_what_refers_to_a_connection_that_was_given_back_touches_nobody(
    cluster: LocalCluster, block: bool
) -> None:
    first: Any
    second: Any
    async with manage(cluster, pool_factory_kwargs={"minsize": 0, "maxsize": 1}) as manager:
        if block:
            async with manager.acquire_master() as first:
                pid = await fetch(first, "SELECT pg_backend_pid()")
                transaction = await first.begin()
                savepoint = await first.begin_nested()
                await execute(first, "INSERT INTO items VALUES ('late')")
            assert not savepoint.is_active
            assert not transaction.is_active
        else:
            first = await manager.acquire_master()
            pid = await fetch(first, "SELECT pg_backend_pid()")
            transaction = await first.begin()
            await transaction.rollback()
            await manager.release(first)
        async with manager.acquire_master() as second:
            assert await fetch(second, "SELECT pg_backend_pid()") == pid
            theirs = await second.begin()
            await execute(second, "INSERT INTO items VALUES ('late')")
            with pytest.raises(InvalidRequestError):
                await transaction.commit()
            with pytest.raises(ResourceClosedError):
                await execute(first, "COMMIT")
            await theirs.rollback()
        async with manager.acquire_master() as second:
            assert await count(second, "late") == 0


async def test_a_transaction_of_a_connection_that_was_lost_with_its_release_does_not_commit(
    manager: PoolManager,
) -> None:
    connection: Any = await manager.acquire_master()
    transaction = await connection.begin()
    await execute(connection, "INSERT INTO items VALUES ('released')")
    with pytest.warns(ResourceWarning, match="transaction status"):
        await manager.release(connection)
    with pytest.raises(psycopg2.InterfaceError):
        await transaction.commit()


async def test_to_give_back_is_no_reason_to_check_the_host(manager: PoolManager) -> None:
    """A connection that is closed when it comes back is one."""
    connection: Any
    async with manager.acquire_master() as connection:
        await connection.begin()
        await end_block(AiopgSaAdapter(), connection)
        assert not manager.is_connection_closed(connection)


async def test_a_transaction_left_open_is_lost_with_its_connection(
    manager: PoolManager, cluster: LocalCluster
) -> None:
    pool: Any
    for warning in ("always", "error"):
        pids: list[object] = []
        told = pytest.warns if warning == "always" else pytest.raises
        with told(ResourceWarning, match="transaction status"):
            async with manager.acquire_master() as connection:
                pids.append(await fetch(connection, "SELECT pg_backend_pid()"))
                await execute(connection, "BEGIN")
                await execute(connection, "INSERT INTO items VALUES ('open')")
        assert manager.is_connection_closed(connection)
        async with manager.acquire_master() as connection:
            assert await fetch(connection, "SELECT pg_backend_pid()") not in pids
            assert await fetch(connection, "SELECT count(*) FROM items WHERE item = 'open'") == 0
        pool = await manager.get_pool(read_only=False)
        assert manager.get_pool_freesize(pool) == 2


async def test_sizes_are_aiopgs_defaults(cluster: LocalCluster) -> None:
    async with manage(cluster, pool_factory_kwargs=None) as manager:
        await manager.ready()
        pool: Any = await manager.get_pool(read_only=False)
        assert (pool.minsize, pool.maxsize, pool.size) == (1, 10, 1)
        assert manager.get_pool_freesize(pool) == 10


async def test_no_limit_is_no_limit(cluster: LocalCluster) -> None:
    async with manage(cluster, pool_factory_kwargs={"minsize": 3, "maxsize": 0}) as manager:
        await manager.ready()
        pool: Any = await manager.get_pool(read_only=False)
        assert (pool.minsize, pool.maxsize, pool.size) == (3, None, 3)
        adapter = AiopgSaAdapter()
        assert adapter.get_pool_maxsize(pool) is None
        assert free(pool) > 1000
        held = [await manager.acquire_master() for _ in range(12)]
        assert (
            len({await fetch(connection, "SELECT pg_backend_pid()") for connection in held}) == 12
        )
        for connection in held:
            await manager.release(connection)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"min_size": 1}, TypeError),
        ({"no_such_option": 1}, TypeError),
        ({"async_": False}, TypeError),
        ({"target_session_attrs": "read-write"}, TypeError),
        ({"minsize": -1}, ValueError),
        ({"minsize": 3, "maxsize": 2}, ValueError),
        ({"maxsize": None}, ValueError),
        ({"maxsize": "3"}, ValueError),
        ({"connect_timeout": "soon"}, ValueError),
    ],
    ids=str,
)
def test_bad_options_are_known_at_construction(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        PoolManager("postgresql://u:s3cret@a,b/d", pool_factory_kwargs=options)


@pytest.mark.skipif(extensions.libpq_version() >= 180000, reason="it knows them")
def test_a_demand_that_this_libpq_does_not_know_is_not_forgotten() -> None:
    for params in ({"min_protocol_version": "3.2"}, {"scram_client_key": "s3cret"}):
        with pytest.raises(ValueError, match="libpq") as caught:
            AiopgSaAdapter().check_options(Target("a", 1, params=params))
        assert "s3cret" not in str(caught.value)


def test_a_parameter_that_this_libpq_refuses_is_known_at_construction() -> None:
    with pytest.raises(ValueError, match="libpq") as caught:
        AiopgSaAdapter().check_options(
            Target("a", 1, password="s3cret", params={"servicefile": "x"})
        )
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ValueError, match="libpq") as caught:
        PoolManager("postgresql://u:s3cret%FF@a/d")
    assert "s3cret" not in repr(caught.value.__cause__)


# The adapter's own


async def test_a_second_termination_disturbs_nobody(cluster: LocalCluster) -> None:
    """The file descriptor of the first connection is another one's by then."""
    async with opened(TESTED.target(cluster.primary), minsize=0, maxsize=3) as (adapter, pool):
        first = await adapter.acquire_from_pool(pool)
        descriptor = raw_of(first).raw.fileno()
        adapter.terminate_connection(first)
        second = await adapter.acquire_from_pool(pool)
        assert raw_of(second).raw.fileno() == descriptor
        adapter.terminate_connection(first)
        assert await asyncio.wait_for(fetch(second, "SELECT pg_sleep(0.01)::text"), SOON) == ""
        await adapter.release_to_pool(first, pool)
        adapter.terminate_connection(first)
        assert await asyncio.wait_for(fetch(second, "SELECT pg_sleep(0.01)::text"), SOON) == ""


async def test_a_terminated_transaction_does_not_look_committed(cluster: LocalCluster) -> None:
    async with opened(TESTED.target(cluster.primary), minsize=0) as (adapter, pool):
        connection: Any = await adapter.acquire_from_pool(pool)
        transaction = await connection.begin()
        await execute(connection, "INSERT INTO items VALUES ('terminated')")
        adapter.terminate_connection(connection)
        with pytest.raises(psycopg2.Error):
            await transaction.commit()
        assert adapter.end_block(connection, None) is None, "the connection is lost"
        await adapter.release_to_pool(connection, pool)
    sql = "SELECT count(*) FROM items WHERE item = 'terminated'"
    assert cluster.psql(cluster.primary, sql) == "0"


async def test_a_rollback_that_is_cancelled_leaves_nothing_out(cluster: LocalCluster) -> None:
    async with opened(TESTED.target(cluster.primary), minsize=0, maxsize=1) as (adapter, pool):
        connection: Any = await adapter.acquire_from_pool(pool)
        await connection.begin()
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        ending = asyncio.ensure_future(end_block(adapter, connection))
        await asyncio.sleep(0.05)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(ending, SOON)
        await asyncio.wait_for(adapter.release_to_pool(connection, pool), SOON)
        assert free(pool) == 1


async def test_a_release_that_is_cancelled_leaves_nothing_out(cluster: LocalCluster) -> None:
    """SQLAlchemy's side does not know that the transaction has ended, and rolls it back."""
    async with opened(TESTED.target(cluster.primary), minsize=0, maxsize=1) as (adapter, pool):
        connection: Any = await adapter.acquire_from_pool(pool)
        await connection.begin()
        await execute(connection, "COMMIT")
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        releasing = asyncio.ensure_future(adapter.release_to_pool(connection, pool))
        while (
            connection.connection.raw.get_transaction_status()
            != extensions.TRANSACTION_STATUS_ACTIVE
        ):
            await asyncio.sleep(0.001)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(releasing, SOON)
        assert free(pool) == 1


async def test_no_cancelled_acquire_succeeds(cluster: LocalCluster) -> None:
    """On Python 3.11 `asyncio.wait_for`, which aiopg uses, may forget that it was cancelled."""
    async with opened(TESTED.target(cluster.primary), minsize=0, maxsize=1) as (adapter, pool):
        for turns in range(30):
            acquiring = asyncio.ensure_future(_take(adapter, pool))
            for _ in range(turns % 10):
                await asyncio.sleep(0)
                time.sleep(0.0005)  # what the server says is there in this very turn
            if acquiring.done():
                connection = acquiring.result()
            else:
                acquiring.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await acquiring
                assert free(pool) == 1
                connection = await adapter.acquire_from_pool(pool)
            adapter.terminate_connection(connection)
            await adapter.release_to_pool(connection, pool)
        assert free(pool) == 1


async def _take(adapter: AiopgSaAdapter, pool: Engine) -> SAConnection:
    return await adapter.acquire_from_pool(pool)


async def test_giving_back_does_not_wait_for_those_who_connect(cluster: LocalCluster) -> None:
    async with opened(TESTED.target(cluster.primary), minsize=0, maxsize=3) as (adapter, pool):
        connections = [await adapter.acquire_from_pool(pool) for _ in range(2)]
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        connecting = asyncio.ensure_future(adapter.acquire_from_pool(pool))
        await eventually(lambda: free(pool) == 0, "it connects")
        async with asyncio.timeout(SOON):
            await adapter.release_to_pool(connections[0], pool)
            adapter.terminate_connection(connections[1])
            await adapter.release_to_pool(connections[1], pool)
            await adapter.terminate_pool(pool)
            assert not connecting.done()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting


async def test_the_users_cursor_factory_does_not_reach_the_checks(cluster: LocalCluster) -> None:
    options = {"cursor_factory": extras.RealDictCursor}
    async with manage(cluster, pool_factory_kwargs=options) as manager:
        await manager.ready(masters_count=1, replicas_count=1)
        async with manager.acquire() as connection, raw_of(connection).cursor() as cursor:
            await cursor.execute("SELECT 1 AS one")
            assert await cursor.fetchone() == {"one": 1}


async def test_a_query_that_the_server_cancels_fails_without_a_cancellation(
    cluster: LocalCluster,
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    target = TESTED.target(cluster.primary, "&options=-c%20statement_timeout%3D50ms")
    async with opened(target, minsize=0) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        with pytest.raises(extensions.QueryCanceledError) as caught:
            await adapter.fetch_scalar(connection, "SELECT pg_sleep(60)")
        assert adapter.sqlstate(caught.value) == "57014"
        assert await adapter.fetch_scalar(connection, "SELECT 1") == 1


async def set_up(connection: Connection, sql: str) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)


async def test_aiopgs_own_options_keep_their_meaning(cluster: LocalCluster) -> None:
    seen: list[Connection] = []

    async def on_connect(connection: Connection) -> None:
        await set_up(connection, "SET my.setting = 'set'")
        seen.append(connection)

    dialect = importlib.import_module("sqlalchemy.dialects.postgresql.psycopg2").dialect()
    options = {
        "minsize": 1,
        "maxsize": 3,
        "timeout": 7,
        "echo": True,
        "pool_recycle": 0,
        "enable_json": False,
        "enable_hstore": False,
        "enable_uuid": False,
        "on_connect": on_connect,
        "dialect": dialect,
        "sslmode": "disable",
    }
    async with opened(TESTED.target(cluster.primary), **options) as (adapter, pool):
        engine: Any = pool
        assert (engine.timeout, engine.minsize, engine.maxsize) == (7, 1, 3)
        assert engine.dialect is dialect
        assert len(seen) == 1
        connection = await adapter.acquire_from_pool(pool)
        assert await fetch(connection, "SHOW my.setting") == "set"
        assert "sslmode=disable" in str(raw_of(connection).dsn)


async def test_an_on_connect_that_fails_leaves_no_connection(cluster: LocalCluster) -> None:
    kept: list[Connection] = []

    async def on_connect(connection: Connection) -> None:
        kept.append(connection)
        if len(kept) > 1:
            await set_up(connection, "SELECT no_such_function()")

    adapter = AiopgSaAdapter()
    with pytest.raises(psycopg2.ProgrammingError):
        await adapter.create_pool(
            TESTED.target(cluster.primary), minsize=2, on_connect=on_connect, enable_hstore=False
        )
    assert len(kept) == 2
    assert all(connection.closed for connection in kept)


@contextlib.contextmanager
def closes_what_it_opens(node: Node) -> Generator[None]:
    """Without the garbage collector."""

    def sockets() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == node.port for each in found)

    gc.disable()
    try:
        before = sockets()
        yield
        assert sockets() == before, "sockets are left open"
    finally:
        gc.enable()


async def test_an_on_connect_whose_query_the_server_cancels_fails_without_a_cancellation(
    cluster: LocalCluster,
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    slow = False

    async def on_connect(connection: Connection) -> None:
        if slow:
            await set_up(connection, "SELECT pg_sleep(60)")

    target = TESTED.target(cluster.primary, "&options=-c%20statement_timeout%3D50ms")
    async with opened(target, **SMALL, on_connect=on_connect) as (adapter, pool):
        await adapter.acquire_from_pool(pool)
        slow = True
        for connect in (
            lambda: adapter.acquire_from_pool(pool),
            lambda: adapter.create_pool(target, on_connect=on_connect),
        ):
            with (
                closes_what_it_opens(cluster.primary),
                pytest.raises(extensions.QueryCanceledError) as caught,
            ):
                await connect()
            assert adapter.sqlstate(caught.value) == "57014"
        assert free(pool) == 1


async def test_a_connect_whose_own_query_the_server_cancels_fails_without_a_cancellation(
    cluster: LocalCluster,
) -> None:
    """aiopg asks for the oids of hstore."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    cluster.psql(
        cluster.primary,
        "CREATE SCHEMA IF NOT EXISTS slow; CREATE OR REPLACE VIEW slow.pg_type AS"
        " SELECT * FROM pg_catalog.pg_type WHERE pg_sleep(60) IS NOT NULL OFFSET 0",
    )
    options = "-c%20search_path%3Dslow,pg_catalog%20-c%20statement_timeout%3D50ms"
    with (
        closes_what_it_opens(cluster.primary),
        pytest.raises(extensions.QueryCanceledError),
    ):
        await AiopgSaAdapter().create_pool(TESTED.target(cluster.primary, f"&options={options}"))


async def test_hstore_is_read_unless_it_is_switched_off(cluster: LocalCluster) -> None:
    # The server has no extensions here: a type of that name will do.
    cluster.psql(cluster.primary, "CREATE SCHEMA typed; CREATE DOMAIN typed.hstore AS text")
    for switch, read in (({}, True), ({"enable_hstore": False}, False)):
        async with opened(TESTED.target(cluster.primary), **switch) as (adapter, pool):
            connection = await adapter.acquire_from_pool(pool)
            sql = """SELECT ARRAY['"a"=>"1"'::typed.hstore]"""
            assert (await fetch(connection, sql) == [{"a": "1"}]) is read


async def test_the_parameters_of_the_dsn(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    (replica,) = cluster.replicas
    target = TESTED.target(
        replica,
        "&target_session_attrs=read-write"
        "&load_balance_hosts=random"
        "&options=-c%20search_path%3Dsomewhere",
    )
    async with opened(target) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        assert await fetch(connection, "SHOW search_path") == "somewhere"
        assert await fetch(connection, "SHOW application_name") == TESTED.name


async def test_connect_timeout_limits_each_connect(cluster: LocalCluster) -> None:
    target = TESTED.target(cluster.primary, "&connect_timeout=1")
    async with opened(target, **SMALL) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await adapter.acquire_from_pool(pool)
        with pytest.raises(TimeoutError):
            await adapter.create_pool(target, **SMALL)
        assert time.monotonic() - began < PATIENCE  # aiopg's own is 60 s
        adapter.terminate_connection(connection)


async def test_a_name_is_looked_up_beside_the_loop_and_each_address_is_tried(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    asked: list[object] = []

    async def getaddrinfo(host: object, port: int, **hints: object) -> list[Any]:
        asked.append(host)
        # Nobody listens on the first one.
        return [(socket.AF_INET, 0, 0, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    dsn = cluster.primary.dsn.replace("127.0.0.1", "db.invalid")
    (target,) = parse_dsn(f"{dsn}?application_name={TESTED.name}")
    async with opened(target) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        assert await fetch(connection, "SELECT 1") == 1
        assert "host=db.invalid" in str(raw_of(connection).dsn)
    assert asked == ["db.invalid"]
    wrong = dsn.replace(cluster.password, "wrong")
    (target,) = parse_dsn(wrong)
    with pytest.raises(psycopg2.OperationalError, match="password"):
        await AiopgSaAdapter().create_pool(target)


async def test_closing_ends_with_the_last_connection_also_one_that_was_terminated(
    cluster: LocalCluster,
) -> None:
    for terminated in (False, True):
        async with opened(TESTED.target(cluster.primary), **SMALL) as (adapter, pool):
            connection = await adapter.acquire_from_pool(pool)
            closing = asyncio.ensure_future(adapter.close_pool(pool))
            await asyncio.sleep(0.05)
            assert not closing.done()
            if terminated:
                adapter.terminate_connection(connection)
            await adapter.release_to_pool(connection, pool)
            await asyncio.wait_for(closing, SOON)


async def test_nothing_is_left_open(cluster: LocalCluster) -> None:
    """Neither backends nor descriptors, whether a pool is closed, terminated or fails."""
    descriptors = "/proc/self/fd"
    if not os.path.isdir(descriptors):  # noqa: PTH112
        pytest.skip("no /proc")
    before = len(os.listdir(descriptors))  # noqa: PTH208
    adapter = AiopgSaAdapter()
    for end in (adapter.close_pool, adapter.terminate_pool):
        pool = await adapter.create_pool(TESTED.target(cluster.primary), minsize=3)
        connection = await adapter.acquire_from_pool(pool)
        adapter.terminate_connection(connection)
        await adapter.release_to_pool(connection, pool)
        await end(pool)
    await TESTED.no_backends(cluster, cluster.primary)
    assert len(os.listdir(descriptors)) == before  # noqa: PTH208
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
