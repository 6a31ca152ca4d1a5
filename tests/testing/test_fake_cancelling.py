"""What is cancelled on a fake host."""

import asyncio

import pytest
from tests.support.virtual import now, start, virtual
from tests.testing.fake_bench import Bench

from pyscopg2.testing.virtual_time import settle


@virtual
async def test_a_cancelled_query_ends_at_once_and_spares_the_connection() -> None:
    async with Bench(cancel_delay=11) as bench:
        connection = await (await bench.pool()).acquire()
        began = now()
        query = start(connection.fetch_scalar("select 1"))
        await settle()
        query.cancel()
        await settle()
        assert query.cancelled()
        assert now() == began
        assert await connection.fetch_scalar("select 1") == 1


@virtual
async def test_a_slow_cancellation() -> None:
    async with Bench(cancel_delay=11) as bench:
        pool = await bench.pool(min_size=0)
        connection = await pool.acquire()
        bench.server.freeze()
        began = now()
        tasks = [start(connection.fetch_scalar("select 1")), start(pool.acquire())]
        await settle()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert now() == began + 11
        assert all(task.cancelled() for task in tasks)
        assert pool.free_size == pool.max_size - 1


@pytest.mark.parametrize("end", ["terminate", "thaw", "down"])
@virtual
async def test_what_ends_a_slow_cancellation_earlier(end: str) -> None:
    async with Bench(cancel_delay=11) as bench:
        connection = await (await bench.pool()).acquire()
        bench.server.freeze()
        query = start(connection.fetch_scalar("select 1"))
        await settle()
        query.cancel()
        await asyncio.sleep(1)
        assert not query.done()
        getattr(connection if end == "terminate" else bench.server, end)()
        await asyncio.sleep(bench.server.latency)
        await settle()
        assert query.cancelled()


@pytest.mark.parametrize("turns", range(6))
@virtual
async def test_a_cancelled_acquire_leaves_nothing(turns: int) -> None:
    async with Bench() as bench:
        pool = await bench.pool(min_size=0, max_size=1)
        held = await pool.acquire()
        bench.server.latency = 0
        acquire = start(pool.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        acquire.cancel()
        await settle()
        if acquire.cancelled():
            assert pool.free_size == 1
            assert bench.server.backends == 1
        else:
            await pool.release(acquire.result())
        await pool.release(held)
        assert pool.free_size == 2
        await pool.close()
        bench.network.assert_nothing_left()
