"""What is special about a manager's engine; all else is in test_idioms.py."""

import asyncio
import gc
from typing import Any, assert_type

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SAWarning, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn
from tests.support.cancelling import cancelled_at
from tests.support.waiting import PATIENCE, eventually, turns

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.sqlalchemy import PoolManager, SqlalchemyAdapter
from pyscopg2.sqlalchemy.pools import takes_at_once
from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, MakeManager, all_can_be_taken, insert, notes, scalar

RECOVERY = "SELECT pg_is_in_recovery()"


async def end_backend(cluster: LocalCluster, pid: int) -> None:
    """Until its process is no more, and the event loop has had its chance to tell the driver."""
    ended = f"SELECT pg_terminate_backend({pid}, 5000)"
    assert await asyncio.to_thread(cluster.psql, cluster.primary, ended) == "t"
    await turns(5)


async def nothing_is_out(manager: PoolManager) -> None:
    def all_are_free() -> bool:
        return all(
            manager.get_pool_freesize(pool) == manager.adapter.get_pool_maxsize(pool)
            for pool in manager.pools
        )

    assert manager.pools
    await eventually(all_are_free, "all slots are free")


async def test_each_connection_is_to_the_host_that_was_asked_for(
    make_manager: MakeManager,
) -> None:
    manager = make_manager()
    masters = manager.engine()
    assert_type(masters, AsyncEngine)
    replicas = manager.engine(True, max_lag=60)
    await manager.ready(1, 1)
    for engine, expected in ((masters, False), (replicas, True)):
        async with engine.connect() as connection:
            assert await scalar(connection, RECOVERY) is expected
            (pool,) = [pool for pool in manager.pools if manager.get_pool_freesize(pool) < 15]
            assert pool in (
                await manager.get_replica_pools() if expected else await manager.get_master_pools()
            )
    with pytest.raises(DBAPIError, match="read-only"):
        async with replicas.begin() as connection:
            await insert(connection, "refused")
    await nothing_is_out(manager)


