"""How connections are taken from psycopg's pool and given back to it."""

import asyncio
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import TupleRow, dict_row
from tests.adapters.on_psycopg.support import (
    Connection,
    Pool,
    backends,
    end_backend,
    free,
    is_active,
    opened,
)
from tests.support.waiting import PATIENCE, SOON, eventually

from pyscopg2.psycopg import PoolManager, PsycopgAdapter
from pyscopg2.testing.cluster import LocalCluster


async def test_acquire_takes_the_pools_argument_and_no_other(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, min_size=0, max_size=2) as pool:
        taken = [await adapter.acquire_from_pool(pool, timeout=SOON) for _ in range(2)]
        with pytest.raises(psycopg_pool.PoolTimeout):
            await adapter.acquire_from_pool(pool, timeout=0.05)
        with pytest.raises(TypeError):
            await adapter.acquire_from_pool(pool, no_such_argument=1)
        for connection in taken:
            await adapter.release_to_pool(connection, pool)
        assert free(pool) == 2


async def test_an_acquire_for_which_the_host_refuses_a_connect_fails_at_once(
    adapter: PsycopgAdapter, alone: LocalCluster
) -> None:
    node = alone.primary
    async with opened(adapter, node, min_size=0, max_size=3) as pool:
        await adapter.acquire_from_pool(pool)
        await asyncio.to_thread(alone.kill, node)
        async with asyncio.timeout(SOON):
            with pytest.raises(psycopg.OperationalError, match="refused"):
                # The pool may have opened others in advance, which are dead now.
                for _ in range(4):
                    await adapter.acquire_from_pool(pool)
        # And again: no growing interval stands in the way once the host is back.
        await asyncio.to_thread(alone.start, node)
        async with asyncio.timeout(SOON):
            connection = await adapter.acquire_from_pool(pool)
            await connection.execute("SELECT 1")


def connecting_in_turn(limit: int) -> type[psycopg.AsyncConnection[TupleRow]]:
    """Of a host that lets so many in, and takes its time to refuse others."""

    class MyConnection(psycopg.AsyncConnection[TupleRow]):
        attempts = 0
        now = most = 0

        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            cls.attempts += 1
            if cls.attempts <= limit:
                return await super().connect(*args, **kwargs)
            cls.now += 1
            cls.most = max(cls.most, cls.now)
            try:
                await asyncio.sleep(0.02)
                raise psycopg.OperationalError("too many connections")
            finally:
                cls.now -= 1

    return MyConnection


@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
async def test_a_connect_that_fails_is_not_repeated_by_each_of_those_who_wait(
    adapter: PsycopgAdapter, cluster: LocalCluster, cancelled: bool
) -> None:
    connection_class: Any = connecting_in_turn(2)
    options = {"min_size": 0, "max_size": 21, "connection_class": connection_class}
    async with opened(adapter, cluster.primary, **options) as pool:
        connection = await adapter.acquire_from_pool(pool)
        acquiring = [asyncio.ensure_future(_take(adapter, pool)) for _ in range(20)]
        if cancelled:
            # By the pool's worker, and by one for all who wait.
            await eventually(lambda: connection_class.attempts == 4, "one tries for all")
            acquiring[0].cancel()
            acquiring[3].cancel()
        async with asyncio.timeout(SOON):
            done = await asyncio.gather(*acquiring, return_exceptions=True)
        refused = [exc for exc in done if isinstance(exc, psycopg.OperationalError)]
        assert len(refused) == (18 if cancelled else 20)
        assert connection_class.most <= 2
        assert connection_class.attempts < 10
        await adapter.release_to_pool(connection, pool)


async def _take(adapter: PsycopgAdapter, pool: Pool) -> psycopg.AsyncConnection[TupleRow]:
    return await adapter.acquire_from_pool(pool)


