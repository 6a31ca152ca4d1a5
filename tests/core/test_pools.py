"""Pools, and what a manager knows of them."""

import asyncio
from typing import Any

import pytest
from tests.core.conftest import Bench, start, virtual

from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.fake_server import FULL


@virtual
async def test_pools_and_counts() -> None:
    async with Bench(replicas=2) as bench:
        manager = bench.manager
        db1, db2, db3 = (bench.pool(name) for name in ("db1", "db2", "db3"))
        assert manager.pools == (db1, db2, db3)
        assert await manager.get_master_pools() == [db1]
        assert await manager.get_replica_pools() == [db2, db3]
        assert await manager.get_replica_pools(fallback_master=True) == [db2, db3]
        counts = manager.master_pool_count, manager.replica_pool_count
        assert (*counts, manager.available_pool_count) == (1, 2, 3)
        assert [manager.pool_is_master(pool) for pool in (db1, db2)] == [True, False]
        assert [manager.pool_is_replica(pool) for pool in (db1, db2)] == [False, True]
        bench["db2"].down()
        bench["db3"].down()
        await bench.until_roles("master unavailable unavailable")
        assert list(manager.pools) == [db1]
        assert await manager.get_replica_pools(True) == [db1]
        assert manager.available_pool_count == 1


@virtual
async def test_the_pool_with_the_most_free_connections() -> None:
    async with Bench(replicas=2, fallback_master=True) as bench:
        manager = bench.manager
        assert await manager.get_pool(False) is bench.pool("db1")
        held = await manager.acquire_from_pool(bench.pool("db2"))
        assert await manager.get_pool(True) is bench.pool("db3")
        await manager.release(held)
        await manager.acquire_from_pool(bench.pool("db3"))
        assert await manager.get_pool(read_only=True) is bench.pool("db2")
        bench["db2"].down()
        bench["db3"].down()
        await bench.until_roles("master unavailable unavailable")
        assert await manager.get_pool(True) is bench.pool("db1")
        assert await manager.get_pool(True, fallback_master=True) is bench.pool("db1")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("get_pool", (False,)),
        ("get_master_pools", ()),
        ("wait_masters_ready", (1,)),
        ("wait_all_ready", ()),
    ],
)
@virtual
async def test_pools_are_waited_for(verb: str, arguments: tuple[Any, ...]) -> None:
    bench = Bench(ready=False)
    bench["db1"].down()
    async with bench:
        waiting = start(getattr(bench.manager, verb)(*arguments))
        await asyncio.sleep(30)
        assert not waiting.done()
        bench["db1"].up()
        pools = await asyncio.wait_for(waiting, 1)
        if verb.startswith("get"):
            assert pools in (bench.pool("db1"), [bench.pool("db1")])


@virtual
async def test_pools_are_found_while_connects_are_refused() -> None:
    async with Bench(replicas=0) as bench:
        bench["db1"].refuse_connects = FULL
        await bench.manager.acquire()
        refused = start(bench.manager.acquire())
        await asyncio.sleep(0.002)
        assert await bench.manager.get_master_pools() == [bench.pool("db1")]
        assert await bench.manager.get_pool(False) is bench.pool("db1")
        with pytest.raises(AcquireTimeoutError):
            await refused


@virtual
async def test_free_slots_are_counted_as_users_see_them() -> None:
    async with Bench(size=3) as bench:
        manager, pool = bench.manager, bench.pool("db1")
        assert manager.get_pool_freesize(pool) == 3
        held = await manager.acquire()
        opening = start(manager.acquire())
        await asyncio.sleep(0)
        assert manager.get_pool_freesize(pool) == 1
        await manager.release(await opening)
        await manager.release(held)
        assert manager.get_pool_freesize(pool) == 3


@virtual
async def test_response_times_are_the_median_of_the_last_checks() -> None:
    async with Bench(stopwatch_window_size=3) as bench:
        pool = bench.pool("db1")
        assert bench.manager.get_last_response_time(pool) == pytest.approx(0.001)
        for latency, median in ((0.011, 0.006), (0.02, 0.011), (0.03, 0.02), (0.03, 0.03)):
            bench["db1"].latency = latency
            await bench.check()
            assert bench.manager.get_last_response_time(pool) == pytest.approx(median)


@virtual
async def test_whether_a_connection_is_closed() -> None:
    async with Bench() as bench, bench.manager.acquire() as connection:
        assert not bench.manager.is_connection_closed(connection)
        bench["db1"].break_connections()
        assert bench.manager.is_connection_closed(connection)