async def test_two_at_once_and_one_too_many(make_manager: MakeManager) -> None:
    options = {"pool_size": 2, "max_overflow": 0}
    manager = make_manager(pool_factory_kwargs=options)
    engine = manager.engine()
    async with engine.connect() as one, engine.connect() as two:
        pids = {await scalar(each, "SELECT pg_backend_pid()") for each in (one, two)}
        assert len(pids) == 2
        with pytest.raises(AcquireTimeoutError, match="2 of 2 in use"):
            await manager.engine(timeout=0.2).connect()
    async with engine.connect() as one:
        assert await scalar(one, "SELECT pg_backend_pid()") in pids
    await nothing_is_out(manager)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_lag": 1.0}, ValueError),
        ({"read_only": "yes"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"no_such_argument": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_arguments_are_known_at_once(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        PoolManager("postgresql+asyncpg://a").engine(**arguments)


async def test_options_of_pools_are_the_hosts_and_others_the_engines(
    make_manager: MakeManager,
) -> None:
    connects: list[object] = []

    def note(*of: object) -> None:
        connects.append(of)

    options: dict[str, Any] = {
        "pool_size": 1,
        "max_overflow": 0,
        "isolation_level": "REPEATABLE READ",
        "execution_options": {"tenant": "t"},
        "pool_events": [(note, "connect")],
    }
    manager = make_manager(pool_factory_kwargs=options)
    engine = manager.engine()
    async with engine.connect() as connection:
        assert await scalar(connection, "SHOW transaction_isolation") == "repeatable read"
        sync = connection.sync_connection
        assert sync is not None
        assert sync.get_execution_options()["tenant"] == "t"
    before = len(connects)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
        assert await scalar(connection, "SHOW transaction_isolation") == "serializable"
    async with manager.acquire_master() as connection:
        assert await scalar(connection, "SHOW transaction_isolation") == "repeatable read"
    assert len(connects) == before
    assert isinstance(engine.pool, NullPool)
    assert "***" not in str(engine.url)
    assert engine.url.database == manager.database


async def test_to_dispose_of_it_is_harmless(make_manager: MakeManager) -> None:
    manager = make_manager()
    engine = manager.engine()
    async with engine.connect() as out:
        await engine.dispose()
        assert await scalar(out, "SELECT 1") == 1
    async with engine.connect() as connection:
        assert await scalar(connection, "SELECT 1") == 1
    await nothing_is_out(manager)


async def test_two_phase_transactions_are_refused(make_manager: MakeManager) -> None:
    manager = make_manager()
    async with manager.engine().connect() as connection:

        def begin(sync: Connection) -> None:
            sync.begin_twophase()

        with pytest.raises(InvalidRequestError, match="two-phase"):
            await connection.run_sync(begin)
    async with AsyncSession(manager.engine(), twophase=True) as session:
        with pytest.raises(InvalidRequestError, match="two-phase"):
            await scalar(session, "SELECT 1")
    await nothing_is_out(manager)


async def test_a_detached_one_keeps_its_slot_until_it_is_closed(make_manager: MakeManager) -> None:
    manager = make_manager()
    await manager.ready(1, 1)
    async with manager.engine().connect() as connection:
        pid = await scalar(connection, "SELECT pg_backend_pid()")

        def detach(sync: Connection) -> None:
            sync.detach()

        await connection.run_sync(detach)
        assert sorted(map(manager.get_pool_freesize, manager.pools)) == [14, 15]
        assert await scalar(connection, "SELECT pg_backend_pid()") == pid
    await nothing_is_out(manager)


async def test_a_forgotten_one_is_ended_and_its_slot_is_free(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    await manager.ready(1, 1)
    engine = manager.engine()
    await insert(await engine.connect(), "forgotten")
    with pytest.warns(SAWarning, match="garbage collector"):
        gc.collect()
    await nothing_is_out(manager)
    await eventually(
        lambda: not TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL"),
        "its transaction is over",
    )
    assert notes(cluster) == []


async def test_what_the_manager_terminated_is_known_to_be_lost(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    """And so it is of a connection that was acquired from the manager itself."""
    manager = make_manager()
    await manager.ready(1, 1)

    async def asked(connection: AsyncConnection) -> tuple[asyncio.Future[Any], int]:
        pid = await scalar(connection, "SELECT pg_backend_pid()")
        asking = asyncio.ensure_future(scalar(connection, "SELECT pg_sleep(30)"))
        asks = f"pid = {pid} AND state = 'active' AND query ~ 'pg_sleep'"
        await eventually(
            lambda: bool(TESTED.backends(cluster, cluster.primary, asks)), "the server is asked"
        )
        return asking, pid

    acquired = await manager.acquire_master()
    asking, pid = await asked(acquired)
    # As the manager does where its host is superseded.
    manager.adapter.terminate_connection(acquired)
    with pytest.raises(DBAPIError) as raised:
        await asking
    assert raised.value.connection_invalidated
    await manager.release(acquired)
    await end_backend(cluster, pid)  # the server has not noticed
    async with manager.engine().connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        asking, pid = await asked(connection)
        await end_backend(cluster, pid)
        with pytest.raises(DBAPIError) as raised:
            await asking
        assert raised.value.connection_invalidated
        assert connection.invalidated
        with pytest.raises(SQLAlchemyError):
            await connection.commit()
        await connection.rollback()
        assert await scalar(connection, "SELECT 1") == 1
        assert (await connection.get_raw_connection()).driver_connection is not driver
    await nothing_is_out(manager)


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
async def test_cancelled_anywhere_nothing_is_left_out(
    make_manager: MakeManager, cluster: LocalCluster, again: bool
) -> None:
    """Also where a connection is opened, lost meanwhile, detached, or has its options reset."""
    manager = make_manager(
        cluster.primary.dsn, pool_factory_kwargs={"pool_size": 1, "max_overflow": 1}
    )
    await manager.ready()
    engine = manager.engine()

    async def work(number: int) -> None:
        async with engine.begin() as connection:
            await insert(connection, str(number))
            pid = await scalar(connection, "SELECT pg_backend_pid()")
        if number % 3 == 0:
            await end_backend(cluster, pid)
        async with engine.begin() as connection:
            await insert(connection, str(number))
            async with engine.connect() as other:
                await other.execution_options(isolation_level="AUTOCOMMIT")
                assert await scalar(other, "SELECT 1") == 1
        async with engine.connect() as connection:
            await connection.invalidate()

    turn = 0
    while True:
        task = asyncio.ensure_future(cancelled_at(work(turn), turn, again=again))
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.done()
        if not task.cancelled() and task.exception() is None:
            break
        turn += 1
    assert turn > 5
    await nothing_is_out(manager)
    (pool,) = await manager.get_master_pools()
    adapter = manager.adapter
    assert isinstance(adapter, SqlalchemyAdapter)
    await all_can_be_taken(adapter, pool)


async def test_causal_sessions_cover_what_is_written_through_it(make_manager: MakeManager) -> None:
    manager = make_manager(acquire_timeout=10)
    await manager.ready(1, 1)
    masters, replicas = manager.engine(), manager.engine(read_only=True)
    with manager.causal() as written:
        for number in range(5):
            async with masters.begin() as connection:
                await insert(connection, f"causal{number}")
            assert written.position is not None
            async with replicas.connect() as connection:
                bodies = await connection.scalars(text("SELECT body FROM notes"))
                assert f"causal{number}" in bodies.all()
    await nothing_is_out(manager)


# What is taken at once


async def idle(manager: PoolManager) -> AsyncEngine:
    """The master's pool, with an idle connection in it."""
    async with manager.acquire_master():
        pass
    (pool,) = await manager.get_master_pools()
    return pool


async def test_an_idle_one_is_taken_at_once_unless_somebody_might_ask_the_server(
    make_manager: MakeManager,
) -> None:
    pool = await idle(make_manager())
    assert takes_at_once(pool.sync_engine)
    event.listen(pool.sync_engine, "checkout", lambda *_: None)
    assert not takes_at_once(pool.sync_engine)
    pool = await idle(make_manager(pool_factory_kwargs={"pool_pre_ping": True}))
    assert not takes_at_once(pool.sync_engine)
    full = make_manager(pool_factory_kwargs={"pool_size": 1, "max_overflow": 0})
    pool = await idle(full)
    # SQLAlchemy waits for it, in its way.
    assert not takes_at_once(pool.sync_engine)
    async with full.acquire_master() as connection:
        assert await scalar(connection, "SELECT 1") == 1


@pytest.mark.parametrize("lost", ["dead", "invalidated", "too old"])
async def test_what_is_idle_and_of_no_use_is_opened_anew(
    make_manager: MakeManager, cluster: LocalCluster, lost: str
) -> None:
    options = {"pool_recycle": 0} if lost == "too old" else {}
    manager = make_manager(pool_factory_kwargs=options)
    await manager.ready(1, 1)
    for _ in range(3):
        async with manager.acquire_master() as connection:
            pid = await scalar(connection, "SELECT pg_backend_pid()")
            if lost == "invalidated":
                await connection.invalidate()
        if lost == "dead":
            await end_backend(cluster, pid)
        async with manager.acquire_master() as connection:
            assert await scalar(connection, "SELECT pg_backend_pid()") != pid
    await nothing_is_out(manager)
    pool = await idle(manager)
    adapter = manager.adapter
    assert isinstance(adapter, SqlalchemyAdapter)
    await all_can_be_taken(adapter, pool)


async def test_raw_connections_go_back(make_manager: MakeManager) -> None:
    manager = make_manager()
    await manager.ready(1, 1)
    raw = await manager.engine().raw_connection()
    assert sorted(map(manager.get_pool_freesize, manager.pools)) == [14, 15]
    await greenlet_spawn(raw.close)
    await nothing_is_out(manager)


async def test_own_session_classes(make_manager: MakeManager) -> None:
    class Own(AsyncSession):
        pass

    sessions = async_sessionmaker(make_manager().engine(), class_=Own, info={"who": "me"})
    async with sessions() as session:
        assert_type(session, Own)
        assert isinstance(session, Own)
        assert session.info == {"who": "me"}
        assert await scalar(session, "SELECT 1") == 1
