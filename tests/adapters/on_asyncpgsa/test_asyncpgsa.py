"""What is particular to asyncpgsa."""

import asyncio
import contextlib
import gc
import importlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, TypeAlias, assert_type

import asyncpg
import psutil
import pytest
from asyncpg import Pool, Record
from asyncpg.pool import PoolConnectionProxy
from tests.support.application import Application
from tests.support.waiting import PATIENCE

from pyscopg2.asyncpgsa import AsyncpgsaAdapter, PoolManager
from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.testing.cluster import LocalCluster

sa: Any = importlib.import_module("sqlalchemy")  # it has no types before 2.0

DriverPool: TypeAlias = "Pool[Record]"
Connection: TypeAlias = "PoolConnectionProxy[Record]"

BROKEN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What users of a connection get when its server, or the manager, ends it."""

TESTED = Application("on-asyncpgsa")
"""All connections under test."""

SMALL = {"min_size": 0, "max_size": 2}


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


async def fetch(connection: Connection, sql: str) -> Any:
    return await connection.fetchval(sql)


async def execute(connection: Connection, sql: str) -> None:
    await connection.execute(sql)


@contextlib.asynccontextmanager
async def opened(
    target: Target, **options: Any
) -> AsyncGenerator[tuple[AsyncpgsaAdapter, DriverPool]]:
    adapter = AsyncpgsaAdapter()
    pool = await adapter.create_pool(target, **options)
    try:
        yield adapter, pool
    finally:
        await adapter.terminate_pool(pool)


# The manager


async def test_connections_are_typed_as_asyncpgs_own(manager: PoolManager) -> None:
    async with manager.acquire_master() as connection:
        assert_type(connection, "PoolConnectionProxy[Record]")
        assert type(connection) is PoolConnectionProxy
    awaited = await manager.acquire_replica()
    assert_type(awaited, "PoolConnectionProxy[Record]")
    await manager.release(awaited)
    assert_type(await manager.get_pool(read_only=True), "Pool[Record]")


async def test_a_block_ends_nothing_and_each_statement_commits(manager: PoolManager) -> None:
    with pytest.raises(RuntimeError, match="the block's"):
        async with manager.acquire_master() as connection:
            await execute(connection, "INSERT INTO items VALUES ('kept')")
            raise RuntimeError("the block's")
    with pytest.raises(RuntimeError, match="the transaction's"):
        async with manager.acquire_master() as connection, connection.transaction():
            await execute(connection, "INSERT INTO items VALUES ('lost')")
            raise RuntimeError("the transaction's")
    async with manager.acquire_master() as connection, connection.transaction():
        await execute(connection, "INSERT INTO items VALUES ('kept')")
    async with manager.acquire_master() as connection:
        assert await fetch(connection, "SELECT count(*) FROM items WHERE item = 'kept'") == 2
        assert await fetch(connection, "SELECT count(*) FROM items WHERE item = 'lost'") == 0


async def test_expressions_of_sqlalchemy(manager: PoolManager) -> None:
    items = sa.table("items", sa.column("item", sa.Text))
    connection: Any
    async with manager.acquire_master() as connection:
        for item in ("a 'quoted' one", "another"):
            await connection.execute(items.insert().values(item=item))
        wanted = sa.select([items]).where(items.c.item.in_(["a 'quoted' one", "another"]))
        wanted = wanted.order_by(items.c.item)
        assert [row["item"] for row in await connection.fetch(wanted)] == [
            "a 'quoted' one",
            "another",
        ]
        assert (await connection.fetchrow(wanted.limit(1)))["item"] == "a 'quoted' one"
        count = sa.select([sa.func.count()]).select_from(items).where(items.c.item == "another")
        assert await connection.fetchval(count) == 1
        async with connection.transaction():
            assert [row[0] async for row in connection.cursor(wanted)][1] == "another"


async def test_the_dialect_is_the_users(cluster: LocalCluster) -> None:
    dialect = importlib.import_module("asyncpgsa.connection").get_dialect()
    dialect.identifier_preparer.initial_quote = "<"  # a dialect like no other
    options = SMALL | {"dialect": dialect}
    connection: Any
    manager = manage(cluster, pool_factory_kwargs=options)
    async with manager, manager.acquire_master() as connection:
        with pytest.raises(asyncpg.PostgresSyntaxError, match="<"):
            await connection.fetchval(sa.select([sa.literal(1).label("A")]))


async def test_the_sizes_are_asyncpgs_defaults(cluster: LocalCluster) -> None:
    async with manage(cluster, pool_factory_kwargs=None) as manager:
        await manager.ready()
        pool = await manager.get_pool(read_only=False)
        assert (pool.get_min_size(), pool.get_max_size()) == (10, 10)
        assert manager.get_pool_freesize(pool) == 10


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"minsize": 1}, TypeError),
        ({"no_such_option": 1}, TypeError),
        ({"min_size": -1}, ValueError),
        ({"max_size": 0}, ValueError),
        ({"min_size": 3, "max_size": 2}, ValueError),
        ({"max_size": None}, ValueError),
    ],
    ids=str,
)
def test_bad_options_are_known_at_construction(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        PoolManager("postgresql://u:s3cret@a,b/d", pool_factory_kwargs=options)


# The adapter's own


async def test_the_parameters_of_the_dsn(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    (replica,) = cluster.replicas
    target = TESTED.target(
        replica,
        "&target_session_attrs=read-write"
        "&load_balance_hosts=random"
        "&connect_timeout=10"
        "&keepalives=1"
        "&options=-c%20search_path%3Dsomewhere",
    )
    async with opened(target, **SMALL) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        assert await fetch(connection, "SHOW search_path") == "somewhere"
        assert await fetch(connection, "SHOW application_name") == TESTED.name


async def test_connect_timeout_limits_a_connect(cluster: LocalCluster) -> None:
    target = TESTED.target(cluster.primary, "&connect_timeout=1")
    async with opened(target, **SMALL) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await adapter.acquire_from_pool(pool)
        assert time.monotonic() - began < PATIENCE  # asyncpg's own is 60 s
        adapter.terminate_connection(connection)


async def test_a_terminated_transaction_does_not_look_committed(cluster: LocalCluster) -> None:
    async with opened(TESTED.target(cluster.primary), **SMALL) as (adapter, pool):
        connection = await adapter.acquire_from_pool(pool)
        transaction = connection.transaction()
        await transaction.start()
        await execute(connection, "INSERT INTO items VALUES ('terminated')")
        adapter.terminate_connection(connection)
        with pytest.raises(BROKEN):
            await transaction.commit()
        await adapter.release_to_pool(connection, pool)
    sql = "SELECT count(*) FROM items WHERE item = 'terminated'"
    assert cluster.psql(cluster.primary, sql) == "0"


@pytest.mark.parametrize("cancelled", [False, True], ids=["failed", "cancelled"])
async def test_a_pool_whose_creation_ends_halfway_closes_what_it_has_opened(
    cluster: LocalCluster, cancelled: bool
) -> None:
    """Without the garbage collector. The first connections are ready by then."""

    def sockets() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == cluster.primary.port for each in found)

    opened: list[object] = []
    halfway = asyncio.Event()

    async def init(connection: object) -> None:
        opened.append(connection)
        if len(opened) > 2:
            halfway.set()
            await asyncio.sleep(60 if cancelled else 0)
            raise ZeroDivisionError

    (target,) = parse_dsn(cluster.primary.dsn)
    options: dict[str, Any] = {"min_size": 3, "max_size": 3, "init": init}
    gc.disable()
    try:
        creation = asyncio.ensure_future(AsyncpgsaAdapter().create_pool(target, **options))
        await asyncio.wait_for(halfway.wait(), PATIENCE)
        if cancelled:
            creation.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else ZeroDivisionError):
            await asyncio.wait_for(creation, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while sockets():
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
