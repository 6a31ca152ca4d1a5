"""Whoever is cancelled, once or at each await again, loses no slot of SQLAlchemy's pool."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import anyio
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool
from tests.support.cancelling import cancelled_at
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.sqlalchemy import SqlalchemyAdapter
from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, all_can_be_taken, insert, no_backends, scalar

SIZE = 2


class Counter:
    """An adapter, and a pool of two slots."""

    def __init__(self, adapter: SqlalchemyAdapter, pool: AsyncEngine) -> None:
        self.adapter = adapter
        self.pool = pool

    async def acquire(self) -> AsyncConnection:
        return await self.adapter.acquire_from_pool(self.pool)

    async def release(self, connection: AsyncConnection) -> None:
        await self.adapter.release_to_pool(connection, self.pool)

    def out(self) -> int:
        """By SQLAlchemy's own count."""
        pool = self.pool.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout()


@pytest.fixture
async def counter(cluster: LocalCluster, driver: str) -> AsyncIterator[Counter]:
    unhandled: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(repr(context)))
    adapter = SqlalchemyAdapter(driver)
    pool = await adapter.create_pool(
        TESTED.target(cluster.primary), pool_size=SIZE, max_overflow=0, pool_timeout=PATIENCE
    )
    yield Counter(adapter, pool)
    await all_can_be_taken(adapter, pool)
    await adapter.close_pool(pool)
    me = asyncio.current_task()
    await eventually(lambda: asyncio.all_tasks() <= {me}, "all tasks have ended")
    await eventually(lambda: no_backends(cluster, cluster.primary), "no backend is left")
    # asyncpg's own, where a connect is cancelled.
    assert [u for u in unhandled if "TLSUpgradeProto" not in u and "connection_lost" not in u] == []


async def use(connection: AsyncConnection, how: str) -> None:
    """Leave something to be rolled back; "raw": what SQLAlchemy knows nothing of."""
    if how == "raw":
        raw = (await connection.get_raw_connection()).dbapi_connection
        driver = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        assert driver is not None
        await driver.execute("BEGIN")
        await driver.execute("INSERT INTO notes (body) VALUES ('lost')")
    elif how == "used":
        await insert(connection, "lost")


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("how", ["unused", "used", "raw", "broken"])
async def test_a_cancelled_release_gives_its_slot_to_who_waits(
    counter: Counter, cluster: LocalCluster, how: str, again: bool
) -> None:
    ended = 0
    for turn in itertools.count():
        connection, other = await counter.acquire(), await counter.acquire()
        if how == "broken":
            pid = await scalar(connection, "SELECT pg_backend_pid()")
            cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({pid}, 5000)")
        await use(connection, how)
        # SQLAlchemy's pool is empty: they queue there.
        waiting = [asyncio.ensure_future(counter.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        releasing = asyncio.ensure_future(
            cancelled_at(counter.release(connection), turn, again=again)
        )
        await asyncio.wait({releasing}, timeout=PATIENCE)
        assert releasing.done()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (first,) = [task.result() for task in waiting if task.done()]
        assert counter.out() == SIZE
        assert await scalar(first, "SELECT 1") == 1
        assert await scalar(other, "SELECT 1") == 1
        await counter.release(first)
        await counter.release(other)
        async with asyncio.timeout(PATIENCE):
            (second,) = {await task for task in waiting} - {first}
        assert counter.out() == 1
        await counter.release(second)
        assert counter.out() == 0
        if not releasing.cancelled():
            assert not releasing.cancelling(), "a cancellation was lost"
            ended += 1
            if ended == 3:
                break
    assert cluster.psql(cluster.primary, "SELECT count(*) FROM notes WHERE body = 'lost'") == "0"


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("how", ["new", "dead", "invalidated", "full"])
async def test_a_cancelled_acquire_keeps_no_slot(
    counter: Counter, cluster: LocalCluster, how: str, again: bool
) -> None:
    """Where it opens a connection, opens one in place of another, or waits for one."""
    ended = 0
    for turn in itertools.count():
        other = await counter.acquire()
        held = [other]
        if how == "full":
            held.append(await counter.acquire())
        elif how in ("dead", "invalidated"):
            connection = await counter.acquire()
            pid = await scalar(connection, "SELECT pg_backend_pid()")
            if how == "invalidated":
                await connection.invalidate()
            await counter.release(connection)
            if how == "dead":
                cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({pid}, 5000)")
        acquiring = asyncio.ensure_future(cancelled_at(counter.acquire(), turn, again=again))
        if how == "full":
            await asyncio.sleep(0)
            if turn % 2:
                await counter.release(held.pop())
        await asyncio.wait({acquiring}, timeout=0.01 if how == "full" else PATIENCE)
        if how == "full" and not acquiring.done():
            await counter.release(held.pop())
            await asyncio.wait({acquiring}, timeout=PATIENCE)
        assert acquiring.done()
        assert counter.out() == len(held) + (not acquiring.cancelled())
        for each in held:
            await counter.release(each)
        if not acquiring.cancelled():
            assert not acquiring.cancelling(), "a cancellation was lost"
            counter.adapter.terminate_connection(acquiring.result())
            await counter.release(acquiring.result())
            ended += 1
            if ended == 3:
                break
        assert counter.out() == 0
        await all_can_be_taken(counter.adapter, counter.pool)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_requests_that_time_out_lose_no_slot(cluster: LocalCluster, driver: str) -> None:
    """As frameworks cancel: at every await, until the scope is left."""
    adapter = SqlalchemyAdapter(driver)
    pool = await adapter.create_pool(
        TESTED.target(cluster.primary), pool_size=3, max_overflow=0, pool_timeout=PATIENCE
    )
    dice = random.Random(13)
    todo = iter(range(1000))
    cut_short = 0

    async def request() -> None:
        connection = await adapter.acquire_from_pool(pool)
        try:
            await scalar(connection, "SELECT 1")
            await insert(connection, "never committed")
        finally:
            await adapter.release_to_pool(connection, pool)

    async def worker() -> None:
        nonlocal cut_short
        for _ in todo:
            with anyio.move_on_after(dice.random() * 0.02) as scope:
                await request()
            cut_short += scope.cancelled_caught

    async with asyncio.timeout(10 * PATIENCE):
        await asyncio.gather(*(worker() for _ in range(8)))
    assert cut_short > 50
    await all_can_be_taken(adapter, pool)
    await adapter.close_pool(pool)
    await eventually(lambda: no_backends(cluster, cluster.primary), "no backend is left")
    never = "SELECT count(*) FROM notes WHERE body = 'never committed'"
    assert cluster.psql(cluster.primary, never) == "0"
