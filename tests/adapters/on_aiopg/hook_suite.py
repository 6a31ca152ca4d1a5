"""What a user's `on_connect` raises."""

import asyncio

import psycopg2
import pytest
from aiopg.connection import Connection
from tests.adapters.on_aiopg.support import (
    SIZE,
    TESTED,
    Driver,
    Suite,
    all_can_be_taken,
    closes_what_it_opens,
    opened,
)
from tests.support.waiting import PATIENCE

from pyscopg2.core.adapter import HookError
from pyscopg2.testing.cluster import LocalCluster


class HookSuite(Suite):
    async def test_an_error_of_a_hooks_own_is_told_at_once(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        failure: BaseException | None = None

        async def on_connect(connection: Connection) -> None:
            if failure is not None:
                raise failure

        target = TESTED.target(cluster.primary)
        options = {"minsize": 0, "maxsize": SIZE, "on_connect": on_connect}
        async with opened(driver, target, **options) as pool:
            taken = await driver.adapter.acquire_from_pool(pool)
            for failure in (
                KeyError("the request's"),
                AssertionError("of theirs"),
                psycopg2.errors.UndefinedTable(),
                psycopg2.ProgrammingError("can't adapt"),
            ):
                with closes_what_it_opens(cluster.primary):
                    with pytest.raises(HookError) as caught:
                        await driver.adapter.acquire_from_pool(pool)
                    assert caught.value.__cause__ is failure
                    # Here nobody's request is at fault, and the error is as it was raised.
                    with pytest.raises(type(failure)) as raised:
                        await driver.adapter.create_pool(target, **options)
                    assert raised.value is failure
                    # Somebody who asks the pool itself gets what it says.
                    with pytest.raises(type(failure)) as raised:
                        await pool.acquire()
                    assert raised.value is failure
                    failure.__traceback__ = None
            failure = None
            await driver.adapter.release_to_pool(taken, pool)
            await all_can_be_taken(driver, pool)

    async def test_an_error_of_the_hosts_in_a_hook_is_the_hosts(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        failure: Exception | None = None

        code: str | None = None

        async def on_connect(connection: Connection) -> None:
            if isinstance(failure, LookupError):
                connection.close()
            if failure is not None:
                raise failure
            if code is not None:
                async with connection.cursor() as cursor:
                    await cursor.execute(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$")

        options = {"minsize": 0, "maxsize": SIZE, "on_connect": on_connect}
        async with opened(driver, TESTED.target(cluster.primary), **options) as pool:
            taken = await driver.adapter.acquire_from_pool(pool)
            for failure in (
                OSError("lost"),
                TimeoutError(),
                psycopg2.OperationalError("no code: lost"),
                LookupError("what follows from a connection that is closed"),
            ):
                with pytest.raises(type(failure)) as caught:
                    await driver.adapter.acquire_from_pool(pool)
                assert caught.value is failure
            failure = None
            for said in ("57P01", "08006", "53300", "25006", "58030"):
                code = said
                with pytest.raises(psycopg2.Error) as told:
                    await driver.adapter.acquire_from_pool(pool)
                assert told.value.pgcode == said
            for said in ("42P01", "P0001"):
                code = said
                with pytest.raises(HookError):
                    await driver.adapter.acquire_from_pool(pool)
            code = None
            await driver.adapter.release_to_pool(taken, pool)
            await all_can_be_taken(driver, pool)

    async def test_a_cancellation_within_a_hook_is_one(
        self, driver: Driver, cluster: LocalCluster
    ) -> None:
        waits = asyncio.Event()
        slow = False

        async def on_connect(connection: Connection) -> None:
            if slow:
                waits.set()
                await asyncio.sleep(PATIENCE)

        options = {"minsize": 0, "maxsize": SIZE, "on_connect": on_connect}
        async with opened(driver, TESTED.target(cluster.primary), **options) as pool:
            taken = await driver.adapter.acquire_from_pool(pool)
            slow = True
            with closes_what_it_opens(cluster.primary):
                acquiring = asyncio.ensure_future(driver.adapter.acquire_from_pool(pool))
                await waits.wait()
                acquiring.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await acquiring
            slow = False
            await driver.adapter.release_to_pool(taken, pool)
            await all_can_be_taken(driver, pool)
