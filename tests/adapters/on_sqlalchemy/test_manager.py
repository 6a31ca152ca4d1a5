"""What is particular to SQLAlchemy, as seen through the manager."""

import asyncio
import contextlib
import gc
import logging
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, assert_type

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import AssertionPool, NullPool, StaticPool
from tests.adapters.on_sqlalchemy.support import free
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.dsn import parse_dsn
from pyscopg2.core.errors import DsnError, NotReadyError
from pyscopg2.sqlalchemy import PoolManager, SqlalchemyAdapter, drivers
from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, MakeManager, insert, no_backends, notes, scalar

# DSNs


def driver_of(manager: PoolManager) -> str:
    adapter = manager.adapter
    assert isinstance(adapter, SqlalchemyAdapter)
    return adapter.driver


@pytest.mark.parametrize(
    ("dsn", "driver"),
    [
        ("postgresql+asyncpg://u:p@a,b/d", "asyncpg"),
        ("postgresql+psycopg://u:p@a,b/d", "psycopg"),
        ("postgresql://u:p@a,b/d", "asyncpg"),
        ("postgres://u:p@a,b/d", "asyncpg"),
        ("host=a,b user=u password=p dbname=d", "asyncpg"),
        ("host=a,b password=postgresql+psycopg://", "asyncpg"),
        ("", "asyncpg"),
    ],
)
def test_the_scheme_names_the_driver(dsn: str, driver: str) -> None:
    manager = PoolManager(dsn)
    assert driver_of(manager) == driver
    assert manager.dsn == dsn


def test_without_asyncpg_a_plain_dsn_takes_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"psycopg": object()}
    monkeypatch.setattr(drivers, "find_spec", installed.get)
    # An adapter remembers which one it has found.
    monkeypatch.setattr(PoolManager, "adapter", SqlalchemyAdapter())
    assert driver_of(PoolManager("postgresql://a")) == "psycopg"
    installed.clear()
    monkeypatch.setattr(PoolManager, "adapter", SqlalchemyAdapter())
    with pytest.raises(ModuleNotFoundError, match=r"pyscopg2-sqlalchemy\[asyncpg\]"):
        PoolManager("postgresql://a")
    with pytest.raises(ModuleNotFoundError, match=r"pyscopg2-sqlalchemy\[psycopg\]"):
        PoolManager("postgresql+psycopg://a")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql+psycopg2://u:s3cret@a/d",
        "mysql://u:s3cret@a/d",
        "postgresql+ASYNCPG://u:s3cret@a/d",
        "s3cret://a",
    ],
)
def test_other_schemes_are_refused_without_being_shown(dsn: str) -> None:
    with pytest.raises(DsnError, match=r"postgresql\+asyncpg://, postgresql\+psycopg://") as caught:
        PoolManager(dsn)
    assert "s3cret" not in str(caught.value)


def test_errors_in_a_dsn_name_the_place_in_what_was_given(driver: str) -> None:
    dsn = f"postgresql+{driver}://u:s3cret@[::1/d"
    with pytest.raises(DsnError, match=f"position {dsn.index('[') + 1}:") as caught:
        PoolManager(dsn)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("dsn", [None, b"postgresql://a", 5])
def test_a_dsn_is_a_text(dsn: Any) -> None:
    with pytest.raises(TypeError, match="a DSN is a str"):
        PoolManager(dsn)


