"""What a user of psycopg writes: `test_wheels` runs it, and has it checked, strictly."""

import asyncio
import sys
from typing import assert_type

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.psycopg import PoolManager


async def names(connection: AsyncConnection[TupleRow]) -> list[str]:
    cursor = await connection.execute("SELECT 'Ada'")
    return [str(name) for (name,) in await cursor.fetchall()]


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
            assert_type(connection, AsyncConnection[TupleRow])
            found += await names(connection)
        async with manager.acquire(read_only=True) as connection:
            assert_type(connection, AsyncConnection[TupleRow])
        async with manager.acquire_master(timeout=5) as connection:
            assert_type(connection, AsyncConnection[TupleRow])
        async with manager.acquire_replica(fallback_master=True) as connection:
            assert_type(connection, AsyncConnection[TupleRow])

        taken = await manager.acquire(read_only=True)
        assert_type(taken, AsyncConnection[TupleRow])
        found += await names(taken)
        await taken.commit()
        await manager.release(taken)
        taken = await manager.acquire_master()
        assert_type(taken, AsyncConnection[TupleRow])
        await manager.release(taken)

        pool = await manager.get_pool(read_only=False)
        assert_type(pool, AsyncConnectionPool[AsyncConnection[TupleRow]])
        assert_type(
            await manager.get_master_pools(), list[AsyncConnectionPool[AsyncConnection[TupleRow]]]
        )
        async with manager.acquire_from_pool(pool) as connection:
            assert_type(connection, AsyncConnection[TupleRow])
        assert_type(manager.get_last_response_time(pool), float | None)
        assert_type(manager.pools, tuple[AsyncConnectionPool[AsyncConnection[TupleRow]], ...])
    return found


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
