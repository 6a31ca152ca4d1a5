"""Sessions over a manager."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, assert_type

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import DetachedInstanceError
from tests.adapters.on_sqlalchemy.support import free
from tests.support.cancelling import cancelled_at
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.core.errors import AcquireTimeoutError, PoolManagerClosedError
from pyscopg2.sqlalchemy import PoolManager, SessionMaker, SqlalchemyAdapter
from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, MakeManager, Note, all_can_be_taken, notes, scalar


class OwnSession(AsyncSession):
    async def bodies(self) -> list[str]:
        return list(await self.scalars(select(Note.body).order_by(Note.id)))


async def nothing_is_out(manager: PoolManager) -> None:
    """All slots of users are free, by the manager's count and by SQLAlchemy's."""

    def all_are_free() -> bool:
        return all(manager.get_pool_freesize(pool) == free(pool) == 15 for pool in manager.pools)

    assert manager.pools
    await eventually(all_are_free, "all slots are free")


async def test_a_session_goes_to_the_host_that_was_asked_for(make_manager: MakeManager) -> None:
    manager = make_manager(fallback_master=True)
    await manager.ready(1, 1)
    sessions = SessionMaker(manager)
    recovery = "SELECT pg_is_in_recovery()"
    async with sessions.master() as session:
        assert await scalar(session, recovery) is False
    async with sessions.replica() as session:
        assert await scalar(session, recovery) is True
        with pytest.raises(DBAPIError, match="read-only"):
            session.add(Note(body="refused"))
            await session.flush()
    for read_only in (False, True):
        async with sessions(read_only) as session:
            assert await scalar(session, recovery) is read_only
        async with sessions.begin(read_only=read_only) as session:
            assert await scalar(session, recovery) is read_only
    async with sessions(read_only=True, master_as_replica_weight=0) as session:
        assert await scalar(session, recovery) is True
    await nothing_is_out(manager)


async def test_sessions_are_typed(make_manager: MakeManager) -> None:
    manager = make_manager()
    plain = SessionMaker(manager, expire_on_commit=False)
    assert_type(plain, SessionMaker[AsyncSession])
    async with plain.master() as session:
        assert_type(session, AsyncSession)
    own = SessionMaker(manager, class_=OwnSession)
    assert_type(own, SessionMaker[OwnSession])
    async with own.begin() as own_session:
        assert_type(own_session, OwnSession)
        own_session.add(Note(body="typed"))
    async with own(read_only=False) as own_session:
        assert_type(await own_session.bodies(), list[str])
        assert await own_session.bodies() == ["typed"]


@pytest.mark.parametrize(
    "options", [{"bind": None}, {"binds": {}}, {"twophase": True}, {"no_such_option": 1}], ids=str
)
def test_wrong_options_are_known_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        SessionMaker(PoolManager("postgresql+asyncpg://a"), **options)


@pytest.mark.parametrize("expire_on_commit", [False, True])
async def test_commit_commits_and_the_session_goes_on(
    make_manager: MakeManager, cluster: LocalCluster, expire_on_commit: bool
) -> None:
    sessions = SessionMaker(make_manager(), expire_on_commit=expire_on_commit)
    async with sessions.master() as session:
        first = Note(body="first")
        session.add(first)
        await session.commit()
        assert notes(cluster) == ["first"]
        assert ("body" in first.__dict__) is not expire_on_commit
        await session.refresh(first)
        assert first.body == "first"
        session.add(Note(body="second"))
        await session.flush()
        assert notes(cluster) == ["first"]
        await session.rollback()
        session.add(Note(body="third"))
        await session.commit()
        session.add(Note(body="forgotten"))
        await session.flush()
    assert notes(cluster) == ["first", "third"]
    assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0


async def test_begin_in_a_session_and_its_connection(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    sessions = SessionMaker(make_manager())
    async with sessions.master() as session:
        async with session.begin():
            session.add(Note(body="begun"))
            async with session.begin_nested() as savepoint:
                session.add(Note(body="undone"))
                await session.flush()
                await savepoint.rollback()
        assert notes(cluster) == ["begun"]
        connection = await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        assert isinstance(connection, AsyncConnection)
        assert await scalar(session, "SHOW transaction_isolation") == "serializable"
        await session.commit()
        await session.close()
        # A session that was closed begins anew.
        session.add(Note(body="anew"))
        await session.commit()
    assert notes(cluster) == ["begun", "anew"]
    async with sessions.master() as session:
        assert await scalar(session, "SHOW transaction_isolation") == "read committed"


async def test_a_block_that_begins_commits_or_rolls_back(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    sessions = SessionMaker(make_manager())
    async with sessions.begin() as session:
        session.add(Note(body="kept"))
    with pytest.raises(RuntimeError, match="the block's"):
        async with sessions.begin() as session:
            session.add(Note(body="lost"))
            await session.flush()
            raise RuntimeError("the block's")
    with pytest.raises(DBAPIError):
        async with sessions.begin() as session:
            session.add(Note(body=None))
    assert notes(cluster) == ["kept"]
    assert TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL") == 0


async def test_after_the_block_a_session_begins_anew(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    """As SQLAlchemy's does."""
    manager = make_manager()
    sessions = SessionMaker(manager)
    async with sessions.master() as session:
        note = Note(body="kept")
        session.add(note)
        await session.commit()
    assert not session.in_transaction()
    with pytest.raises(DetachedInstanceError):
        _ = note.body
    await nothing_is_out(manager)
    session.add(Note(body="late"))
    await session.commit()
    assert notes(cluster) == ["kept", "late"]
    async with session:
        assert len((await session.scalars(select(Note))).all()) == 2
    await nothing_is_out(manager)


