"""What a user of asyncpg writes: `test_wheels` runs it, and has it checked, strictly."""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import assert_type

from asyncpg import Pool, Record
from asyncpg.pool import PoolConnectionProxy

from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.core.wal import WalPosition


async def names(connection: "PoolConnectionProxy[Record]") -> list[str]:
    return [record["name"] for record in await connection.fetch("SELECT 'Ada' AS name")]


async def main(dsn: str) -> list[str]:
    found: list[str] = []
    async with PoolManager(
        dsn,
        fallback_master=True,
        balancer_policy=RoundRobinBalancerPolicy,
        pool_factory_kwargs={"min_size": 1, "max_size": 2},
    ) as manager:
        assert_type(manager, PoolManager)
        await manager.ready()

        async with manager.acquire() as connection:
            assert_type(connection, "PoolConnectionProxy[Record]")
            found += await names(connection)
        async with manager.acquire(read_only=True) as connection:
            assert_type(connection, "PoolConnectionProxy[Record]")
        async with manager.acquire_master(timeout=5) as connection:
            assert_type(connection, "PoolConnectionProxy[Record]")
        async with manager.acquire_replica(fallback_master=True) as connection:
            assert_type(connection, "PoolConnectionProxy[Record]")

        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(manager.acquire_master())
            assert_type(connection, "PoolConnectionProxy[Record]")

        with manager.causal() as session:
            async with manager.acquire_master() as connection:
                assert_type(await manager.wal_position(connection), WalPosition)
            assert_type(session.position, WalPosition | None)
            async with manager.acquire_replica(
                True, max_lag=5.0, after=session.position, patience=0.1
            ) as connection:
                assert_type(connection, "PoolConnectionProxy[Record]")

        taken = await manager.acquire(read_only=True)
        assert_type(taken, "PoolConnectionProxy[Record]")
        found += await names(taken)
        await manager.release(taken)
        taken = await manager.acquire_master()
        assert_type(taken, "PoolConnectionProxy[Record]")
        await manager.release(taken)

        pool = await manager.get_pool(read_only=False)
        assert_type(pool, "Pool[Record]")
        assert_type(await manager.get_master_pools(), list["Pool[Record]"])
        async with manager.acquire_from_pool(pool) as connection:
            assert_type(connection, "PoolConnectionProxy[Record]")
        assert_type(manager.get_last_response_time(pool), float | None)
        assert_type(manager.pools, tuple["Pool[Record]", ...])
    return found


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
