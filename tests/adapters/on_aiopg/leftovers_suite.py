"""Nothing that grows, and no error that nobody hears of."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from aiopg.connection import Connection
from tests.adapters.on_aiopg.support import (
    SIZE,
    TESTED,
    Driver,
    Suite,
    cancelled_at,
    ignored,
    living,
    of,
    reserved,
    result_of,
)
from tests.support.waiting import SOON, eventually

from pyscopg2.core.adapter import HookError
from pyscopg2.testing.cluster import LocalCluster


class LeftoversSuite(Suite):
    async def test_nothing_keeps_pools_that_have_ended(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        alive: list[weakref.ref[Any]] = []
        adapter = driver.adapter
        target = TESTED.target(cluster.primary)
        failing = False

        async def on_connect(connection: Connection) -> None:
            if failing:
                raise KeyError("the request's")

        async def cycle(turn: int) -> None:
            nonlocal failing
            failing = False
            pool = await adapter.create_pool(target, minsize=0, maxsize=SIZE, on_connect=on_connect)
            alive.append(weakref.ref(pool))
            first = await adapter.acquire_from_pool(pool)
            alive.append(weakref.ref(driver.raw(first)))
            match turn % 4:
                case 0:
                    _, second = await cancelled_at(of(adapter.acquire_from_pool, pool), turn, True)
                    if second is not None:
                        await adapter.release_to_pool(second, pool)
                case 1:
                    failing = True
                    with pytest.raises(HookError):
                        await adapter.acquire_from_pool(pool)
                    with pytest.raises(KeyError):
                        await adapter.create_pool(
                            target, minsize=0, maxsize=SIZE, on_connect=on_connect
                        )
                case 2:
                    adapter.terminate_connection(first)
                case _:
                    TESTED.end_backends(cluster, cluster.primary)
            await adapter.release_to_pool(first, pool)
            if turn % 2:
                await adapter.terminate_pool(pool)
            else:
                await adapter.close_pool(pool)

        for turn in range(16):
            await cycle(turn)
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await eventually(lambda: not living(alive), "something keeps what has ended")

    async def test_nothing_is_left_of_reserved_connections(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        alive: list[weakref.ref[Any]] = []
        for turn in range(12):
            async with reserved(driver, TESTED.target(cluster.primary)) as connection:
                alive.append(weakref.ref(connection))
                await cancelled_at(of(connection.fetch_scalar, "SELECT 1"), turn % 3, True)
            del connection
        await eventually(lambda: not living(alive), "something keeps what has ended")

    def test_no_error_is_left_unheard(self, driver: Driver, cluster: LocalCluster) -> None:
        """asyncio tells of exceptions that nobody has asked for, when their futures die."""
        unheard: list[dict[str, Any]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: unheard.append(context))
            adapter = driver.adapter
            for turn in range(24):
                pool = await adapter.create_pool(
                    TESTED.target(cluster.primary), minsize=1, maxsize=SIZE
                )
                connection = await adapter.acquire_from_pool(pool)
                check = await adapter.reserve(TESTED.target(cluster.primary))
                queries = [
                    asyncio.ensure_future(driver.execute(connection, "SELECT pg_sleep(60)")),
                    asyncio.ensure_future(check.fetch_scalar("SELECT pg_sleep(60)")),
                    asyncio.ensure_future(adapter.acquire_from_pool(pool)),
                ]
                for _ in range(turn % 12):
                    await asyncio.sleep(0.0005)
                if turn % 2:
                    await asyncio.to_thread(TESTED.end_backends, cluster, cluster.primary)
                if turn % 3:
                    adapter.terminate_connection(connection)
                    check.terminate()
                for query in queries:
                    query.cancel()
                if turn % 2:
                    await asyncio.sleep(0)
                    adapter.terminate_connection(connection)
                    check.terminate()
                await asyncio.wait(queries, timeout=SOON)
                with ignored(ResourceWarning):
                    for each in (connection, result_of(queries[2])):
                        if each is not None:
                            await adapter.release_to_pool(each, pool)
                check.terminate()
                await adapter.terminate_pool(pool)
                assert all(query.cancelled() or query.exception() for query in queries[:2])
                del pool, connection, check, queries, each
                gc.collect()

        asyncio.run(main())
        gc.collect()
        assert not unheard