async def test_sessions_that_are_never_used_take_nothing(make_manager: MakeManager) -> None:
    options = {"pool_size": 2, "max_overflow": 0}
    manager = make_manager(pool_factory_kwargs=options, acquire_timeout=5)
    await manager.ready(1, 1)
    sessions = SessionMaker(manager)
    async with AsyncExitStack() as stack:
        for number in range(100):
            await stack.enter_async_context(sessions(read_only=number % 2 == 0))
        assert [manager.get_pool_freesize(pool) for pool in manager.pools] == [2, 2]
        assert manager.stats().acquires == 0
        # The connection of a transaction goes back with its end.
        for _ in range(5):
            session = await stack.enter_async_context(sessions.master())
            assert await scalar(session, "SELECT 1") == 1
            await session.commit()
    assert manager.stats().acquires == 5


async def test_no_host_no_transaction(make_manager: MakeManager) -> None:
    manager = make_manager("postgresql://u:p@127.0.0.1:1/d")
    async with SessionMaker(manager).master(timeout=0.1) as session:
        with pytest.raises(AcquireTimeoutError):
            await scalar(session, "SELECT 1")


@pytest.mark.parametrize("ending", ["commit", "begin", "end"])
async def test_nothing_looks_like_a_commit_in_a_session_whose_connection_was_terminated(
    make_manager: MakeManager, cluster: LocalCluster, ending: str
) -> None:
    manager = make_manager()
    sessions = SessionMaker(manager)

    async def lose(session: AsyncSession) -> None:
        session.add(Note(body="lost"))
        await session.flush()
        pid = await scalar(session, "SELECT pg_backend_pid()")
        # As the manager does with what is out when its time is up; it is buried, too.
        closing = asyncio.ensure_future(manager.close(timeout=0))
        await eventually(
            lambda: not TESTED.backends(cluster, cluster.primary, f"pid = {pid}"),
            "it is terminated",
        )
        await closing

    if ending == "commit":
        async with sessions.master() as session:
            await lose(session)
            with pytest.raises(SQLAlchemyError):
                await session.commit()
            await session.rollback()
            session.add(Note(body="again"))
            with pytest.raises(PoolManagerClosedError):
                await session.commit()
    elif ending == "begin":
        with pytest.raises(SQLAlchemyError):
            async with sessions.begin() as session:
                await lose(session)
    else:
        # Its rollback fails, as SQLAlchemy's does.
        with pytest.raises(DBAPIError):
            async with sessions.master() as session:
                await lose(session)
    assert notes(cluster) == []