@pytest.mark.parametrize("how", ["terminated", "cancelled", "pool ended", "closed"])
async def test_giving_back_waits_for_the_reset(
    adapter: PsycopgAdapter, cluster: LocalCluster, how: str
) -> None:
    """Whatever comes of it, it ends, and the workers go on."""
    resets = 0

    async def reset(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        nonlocal resets
        resets += 1
        if resets <= 4:
            await connection.execute("SELECT pg_sleep(60)")

    async with opened(adapter, cluster.primary, min_size=0, max_size=4, reset=reset) as pool:
        taken = [await adapter.acquire_from_pool(pool) for _ in range(4)]
        if how == "closed":
            for connection in taken:
                await connection.close()
        back = [asyncio.ensure_future(adapter.release_to_pool(c, pool)) for c in taken]
        if how != "closed":
            await eventually(lambda: resets == 3, "all workers are busy")
            assert not any(task.done() for task in back)
        async with asyncio.timeout(SOON):
            if how == "pool ended":
                await adapter.terminate_pool(pool)
            for connection, task in zip(taken, back, strict=True):
                if how == "terminated":
                    adapter.terminate_connection(connection)
                elif how == "cancelled":
                    task.cancel()
            ends = await asyncio.gather(*back, return_exceptions=True)
            if how == "cancelled":
                assert all(isinstance(end, asyncio.CancelledError) for end in ends)
            else:
                assert ends == [None] * 4
            if how != "pool ended":
                resets = 4
                taken = [await adapter.acquire_from_pool(pool) for _ in range(4)]
                for connection in taken:
                    await adapter.release_to_pool(connection, pool)
                assert resets == 8
                assert free(pool) == 4


async def test_a_reset_that_hangs_costs_its_connection_and_not_the_host(
    cluster: LocalCluster,
) -> None:
    hangs = False

    async def reset(connection: psycopg.AsyncConnection[TupleRow]) -> None:
        if hangs:
            await connection.execute("SELECT pg_sleep(60)")

    options = {"min_size": 1, "max_size": 3, "reset": reset}
    async with PoolManager(
        cluster.dsn, refresh_timeout=0.5, acquire_timeout=PATIENCE, pool_factory_kwargs=options
    ) as manager:
        held = [await manager.acquire_master() for _ in range(3)]
        hangs = True
        await asyncio.wait_for(asyncio.gather(*map(manager.release, held)), SOON)
        hangs = False
        for _ in range(6):
            async with manager.acquire_master() as connection:
                await connection.execute("SELECT 1")


@pytest.mark.parametrize("resets", [False, True], ids=["", "with a reset"])
@pytest.mark.parametrize("state", ["idle", "rolling back", "broken", "terminated", "in use"])
async def test_what_was_given_back_cannot_be_given_back_again(
    adapter: PsycopgAdapter, cluster: LocalCluster, state: str, resets: bool
) -> None:
    """Neither where the pool has it, nor on the way; and no connection counts twice."""

    async def reset(connection: Connection) -> None:
        await connection.execute("SELECT 1")
        await connection.commit()

    options: dict[str, Any] = {"min_size": 2, "max_size": 2}
    if resets:
        options["reset"] = reset
    async with opened(adapter, cluster.primary, **options) as pool:
        connection = await adapter.acquire_from_pool(pool)
        query: asyncio.Future[Any] | None = None
        if state == "rolling back":
            await connection.execute("SELECT 1")
        elif state == "broken":
            await end_backend(cluster, connection)
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT 1")
        elif state == "terminated":
            adapter.terminate_connection(connection)
        elif state == "in use":
            query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
            await eventually(lambda: is_active(connection), "the query is sent")
        first = asyncio.ensure_future(adapter.release_to_pool(connection, pool))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"given back|any pool"):
                await adapter.release_to_pool(connection, pool)
            await first
        if query is not None:
            with pytest.raises(psycopg.OperationalError):
                await query
        async with asyncio.timeout(SOON):
            taken = [await adapter.acquire_from_pool(pool) for _ in range(pool.max_size)]
            for each in taken:
                await adapter.release_to_pool(each, pool)
        await eventually(
            lambda: pool.get_stats()["pool_available"] == pool.max_size, "all are back"
        )
        assert pool.get_stats()["pool_size"] == pool.max_size
        assert backends(cluster, cluster.primary) == pool.max_size


async def test_release_while_a_query_runs_ends_the_query(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, min_size=0, max_size=1) as pool:
        connection = await adapter.acquire_from_pool(pool)
        query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
        await eventually(lambda: is_active(connection), "the query is sent")
        async with asyncio.timeout(SOON):
            await adapter.release_to_pool(connection, pool)
            with pytest.raises(psycopg.OperationalError):
                await query
        await eventually(lambda: free(pool) == 1, "its slot is free")


async def test_terminating_ends_what_waits_without_a_query(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    async with opened(adapter, cluster.primary, min_size=0, max_size=1) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await connection.set_autocommit(True)
        await connection.execute("LISTEN channel")

        async def listen() -> None:
            async for _ in connection.notifies():
                pass

        listening = asyncio.ensure_future(listen())
        await eventually(connection.lock.locked, "it listens")
        adapter.terminate_connection(connection)
        assert adapter.is_connection_closed(connection)
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(listening, SOON)
        await adapter.release_to_pool(connection, pool)


async def test_fetch_scalar_leaves_the_users_settings(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    kwargs = {"row_factory": dict_row, "prepare_threshold": 0}
    async with opened(adapter, cluster.primary, kwargs=kwargs) as pool:
        connection = await adapter.acquire_from_pool(pool)
        assert await adapter.fetch_scalar(connection, "SELECT '%s' || 'x', 2") == "%sx"
        with pytest.raises(psycopg.errors.UndefinedTable):
            await adapter.fetch_scalar(connection, "SELECT * FROM nowhere")
        assert not connection.autocommit
        assert (
            await adapter.fetch_scalar(connection, "SELECT count(*) FROM pg_prepared_statements")
            == 0
        )
        await adapter.release_to_pool(connection, pool)


async def test_a_cancelled_check_of_a_frozen_server_ends_at_once(
    adapter: PsycopgAdapter, cluster: LocalCluster
) -> None:
    """Psycopg would ask the server to cancel, for five seconds or, with an old libpq, for ever."""
    async with opened(adapter, cluster.primary) as pool:
        connection = await adapter.acquire_from_pool(pool)
        await asyncio.to_thread(cluster.freeze, cluster.primary)
        try:
            check = asyncio.ensure_future(adapter.fetch_scalar(connection, "SELECT 1"))
            await eventually(lambda: is_active(connection), "the check is sent")
            check.cancel()
            done, _ = await asyncio.wait({check}, timeout=2)
            assert done
            assert check.cancelled()
            assert connection.closed
        finally:
            await asyncio.to_thread(cluster.thaw, cluster.primary)
        await adapter.release_to_pool(connection, pool)