# Options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"no_such_option": 1}, TypeError),
        ({"url": "postgresql+asyncpg://a"}, TypeError),
        ({"pool": None}, TypeError),
        ({"host": "a"}, TypeError),
        ({"connect_args": {"host": "a"}}, TypeError),
        ({"connect_args": {"no_such_argument": "a"}}, TypeError),
        ({"poolclass": NullPool, "pool_size": 5}, TypeError),
        ({"poolclass": StaticPool}, ValueError),
        ({"poolclass": AssertionPool}, ValueError),
        ({"poolclass": "NullPool"}, ValueError),
        ({"pool_size": -1}, ValueError),
        ({"pool_size": "5"}, ValueError),
        ({"max_overflow": -2}, ValueError),
        ({"max_overflow": None}, ValueError),
    ],
    ids=str,
)
def test_what_sqlalchemy_would_refuse_is_refused_at_construction(
    driver: str, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        PoolManager(f"postgresql+{driver}://a", pool_factory_kwargs=options)


@pytest.mark.parametrize(
    ("pattern", "wrong", "said"),
    [
        (r":[^:@]*@", ":wrong@", "password authentication failed"),
        (r"/\w+$", "/nowhere", "does not exist"),
    ],
    ids=["password", "database"],
)
async def test_what_waiting_does_not_heal_is_told_at_once(
    make_manager: MakeManager, cluster: LocalCluster, pattern: str, wrong: str, said: str
) -> None:
    manager = make_manager(re.sub(pattern, wrong, cluster.dsn))
    with pytest.raises(NotReadyError, match="no use in waiting") as caught:
        async with asyncio.timeout(PATIENCE):
            await manager.ready(timeout=2 * PATIENCE)
    assert said in str(caught.value.__cause__)


async def test_an_isolation_level_that_there_is_not_is_told(make_manager: MakeManager) -> None:
    manager = make_manager(pool_factory_kwargs={"isolation_level": "NO SUCH LEVEL"})
    with pytest.raises(NotReadyError, match="NO SUCH LEVEL") as caught:
        await manager.ready(timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("options", "users", "kept"),
    [
        ({}, 15, 5),
        ({"pool_size": 3}, 13, 3),
        ({"pool_size": 2, "max_overflow": 0}, 2, 2),
        ({"pool_size": 0}, None, 20),
        ({"max_overflow": -1}, None, 5),
        ({"poolclass": NullPool}, None, 0),
    ],
    ids=str,
)
async def test_users_have_what_they_asked_for_and_the_monitor_one_beside_it(
    make_manager: MakeManager,
    cluster: LocalCluster,
    options: dict[str, Any],
    users: int | None,
    kept: int,
) -> None:
    manager = make_manager(cluster.primary.dsn, pool_factory_kwargs=options)
    (pool,) = await manager.get_master_pools()
    assert manager.adapter.get_pool_maxsize(pool) == users
    connections = [await manager.acquire_master() for _ in range(users or 20)]
    assert await scalar(connections[-1], "SELECT 1") == 1
    if users is not None:
        assert manager.get_pool_freesize(pool) == 0
        with pytest.raises(TimeoutError):
            await manager.acquire_master(timeout=0.05)
    for connection in connections:
        await manager.release(connection)
    # Idle, SQLAlchemy keeps as many as the user said.
    await eventually(
        lambda: TESTED.backends(cluster, cluster.primary) == kept + 1, f"{kept} and the monitor's"
    )


async def test_parameters_of_the_dsn_reach_the_driver(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    manager = make_manager(
        params="&target_session_attrs=read-write&load_balance_hosts=random&connect_timeout=7"
        "&sslmode=disable&keepalives_idle=5&options=-c%20work_mem%3D7MB"
    )
    async with manager.acquire_replica() as connection:
        assert await scalar(connection, "SHOW work_mem") == "7MB"
        assert await scalar(connection, "SHOW application_name") == TESTED.name
        assert await scalar(connection, "SELECT pg_is_in_recovery()") is True


async def test_engines_show_their_host_and_no_password(
    make_manager: MakeManager, cluster: LocalCluster, driver: str
) -> None:
    manager = make_manager()
    (pool,) = await manager.get_master_pools()
    shown = f"postgresql+{driver}://{cluster.user}@{cluster.primary.address}/{cluster.database}"
    assert pool.url.render_as_string(hide_password=False) == shown
    assert cluster.password not in repr(pool) + repr(manager)


async def test_connect_args_are_the_users(make_manager: MakeManager, driver: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "asyncpg": {"server_settings": {"work_mem": "7MB"}, "prepared_statement_cache_size": 0},
        "psycopg": {"options": "-c work_mem=7MB", "prepare_threshold": None},
    }
    manager = make_manager(pool_factory_kwargs={"connect_args": options[driver]})
    async with manager.acquire_master() as connection:
        assert await scalar(connection, "SHOW work_mem") == "7MB"
        assert await scalar(connection, "SHOW application_name") == TESTED.name


@pytest.mark.parametrize(
    "options",
    [
        {"execution_options": {"postgresql_readonly": True}},
        {"isolation_level": "REPEATABLE READ"},
        {"isolation_level": "AUTOCOMMIT"},
        {"pool_pre_ping": True},
        {"pool_recycle": 0},
        {"pool_reset_on_return": None},
        {"pool_reset_on_return": "commit"},
        {"pool_use_lifo": True},
    ],
    ids=str,
)
async def test_roles_are_known_whatever_options_the_user_has(
    make_manager: MakeManager, cluster: LocalCluster, options: dict[str, Any]
) -> None:
    manager = make_manager(refresh_delay=0.05, pool_factory_kwargs=options)
    await manager.ready(1, 1)
    await manager.wait_next_pool_check()
    assert manager.master_pool_count == manager.replica_pool_count == 1
    readonly = "execution_options" in options
    async with manager.acquire_master() as connection:
        shown = await scalar(connection, "SHOW transaction_read_only")
        assert shown == ("on" if readonly else "off")
        if not readonly:
            await insert(connection, "kept")
            await connection.commit()
    assert notes(cluster) == ([] if readonly else ["kept"])
    where = "xact_start IS NOT NULL"
    assert TESTED.backends(cluster, cluster.primary, where) == 0


async def test_checks_are_not_seen_by_the_users_listeners(make_manager: MakeManager) -> None:
    manager = make_manager(refresh_delay=0.05)
    seen: list[str] = []

    def listen(_c: Any, _u: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    (pool,) = await manager.get_master_pools()
    event.listen(pool.sync_engine, "before_cursor_execute", listen)
    await manager.wait_next_pool_check()
    async with manager.acquire_master() as connection:
        await scalar(connection, "SELECT 1")
    assert seen == ["SELECT 1"]


# Types


async def test_connections_are_sqlalchemys_own(make_manager: MakeManager) -> None:
    manager = make_manager()
    async with manager.acquire_master() as connection:
        assert_type(connection, AsyncConnection)
    connection = await manager.acquire_replica()
    assert_type(connection, AsyncConnection)
    assert_type(await manager.get_pool(read_only=False), AsyncEngine)
    await manager.release(connection)
    assert isinstance(connection, AsyncConnection)
    assert connection.closed


# Blocks


async def test_a_block_rolls_back_what_was_not_committed(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    async with manager.acquire_master() as connection:
        await insert(connection, "committed")
        await connection.commit()
        await insert(connection, "forgotten")
    async with manager.acquire_master() as connection, connection.begin():
        await insert(connection, "begun")
    with pytest.raises(RuntimeError, match="the block's"):
        async with manager.acquire_master() as connection:
            await insert(connection, "failed")
            raise RuntimeError("the block's")
    connection = await manager.acquire_master()
    await insert(connection, "released")
    await manager.release(connection)
    async with manager.acquire_master() as connection:
        await insert(connection, "closed by its user")
        await connection.close()
    assert notes(cluster) == ["committed", "begun"]
    assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0


async def test_a_broken_connection_gives_its_own_error_and_is_not_reused(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(cluster.primary.dsn, pool_factory_kwargs={"max_overflow": 0})
    for _ in range(6):
        with pytest.raises(DBAPIError) as caught:
            async with manager.acquire_master() as connection:
                pid = await scalar(connection, "SELECT pg_backend_pid()")
                cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({pid})")
                await insert(connection, "lost")
        assert caught.value.statement is not None, "the statement failed, not the block's end"
    (pool,) = await manager.get_master_pools()
    connections = [await manager.acquire_master() for _ in range(5)]
    assert [await scalar(connection, "SELECT 1") for connection in connections] == [1] * 5
    assert manager.get_pool_freesize(pool) == 0
    for connection in connections:
        await manager.release(connection)


def is_gone(cluster: LocalCluster, pid: int) -> bool:
    return not TESTED.backends(cluster, cluster.primary, f"pid = {pid}")


async def test_a_connection_that_its_user_detached_is_closed_when_released(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(cluster.primary.dsn)
    (pool,) = await manager.get_master_pools()
    for terminated in (False, True):
        async with manager.acquire_master() as connection:
            pid = await scalar(connection, "SELECT pg_backend_pid()")
            (await connection.get_raw_connection()).detach()
            assert await scalar(connection, "SELECT pg_backend_pid()") == pid
            assert not manager.is_connection_closed(connection)
            if terminated:
                manager.adapter.terminate_connection(connection)
        await eventually(partial(is_gone, cluster, pid), "it is closed")
        assert free(pool) == manager.get_pool_freesize(pool) == 15


@pytest.mark.parametrize("begun", [False, True])
async def test_nothing_looks_like_a_commit_on_a_terminated_connection(
    make_manager: MakeManager, cluster: LocalCluster, begun: bool
) -> None:
    manager = make_manager()
    connection = await manager.acquire_master()
    if begun:
        await connection.begin()
    await insert(connection, "lost")
    manager.adapter.terminate_connection(connection)
    assert manager.is_connection_closed(connection)
    for attempt in (connection.commit(), connection.commit(), scalar(connection, "SELECT 1")):
        with pytest.raises(SQLAlchemyError):
            await attempt
    await manager.release(connection)
    with pytest.raises(SQLAlchemyError):
        await insert(connection, "after")
    assert notes(cluster) == []


async def test_a_cancelled_connect_is_closed_without_the_garbage_collector(
    cluster: LocalCluster, driver: str
) -> None:
    adapter = SqlalchemyAdapter(driver)
    target = TESTED.target(cluster.primary)
    pool = await adapter.create_pool(target, poolclass=NullPool)
    gc.collect()
    gc.disable()
    try:
        for number in range(10):
            creating = asyncio.ensure_future(adapter.create_pool(target))
            acquiring = asyncio.ensure_future(adapter.acquire_from_pool(pool))
            await asyncio.sleep(0.0015 * number)
            creating.cancel()
            acquiring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await adapter.close_pool(await creating)
            with contextlib.suppress(asyncio.CancelledError):
                await adapter.release_to_pool(await acquiring, pool)
        await eventually(lambda: not TESTED.backends(cluster, cluster.primary), "nothing is left")
    finally:
        gc.enable()
        await adapter.close_pool(pool)


async def test_a_cancelled_check_of_a_frozen_host_ends_at_once(
    cluster: LocalCluster, driver: str
) -> None:
    adapter = SqlalchemyAdapter(driver)
    pool = await adapter.create_pool(TESTED.target(cluster.primary))
    connection = await adapter.acquire_from_pool(pool)
    cluster.freeze(cluster.primary)
    try:
        check = asyncio.ensure_future(adapter.fetch_scalar(connection, "SELECT 1"))
        await asyncio.sleep(0.05)
        # As `asyncio.run` does with a program's last tasks.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await check
        assert time.monotonic() - began < 2
        adapter.terminate_connection(connection)
        await adapter.release_to_pool(connection, pool)
        await adapter.terminate_pool(pool)
    finally:
        cluster.thaw(cluster.primary)


@pytest.fixture
async def opened(cluster: LocalCluster) -> AsyncIterator[tuple[SqlalchemyAdapter, AsyncEngine]]:
    """Over psycopg."""
    adapter = SqlalchemyAdapter("psycopg")
    (target,) = parse_dsn(f"{cluster.primary.dsn}?application_name={TESTED.name}")
    pool = await adapter.create_pool(target)
    yield adapter, pool
    await adapter.terminate_pool(pool)
    await eventually(partial(no_backends, cluster, cluster.primary), "no backend is left")


async def raw_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@pytest.mark.parametrize("ended", ["terminated", "released", "cancelled"])
async def test_whoever_listens_hears_that_the_connection_is_terminated(
    opened: tuple[SqlalchemyAdapter, AsyncEngine], ended: str
) -> None:
    """To psycopg the connection is idle meanwhile. And who connects then may get the same file
    descriptor, so the event loop must not watch that any more."""
    adapter, pool = opened
    connection = await adapter.acquire_from_pool(pool)
    raw = await raw_of(connection)
    await raw.set_autocommit(True)
    await raw.execute("LISTEN channel")

    async def listen() -> None:
        async for _ in raw.notifies():
            pass

    listening = asyncio.ensure_future(listen())
    await eventually(raw.lock.locked, "it listens")
    if ended == "terminated":
        adapter.terminate_connection(connection)
        assert adapter.is_connection_closed(connection)
    else:
        releasing = asyncio.ensure_future(adapter.release_to_pool(connection, pool))
        await asyncio.sleep(0)
        if ended == "cancelled":
            releasing.cancel()
        await asyncio.wait({releasing}, timeout=PATIENCE)
        assert releasing.done()
    async with asyncio.timeout(PATIENCE):
        other = await adapter.acquire_from_pool(pool)
        assert await adapter.fetch_scalar(other, "SELECT 1") == "1"
        with pytest.raises(psycopg.OperationalError):
            await listening
        await adapter.release_to_pool(other, pool)
        if ended == "terminated":
            await adapter.release_to_pool(connection, pool)
    assert raw.closed
    assert free(pool) == adapter.get_pool_maxsize(pool)


@pytest.mark.parametrize("waiting", [False, True], ids=["idle", "waiting"])
async def test_a_connection_that_is_terminated_within_a_copy_is_closed(
    cluster: LocalCluster, opened: tuple[SqlalchemyAdapter, AsyncEngine], waiting: bool
) -> None:
    """Also between its steps, when nobody waits for it."""
    adapter, pool = opened
    connection = await adapter.acquire_from_pool(pool)
    raw = await raw_of(connection)
    statement = (
        "COPY (SELECT pg_sleep(60)) TO STDOUT" if waiting else "COPY notes (body) FROM STDIN"
    )

    async def copy() -> None:
        async with raw.cursor() as cursor, cursor.copy(statement) as copying:
            if waiting:
                await copying.read()
            else:
                await copying.write_row(("copied",))
                terminate()

    def terminate() -> None:
        adapter.terminate_connection(connection)
        assert adapter.is_connection_closed(connection)

    ending = asyncio.ensure_future(copy())
    if waiting:
        asleep = partial(TESTED.backends, cluster, cluster.primary, "wait_event = 'PgSleep'")
        await eventually(asleep, "it waits for the first row")
        terminate()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(psycopg.OperationalError):
            await ending
        with pytest.raises(psycopg.OperationalError):
            await raw.commit()
        await adapter.release_to_pool(connection, pool)
    assert raw.closed
    cluster.psql(
        cluster.primary,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'",
    )
    assert free(pool) == adapter.get_pool_maxsize(pool)
    assert "copied" not in notes(cluster)


async def test_a_transaction_used_after_its_block_raises_and_touches_nobody(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(pool_factory_kwargs={"pool_size": 1, "max_overflow": 0})
    async with manager.acquire_master() as connection:
        pid = await scalar(connection, "SELECT pg_backend_pid()")
        await connection.rollback()
        transaction = await connection.begin()
        await insert(connection, "late")
    async with manager.acquire_master() as other:
        assert await scalar(other, "SELECT pg_backend_pid()") == pid
        await insert(other, "late")
        with pytest.raises(SQLAlchemyError):
            await transaction.commit()
        with pytest.raises(SQLAlchemyError):
            await insert(connection, "late")
    assert notes(cluster) == []


@pytest.mark.parametrize("driver", ["psycopg"])
async def test_a_pool_closes_no_connection_that_a_terminated_query_still_uses(
    cluster: LocalCluster, driver: str
) -> None:
    """libpq would free what psycopg goes on with in the next turn: the process crashes."""
    adapter = SqlalchemyAdapter(driver)
    pool = await adapter.create_pool(TESTED.target(cluster.primary))
    connection = await adapter.acquire_from_pool(pool)
    raw: Any = (await connection.get_raw_connection()).driver_connection
    query = "SELECT pg_sleep(600)"
    asking = asyncio.create_task(scalar(connection, query))
    await eventually(lambda: raw.lock.locked(), "the query uses its connection")
    adapter.terminate_connection(connection)
    asking_still: list[bool] = []
    close = raw.close

    async def watched() -> None:
        asking_still.append(raw.lock.locked())
        await close()

    raw.close = watched
    await adapter.close_pool(pool)
    assert True not in asking_still
    with pytest.raises(DBAPIError):
        await asking
    # A server learns of a dead client only when it has something to say to it.
    where = "wait_event = 'PgSleep'"
    cluster.psql(
        cluster.primary,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}",
    )


async def test_a_cancelled_close_of_a_frozen_hosts_pool_ends_at_once_and_quietly(
    cluster: LocalCluster, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = SqlalchemyAdapter(driver)
    pool = await adapter.create_pool(TESTED.target(cluster.primary))
    cluster.freeze(cluster.primary)
    try:
        began = time.monotonic()
        closing = asyncio.ensure_future(adapter.close_pool(pool))
        await asyncio.wait({closing}, timeout=0.05)
        closing.cancel()
        await asyncio.wait({closing})
        await adapter.terminate_pool(pool)
        assert time.monotonic() - began < 2
    finally:
        cluster.thaw(cluster.primary)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
