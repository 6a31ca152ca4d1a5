"""What a user of aiopg.sa writes: `test_wheels` runs it, and has it checked, strictly."""

import asyncio
import sys
from typing import Any, assert_type

from aiopg.sa import Engine, SAConnection

from pyscopg2.aiopg_sa import PoolManager
from pyscopg2.balancer_policy import RoundRobinBalancerPolicy


async def names(connection: SAConnection) -> list[str]:
    untyped: Any = connection  # aiopg.sa has no annotations on its methods
    return [str(await untyped.scalar("SELECT 'Ada'"))]


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
            assert_type(connection, SAConnection)
            found += await names(connection)
        async with manager.acquire(read_only=True) as connection:
            assert_type(connection, SAConnection)
        async with manager.acquire_master(timeout=5) as connection:
            assert_type(connection, SAConnection)
        async with manager.acquire_replica(fallback_master=True) as connection:
            assert_type(connection, SAConnection)

        taken = await manager.acquire(read_only=True)
        assert_type(taken, SAConnection)
        found += await names(taken)
        await manager.release(taken)
        taken = await manager.acquire_master()
        assert_type(taken, SAConnection)
        await manager.release(taken)

        pool = await manager.get_pool(read_only=False)
        assert_type(pool, Engine)
        assert_type(await manager.get_master_pools(), list[Engine])
        async with manager.acquire_from_pool(pool) as connection:
            assert_type(connection, SAConnection)
        assert_type(manager.get_last_response_time(pool), float | None)
        assert_type(manager.pools, tuple[Engine, ...])
    return found


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
