"""What a user of aiopg writes: `test_wheels` runs it, and has it checked, strictly."""

import asyncio
import sys
from typing import assert_type

from aiopg.connection import Connection
from aiopg.pool import Pool

from pyscopg2.aiopg import PoolManager
from pyscopg2.balancer_policy import RoundRobinBalancerPolicy


async def names(connection: Connection) -> list[str]:
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT 'Ada'")
        return [str(name) for (name,) in await cursor.fetchall()]


async def main(dsn: str) -> list[str]:
    found: list[str] = []
    async with PoolManager(
        dsn,
        fallback_master=True,
        balancer_policy=RoundRobinBalancerPolicy,
        pool_factory_kwargs={"minsize": 1, "maxsize": 2},
    ) as manager:
        assert_type(manager, PoolManager)
        await manager.ready()

        async with manager.acquire() as connection:
            assert_type(connection, Connection)
            found += await names(connection)
        async with manager.acquire(read_only=True) as connection:
            assert_type(connection, Connection)
        async with manager.acquire_master(timeout=5) as connection:
            assert_type(connection, Connection)
        async with manager.acquire_replica(fallback_master=True) as connection:
            assert_type(connection, Connection)

        taken = await manager.acquire(read_only=True)
        assert_type(taken, Connection)
        found += await names(taken)
        await manager.release(taken)
        taken = await manager.acquire_master()
        assert_type(taken, Connection)
        await manager.release(taken)

        pool = await manager.get_pool(read_only=False)
        assert_type(pool, Pool)
        assert_type(await manager.get_master_pools(), list[Pool])
        async with manager.acquire_from_pool(pool) as connection:
            assert_type(connection, Connection)
        assert_type(manager.get_last_response_time(pool), float | None)
        assert_type(manager.pools, tuple[Pool, ...])
    return found


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
