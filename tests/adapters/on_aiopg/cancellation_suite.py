"""Requests are cancelled once, or at each await again."""

import asyncio
import itertools
import random
from typing import Any

import anyio
import pytest
from aiopg.connection import Connection
from tests.adapters.on_aiopg.support import (
    SIZE,
    TESTED,
    Driver,
    Suite,
    all_can_be_taken,
    begun,
    cancelled_at,
    end_block,
    free,
    ignored,
    manage,
    opened,
    pid,
    prepare,
)
from tests.support.waiting import SOON, eventually

from pyscopg2.testing.cluster import LocalCluster

REQUESTS = 1200


class CancellationSuite(Suite):
    @pytest.mark.parametrize("repeated", [False, True], ids=["once", "repeated"])
    @pytest.mark.parametrize("contended", [False, True], ids=["alone", "contended"])
    async def test_each_await_of_an_acquire_may_be_cancelled(
        self, driver: Driver, cluster: LocalCluster, repeated: bool, contended: bool
    ) -> None:
        gate = asyncio.Event()
        gate.set()

        async def pass_the_gate(connection: Connection) -> None:
            await gate.wait()

        target = TESTED.target(cluster.primary)
        options = {"minsize": 0, "maxsize": SIZE, "on_connect": pass_the_gate}
        async with opened(driver, target, **options) as pool:
            kept = await driver.adapter.acquire_from_pool(pool)
            for turn in itertools.count():
                other: asyncio.Future[Any] | None = None
                if contended:
                    # It has the pool's lock while it connects.
                    gate.clear()
                    other = asyncio.ensure_future(driver.adapter.acquire_from_pool(pool))
                    await eventually(lambda: free(pool) == SIZE - 2)
                    asyncio.get_running_loop().call_later(0.02, gate.set)
                struck, connection = await cancelled_at(
                    lambda: driver.adapter.acquire_from_pool(pool), turn, repeated
                )
                for each in (connection, None if other is None else await other):
                    if each is not None:
                        driver.adapter.terminate_connection(each)
                        await driver.adapter.release_to_pool(each, pool)
                assert free(pool) == SIZE - 1
                assert pool.size - pool.freesize == 1
                if not struck:
                    assert turn > 0, "it connected without an await"
                    break
            await driver.adapter.release_to_pool(kept, pool)
            await all_can_be_taken(driver, pool)

    @pytest.mark.parametrize("repeated", [False, True], ids=["once", "repeated"])
    @pytest.mark.parametrize("state", ["idle", "begun", "half ended", "broken"])
    async def test_each_await_of_a_release_may_be_cancelled_and_its_slot_is_free_then(
        self, driver: Driver, cluster: LocalCluster, repeated: bool, state: str
    ) -> None:
        await self.give_back_cancelled(driver, cluster, repeated, state, block=False)

    @pytest.mark.parametrize("repeated", [False, True], ids=["once", "repeated"])
    @pytest.mark.parametrize("state", ["idle", "begun", "half ended", "broken"])
    async def test_each_await_of_a_blocks_end_may_be_cancelled(
        self, driver: Driver, cluster: LocalCluster, repeated: bool, state: str
    ) -> None:
        await self.give_back_cancelled(driver, cluster, repeated, state, block=True)

    async def give_back_cancelled(
        self, driver: Driver, cluster: LocalCluster, repeated: bool, state: str, *, block: bool
    ) -> None:
        adapter = driver.adapter
        async with opened(driver, TESTED.target(cluster.primary), minsize=0, maxsize=1) as pool:
            for turn in itertools.count():
                connection = await adapter.acquire_from_pool(pool)
                await prepare(driver, connection, state)
                following: list[asyncio.Future[Any]] = []

                async def give_back(
                    connection: Any = connection, following: list[Any] = following
                ) -> None:
                    # As a block does: whatever becomes of its end, its connection is given back.
                    try:
                        if block:
                            await end_block(driver, connection)
                    finally:
                        try:
                            await adapter.release_to_pool(connection, pool)
                        finally:
                            # As the core does for the waiter that gets this slot.
                            following.append(begun(adapter.acquire_from_pool(pool)))

                with ignored(ResourceWarning):
                    struck, _ = await cancelled_at(give_back, turn, repeated)
                async with asyncio.timeout(SOON):
                    (connection,) = await asyncio.gather(*following)
                assert await adapter.fetch_scalar(connection, "SELECT 1") == 1
                await adapter.release_to_pool(connection, pool)
                assert pool.size == pool.freesize
                if not struck:
                    break
            await all_can_be_taken(driver, pool)

    async def test_a_thousand_requests_within_scopes_lose_no_slot(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        dice = random.Random(11)
        given_up = 0
        async with opened(driver, TESTED.target(cluster.primary), minsize=1, maxsize=SIZE) as pool:
            # The core never takes more than there are.
            slots = asyncio.Semaphore(SIZE)

            async def request() -> None:
                nonlocal given_up
                async with slots:
                    with anyio.move_on_after(dice.random() * 0.02) as scope:
                        connection = await driver.adapter.acquire_from_pool(pool)
                        try:
                            for _ in range(2):
                                await driver.execute(connection, "SELECT pg_sleep(0.001)")
                            await end_block(driver, connection)
                        finally:
                            await driver.adapter.release_to_pool(connection, pool)
                    given_up += scope.cancelled_caught

            with ignored(ResourceWarning):
                await asyncio.gather(*(request() for _ in range(REQUESTS)))
            assert given_up > REQUESTS / 20, "hardly any was cancelled"
            assert pool.size == pool.freesize
            await all_can_be_taken(driver, pool)

    async def test_a_thousand_requests_of_a_manager_within_scopes_lose_no_slot(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        dice = random.Random(12)
        given_up = 0
        options = {"minsize": 1, "maxsize": SIZE}
        async with manage(driver, cluster, pool_factory_kwargs=options) as manager:
            await manager.ready()

            async def request() -> None:
                nonlocal given_up
                with anyio.move_on_after(dice.random() * 0.02) as scope:
                    async with manager.acquire_master() as connection:
                        for _ in range(2):
                            await driver.execute(connection, "SELECT pg_sleep(0.001)")
                given_up += scope.cancelled_caught

            with ignored(ResourceWarning):
                for _ in range(REQUESTS // 12):
                    await asyncio.gather(*(request() for _ in range(12)))
            assert given_up > REQUESTS / 20, "hardly any was cancelled"
            pool = await manager.get_pool(read_only=False)
            await eventually(lambda: manager.get_pool_freesize(pool) == SIZE, "a slot is lost")
            taken = [await manager.acquire_master() for _ in range(SIZE)]
            assert len({await pid(driver, each) for each in taken}) == SIZE
            for connection in taken:
                await manager.release(connection)