async def test_a_block_of_a_connection_that_was_terminated_does_not_end_as_if_committed(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    with pytest.raises(SQLAlchemyError):
        async with manager.acquire_master() as connection, connection.begin():
            await connection.execute(insert(Note).values(body="lost"))
            await manager.close(timeout=0)
    assert notes(cluster) == []


async def test_a_session_on_a_frozen_host_ends_within_the_managers_time(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager(refresh_timeout=0.5, abandon_timeout=60)
    sessions = SessionMaker(manager)
    began = 0.0
    try:
        # Its rollback fails, where SQLAlchemy's would wait for ever.
        with pytest.raises(DBAPIError):
            async with sessions.master() as session:
                session.add(Note(body="lost"))
                await session.flush()
                await asyncio.to_thread(cluster.freeze, cluster.primary)
                began = time.monotonic()
        assert time.monotonic() - began < 5
    finally:
        await asyncio.to_thread(cluster.thaw, cluster.primary)
    assert notes(cluster) == []


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("begun", [False, True], ids=["master()", "begin()"])
async def test_cancelled_anywhere_a_session_leaves_nothing_out(
    make_manager: MakeManager, cluster: LocalCluster, begun: bool, again: bool
) -> None:
    """At every await of its block, also where SQLAlchemy parts from what it was doing."""
    manager = make_manager(cluster.primary.dsn)
    await manager.ready()
    sessions = SessionMaker(manager)

    async def work(number: int) -> None:
        if begun:
            async with sessions.begin() as session:
                session.add(Note(body=str(number)))
                await session.flush()
            return
        async with sessions.master() as session:
            session.add(Note(body=str(number)))
            await session.flush()
            await session.rollback()
            session.add(Note(body=str(number)))
            await session.commit()

    turn = 0
    while True:
        task = asyncio.ensure_future(cancelled_at(work(turn), turn, again=again))
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.done()
        if not task.cancelled():
            await task
            assert not task.cancelling(), "a cancellation was lost"
            break
        turn += 1
    assert turn > 3
    await nothing_is_out(manager)
    await eventually(
        lambda: not TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL"),
        "no transaction is open",
    )
    (pool,) = await manager.get_master_pools()
    adapter = manager.adapter
    assert isinstance(adapter, SqlalchemyAdapter)
    await all_can_be_taken(adapter, pool)


async def test_sync_session_features_work(make_manager: MakeManager) -> None:
    sessions = SessionMaker(make_manager(), info={"who": "me"}, autoflush=False)
    async with sessions.begin() as session:
        assert session.info == {"who": "me"}

        def use(sync: Session) -> list[str]:
            sync.add(Note(body="sync"))
            sync.flush()
            return list(sync.scalars(select(Note.body)))

        assert await session.run_sync(use) == ["sync"]
        streamed = await session.stream_scalars(select(Note.body))
        assert [body async for body in streamed] == ["sync"]


async def test_sessions_take_part_in_causal_sessions(make_manager: MakeManager) -> None:
    manager = make_manager(acquire_timeout=10)
    await manager.ready(1, 1)
    sessions = SessionMaker(manager)
    for number in range(10):
        with manager.causal() as written:
            async with sessions.master() as session:
                session.add(Note(body=f"causal {number}"))
                await session.commit()
            assert written.position is not None
            async with sessions.replica() as session:
                bodies = list(await session.scalars(select(Note.body)))
            assert f"causal {number}" in bodies
            async with sessions.begin() as session:
                session.add(Note(body=f"begun {number}"))
            async with sessions.begin(read_only=True) as session:
                bodies = list(await session.scalars(select(Note.body)))
            assert f"begun {number}" in bodies
    await nothing_is_out(manager)


async def test_sessions_take_bounds(make_manager: MakeManager) -> None:
    manager = make_manager(acquire_timeout=10)
    await manager.ready(1, 1)
    sessions = SessionMaker(manager)
    async with manager.acquire_master() as connection:
        await connection.execute(insert(Note).values(body="bound"))
        # Within a transaction it covers what was committed before, and leaves it as it is.
        await manager.wal_position(connection)
        await connection.commit()
        position = await manager.wal_position(connection)
        assert not connection.in_transaction()
    async with sessions.replica(after=str(position), max_lag=5) as session:
        assert "bound" in list(await session.scalars(select(Note.body)))
    async with sessions(True, True, max_lag=5, patience=1) as session:
        assert await scalar(session, "SELECT pg_is_in_recovery()") is True
    with pytest.raises(ValueError, match="are for reads"):
        async with sessions(max_lag=5):
            pass
    await nothing_is_out(manager)
