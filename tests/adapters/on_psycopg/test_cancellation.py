"""The way into psycopg's pool and out of it, with cancellations at each await."""

import asyncio
import contextlib
import itertools
import random
import types
from collections.abc import Awaitable, Generator
from functools import partial
from typing import Any, TypeVar, cast

import psycopg
import pytest
from tests.adapters.on_psycopg.support import Connection, Pool, free, is_active, opened
from tests.support.waiting import PATIENCE, SOON, eventually

from pyscopg2.psycopg import PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster

T = TypeVar("T")


@types.coroutine
def cancelled_at(awaitable: Awaitable[T], turn: int, times: int) -> Generator[Any, Any, T]:
    """Go through ``awaitable``, and cancel the current task where it suspends for the ``turn``-th
    time, and so at the next ``times - 1`` awaits."""
    task = cast("asyncio.Task[T]", asyncio.current_task())
    steps = awaitable.__await__()
    try:
        pending = next(steps)
        for suspended in itertools.count():
            if turn <= suspended < turn + times:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                value = yield pending
            except BaseException as exc:
                pending = steps.throw(exc)
            else:
                pending = steps.send(value)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("unreachable")


async def all_can_be_taken(adapter: PsycopgAdapter, pool: Pool) -> None:
    """As many as the pool has room for, all different, all working, and it counts none twice."""
    async with asyncio.timeout(SOON):
        taken = [await adapter.acquire_from_pool(pool) for _ in range(pool.max_size)]
        assert len({connection.info.backend_pid for connection in taken}) == pool.max_size
        for connection in taken:
            await connection.execute("SELECT 1")
            await connection.commit()
            await adapter.release_to_pool(connection, pool)
    stats = pool.get_stats()
    assert (stats["pool_size"], stats["pool_available"]) == (pool.max_size, pool.max_size)
    assert free(pool) == pool.max_size


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "at each await"])
@pytest.mark.parametrize("state", ["idle", "in a transaction", "broken", "in use"])
async def test_a_cancelled_release_loses_no_slot(
    adapter: PsycopgAdapter, cluster: LocalCluster, busy_lock: None, state: str, times: int
) -> None:
    async with opened(adapter, cluster.primary, min_size=2, max_size=2) as pool:
        turn = 0
        while True:
            connection = await adapter.acquire_from_pool(pool)
            query: asyncio.Future[Any] | None = None
            if state == "in a transaction":
                await connection.execute("SELECT 1")
            elif state == "broken":
                adapter.terminate_connection(connection)
            elif state == "in use":
                query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
                await eventually(partial(is_active, connection), "the query is sent")
            releasing = asyncio.ensure_future(
                cancelled_at(adapter.release_to_pool(connection, pool), turn, times)
            )
            await asyncio.wait({releasing}, timeout=SOON)
            assert releasing.done()
            if query is not None:
                with pytest.raises(psycopg.OperationalError):
                    await query
            await all_can_be_taken(adapter, pool)
            if not releasing.cancelling():
                break  # it did not suspend so often
            assert releasing.cancelled(), "a cancelled release went on"
            turn += 1
        assert turn > 0 or state == "broken"


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "at each await"])
@pytest.mark.parametrize("state", ["idle", "none open", "dead", "refused"])
async def test_a_cancelled_acquire_loses_no_slot(
    adapter: PsycopgAdapter, cluster: LocalCluster, busy_lock: None, state: str, times: int
) -> None:
    refuse: list[Exception] = []

    async def check(connection: Connection) -> None:
        await asyncio.sleep(0)
        if refuse:
            raise refuse.pop()

    async with opened(adapter, cluster.primary, min_size=0, max_size=2, check=check) as pool:
        turn = 0
        while True:
            if state == "none open":
                taken = [await adapter.acquire_from_pool(pool) for _ in range(2)]
                for connection in taken:
                    adapter.terminate_connection(connection)
                await adapter.release_to_pool(taken[0], pool)
                others = taken[1:]
            else:
                others = []
                if state == "dead":
                    await end_backends(cluster)
                elif state == "refused":
                    refuse.append(psycopg.OperationalError("not this one"))
            acquiring = asyncio.ensure_future(
                cancelled_at(adapter.acquire_from_pool(pool), turn, times)
            )
            await asyncio.wait({acquiring}, timeout=SOON)
            assert acquiring.done()
            if not acquiring.cancelled():
                others.append(acquiring.result())
            for connection in others:
                await adapter.release_to_pool(connection, pool)
            refuse.clear()
            await all_can_be_taken(adapter, pool)
            if not acquiring.cancelling():
                break
            assert acquiring.cancelled(), "a cancelled acquire went on"
            turn += 1
        assert turn > 0


async def end_backends(cluster: LocalCluster) -> None:
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    sql += " WHERE application_name = 'tested'"
    await asyncio.to_thread(cluster.psql, cluster.primary, sql)


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "at each await"])
async def test_a_block_whose_end_is_cancelled_loses_no_slot(
    adapter: PsycopgAdapter, cluster: LocalCluster, busy_lock: None, times: int
) -> None:
    async def end(connection: Connection, pool: Pool) -> None:
        try:
            await adapter.end_block(connection, None)
        finally:
            await adapter.release_to_pool(connection, pool)

    async with opened(adapter, cluster.primary, min_size=2, max_size=2) as pool:
        turn = 0
        while True:
            connection = await adapter.acquire_from_pool(pool)
            await connection.execute("SELECT 1")
            ending = asyncio.ensure_future(cancelled_at(end(connection, pool), turn, times))
            await asyncio.wait({ending}, timeout=SOON)
            assert ending.done()
            await all_can_be_taken(adapter, pool)
            if not ending.cancelling():
                break
            assert ending.cancelled(), "a cancelled end went on"
            turn += 1
        assert turn > 1


