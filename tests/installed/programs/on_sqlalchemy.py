"""What a user of SQLAlchemy writes: `test_wheels` runs it, and has it checked, strictly."""

import asyncio
import sys
from typing import assert_type

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.sqlalchemy import PoolManager, SessionMaker


class Session(AsyncSession):
    """A user's own."""

    name = "Ada"


async def names(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(text("SELECT 'Ada'")))


async def main(dsn: str) -> list[str]:
    found: list[str] = []
    async with PoolManager(
        dsn,
        fallback_master=True,
        balancer_policy=RoundRobinBalancerPolicy,
        pool_factory_kwargs={"pool_size": 1, "max_overflow": 1},
    ) as manager:
        assert_type(manager, PoolManager)
        await manager.ready()

        async with manager.acquire() as connection:
            assert_type(connection, AsyncConnection)
            found += await names(connection)
        async with manager.acquire(read_only=True) as connection:
            assert_type(connection, AsyncConnection)
        async with manager.acquire_master(timeout=5) as connection:
            assert_type(connection, AsyncConnection)
        async with manager.acquire_replica(fallback_master=True) as connection:
            assert_type(connection, AsyncConnection)

        taken = await manager.acquire(read_only=True)
        assert_type(taken, AsyncConnection)
        found += await names(taken)
        await manager.release(taken)
        taken = await manager.acquire_master()
        assert_type(taken, AsyncConnection)
        await manager.release(taken)

        pool = await manager.get_pool(read_only=False)
        assert_type(pool, AsyncEngine)
        assert_type(await manager.get_master_pools(), list[AsyncEngine])
        async with manager.acquire_from_pool(pool) as connection:
            assert_type(connection, AsyncConnection)
        assert_type(manager.get_last_response_time(pool), float | None)
        assert_type(manager.pools, tuple[AsyncEngine, ...])

        sessions = SessionMaker(manager, expire_on_commit=False)
        assert_type(sessions, SessionMaker[AsyncSession])
        async with sessions.master() as session:
            assert_type(session, AsyncSession)
        async with sessions.replica(fallback_master=True, timeout=5) as session:
            assert_type(session, AsyncSession)
        async with sessions(read_only=True) as session:
            assert_type(session, AsyncSession)

        async with SessionMaker(manager, class_=Session).begin() as own:
            assert_type(own, Session)
            found.append(own.name)
    return found


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