async def test_a_cancelled_release_ends_at_once_on_a_frozen_server(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """It waits for the rollback, which would wait for ever."""
    async with opened(adapter, cluster.primary, min_size=0, max_size=2) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await connection.execute("SELECT 1")
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        try:
            releasing = asyncio.ensure_future(adapter.release_to_pool(connection, pool))
            await eventually(lambda: is_active(connection), "the rollback is sent")
            releasing.cancel()
            await asyncio.wait({releasing}, timeout=2)
            assert releasing.cancelled()
        finally:
            await asyncio.to_thread(cluster.thaw, cluster.primary)
        await all_can_be_taken(adapter, pool)


async def test_what_holds_on_to_a_connection_does_not_keep_its_slot(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """A generator of notifications has the connection's lock while nobody asks it for more."""
    options = {"min_size": 0, "max_size": 1, "kwargs": {"autocommit": True}}
    async with opened(adapter, cluster.primary, **options) as pool:
        for block in (False, True):
            connection = await adapter.acquire_from_pool(pool)
            await connection.execute("LISTEN channel")
            await connection.execute("NOTIFY channel")
            notifies = connection.notifies()
            await anext(notifies)
            async with asyncio.timeout(SOON):
                if block:
                    ending = asyncio.ensure_future(adapter.end_block(connection, None))
                    await asyncio.sleep(0)
                    adapter.terminate_connection(connection)
                    await ending
                await adapter.release_to_pool(connection, pool)
            await notifies.aclose()
            await all_can_be_taken(adapter, pool)


async def test_requests_that_are_cancelled_again_and_again_lose_no_slot(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """As anyio's scopes do it, of which web frameworks are made: at every await."""
    dice = random.Random(11)

    async def request(pool: Pool) -> None:
        connection = await adapter.acquire_from_pool(pool)
        try:
            await connection.execute("SELECT 1")
            await connection.execute("SELECT 2")
            await adapter.end_block(connection, None)
        finally:
            await adapter.release_to_pool(connection, pool)

    async def bounded(pool: Pool, room: asyncio.Semaphore) -> None:
        async with room:  # the core never takes more than there are
            task = asyncio.ensure_future(request(pool))
            await asyncio.wait({task}, timeout=dice.random() * 0.02)
            async with asyncio.timeout(PATIENCE):
                while not task.done():
                    task.cancel()
                    await asyncio.sleep(0)
            assert task.cancelled() or task.exception() is None, task.exception()

    async with opened(adapter, cluster.primary, min_size=1, max_size=3) as pool:
        room = asyncio.Semaphore(3)
        for _ in range(3):
            await asyncio.gather(*(bounded(pool, room) for _ in range(100)))
            await eventually(lambda: settled(pool), "the pool replaces what was cut off")
            await all_can_be_taken(adapter, pool)


def settled(pool: Pool) -> bool:
    stats = pool.get_stats()
    return stats["pool_available"] == stats["pool_size"]


async def test_a_connection_that_comes_although_the_acquire_was_cancelled_goes_back(
    adapter: PsycopgAdapter, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Python 3.11 it may; here it always does, some turns late, with cancellations in each."""
    taking = asyncio.Event()

    async with opened(adapter, cluster.primary, min_size=1, max_size=1) as pool:
        await all_can_be_taken(adapter, pool)
        getconn = pool.getconn

        async def forgetful() -> Connection:
            taking.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            for _ in range(5):
                await asyncio.sleep(0)
            return await getconn()

        with monkeypatch.context() as patch:
            patch.setattr(pool, "getconn", forgetful)
            acquiring = asyncio.ensure_future(adapter.acquire_from_pool(pool))
            await taking.wait()
            while not acquiring.done():
                acquiring.cancel()
                await asyncio.sleep(0)
            assert acquiring.cancelled()
        await all_can_be_taken(adapter, pool)


async def test_a_bound_within_the_users_check_is_the_checks_affair(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """What times out there by `asyncio.timeout` costs no connection."""
    pids: set[int] = set()

    async def check(connection: Connection) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        await connection.execute("SELECT 1")
        await connection.commit()
        pids.add(connection.info.backend_pid)

    async with opened(adapter, cluster.primary, min_size=1, max_size=1, check=check) as pool:
        for _ in range(3):
            connection = await adapter.acquire_from_pool(pool)
            await adapter.release_to_pool(connection, pool)
        assert len(pids) == 1


async def test_a_query_that_takes_longer_than_psycopg_waits_at_once_is_answered(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """Older ones wait by `asyncio.wait_for`, a tenth of a second each time, and that cancels the
    task from Python 3.12 on."""
    async with opened(adapter, cluster.primary, min_size=1, max_size=1) as pool:
        connection = await adapter.acquire_from_pool(pool)
        query = "SELECT 'done' FROM pg_sleep(0.3)"
        assert await adapter.fetch_scalar(connection, query) == "done"
        lock = "SELECT pg_advisory_xact_lock(1)"
        async with await psycopg.AsyncConnection.connect(cluster.primary.dsn) as other:
            await other.execute(lock)

            async def let_go() -> None:
                await asyncio.sleep(0.3)
                await other.commit()

            going = asyncio.ensure_future(let_go())
            await connection.execute(lock)
            await adapter.end_block(connection, None)
            await going
        assert not connection.closed
        await adapter.release_to_pool(connection, pool)
        await all_can_be_taken(adapter, pool)
